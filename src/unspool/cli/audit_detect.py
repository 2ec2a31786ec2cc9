"""`unspool audit detect`: tell machine text from human text, with an error rate for each length."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App

from unspool.cli._args import MAY_BE_DASH
from unspool.cli._output import emit_json, emit_table, human_number, message, progress
from unspool.errors import InputError

if TYPE_CHECKING:
    from unspool.forensics.detect.corpus import Summary
    from unspool.forensics.detect.metrics import Metrics
    from unspool.forensics.detect.settings import TrainSettings

_EXAMPLES = """
For example:

    unspool audit detect train labelled.jsonl --out detector

    unspool audit detect score crawl/ --detector detector --out scores

    unspool audit detect eval detector mine.jsonl --unit sentence

Read MODEL_CARD.md in the detector's folder: a score is no verdict on one text.
"""

app = App(
    name="detect",
    help="Train and use a detector of machine text that knows which lengths it can judge.",
    help_epilogue=_EXAMPLES,
)

_LISTED = 20
"""Texts listed on a terminal."""


@app.command
def train(
    data: Path,
    /,
    *,
    out: Path,
    held: Path | None = None,
    encoder: str = "minilm",
    lam: float = 0.4,
    prior: float = 0.2,
    len_threshold: int = 55,
    deletion: float = 0.25,
    clean: Literal["en", "none"] = "en",
    epochs: int = 1,
    lr: float = 5e-5,
    batch: int = 32,
    max_length: int = 512,
    balanced: bool = False,
    target_fpr: float = 0.01,
    on_overflow: Literal["error", "truncate", "window"] = "error",
    device: str = "auto",
    seed: int = 0,
    json: bool = False,
) -> None:
    """Train a detector on labelled texts; the same command goes on after a stop.

    Args:
        data: Texts with labels: .jsonl, .json or .csv with text and label (0 human, 1 machine), and
            if there are any question and source; or HC3's records.
        out: A folder for the detector, its model card and its report.
        held: Labelled texts for calibration. Default: about a tenth of the data, by question.
        encoder: minilm, a folder with an encoder, or a Hugging Face id.
        lam: Weight of the positive-unlabelled term; 0 trains by cross-entropy alone.
        prior: Of the positive-unlabelled term.
        len_threshold: Tokens from which a text is long.
        deletion: Probability of deleting a sentence of a training text.
        clean: Cleaning of every text, in training and in scoring.
        epochs: Passes over the texts.
        lr: Learning rate.
        batch: Texts a step.
        max_length: Most tokens of a text.
        balanced: Repeat texts of the smaller class.
        target_fpr: Share of human texts of a length that may be flagged.
        on_overflow: What to do with a longer text: refuse, truncate (it is counted) or window.
        device: auto, cpu or cuda.
        seed: Of everything that is drawn.
        json: Print one JSON object with the counts, bins and figures.
    """
    from unspool.forensics.detect.examples import read_examples
    from unspool.forensics.detect.settings import TrainSettings
    from unspool.forensics.detect.training import train as fit

    settings = TrainSettings(
        encoder=encoder,
        lam=lam,
        prior=prior,
        len_threshold=len_threshold,
        deletion=deletion,
        clean=clean,
        epochs=epochs,
        lr=lr,
        batch=batch,
        max_length=max_length,
        balanced=balanced,
        target_fpr=target_fpr,
        on_overflow=on_overflow,
        seed=seed,
    )
    examples = read_examples(data)
    checked = read_examples(held) if held else None
    with (
        warnings.catch_warnings(),
        progress("Training", unit="steps", quiet=json) as bar,
    ):
        warnings.simplefilter("ignore", UserWarning)  # they are in the notes, told below
        made = fit(
            examples,
            checked,
            settings,
            out=out,
            device=device,
            on_progress=lambda done, total: bar.update(done, total=total),
        )
    facts = made.facts
    if json:
        bins = [b.to_json() for b in made.bins]
        emit_json({"out": str(out), **facts, "bins": bins})
        return
    for note in facts["notes"]:
        message(f"note: {note}")
    for count, what in ((facts["empty"], "texts were empty and left out"),
                        (facts["dropped_tokens"], "tokens were not read")):  # fmt: skip
        if count:
            message(f"{count:,} {what}")
    _show_bins(made.bins)
    message(
        f"On held-out texts and runs of their sentences; expect worse elsewhere. Detector "
        f"{made.name} in {out}: read MODEL_CARD.md, which says where it must not be used, and "
        f"open report.html."
    )


@app.command(usage="Usage: unspool audit detect score [OPTIONS] PATH…")
def score(
    *paths: Annotated[str, MAY_BE_DASH],
    detector: Path,
    out: Path | None = None,
    unit: Literal["text", "sentence"] = "text",
    text_field: str = "text",
    id_field: str = "id",
    on_overflow: Literal["error", "truncate", "window"] = "window",
    workers: int | None = None,
    device: str = "auto",
    json: bool = False,
) -> None:
    """Score texts; with --out the same command goes on after a stop.

    Args:
        paths: Files or folders with texts; - reads standard input.
        detector: What `train` wrote.
        out: A folder for scores.jsonl and summary.json.
        unit: Whole texts, or each sentence.
        text_field: Field of a record with its text.
        id_field: Field of a record with its id.
        on_overflow: How to read a text that is longer than the encoder's window: in several
            windows, whose scores are averaged; its beginning alone (it is counted); or not at all.
        workers: Processes. Default: as many as there are cores.
        device: auto, cpu or cuda; cuda takes one process.
        json: Print one JSON object a text or sentence.
    """
    from unspool.corpus.readers import read_documents
    from unspool.forensics.detect.corpus import score_corpus
    from unspool.forensics.detect.detector import describe, device_of

    if not paths:
        raise InputError("Say what to score: unspool audit detect score PATH…")
    head = describe(detector)
    place = device_of(device)
    documents = read_documents(list(paths), text_field=text_field, id_field=id_field)
    with progress("Scoring", unit="texts", quiet=json) as bar:
        found = score_corpus(
            detector,
            documents,
            out=out,
            unit=unit,
            on_overflow=on_overflow,
            workers=_workers(workers, place, paths),
            device=place,
            on_progress=bar.update,
        )
    if json:
        for row in found.rows if out is None else _rows(out):
            emit_json(row)
        return
    if out is None:
        _show_rows(found.rows)
    _tell(found.summary, found.resumed, unit)
    _caution(detector, head.settings, head.facts)
    if out is not None:
        message(f"Scores are in {out / 'scores.jsonl'}.")


@app.command(name="eval")
def evaluate(
    detector: Path,
    data: Path,
    /,
    *,
    unit: Literal["text", "sentence"] = "text",
    on_overflow: Literal["error", "truncate", "window"] = "window",
    device: str = "auto",
    json: bool = False,
) -> None:
    """Measure a detector on labelled texts, by length; human texts alone give its false alarms.

    Args:
        detector: What `train` wrote.
        data: Texts with labels, as `train` reads them.
        unit: Whole texts, or each sentence.
        on_overflow: How to read a text that is longer than the encoder's window.
        device: auto, cpu or cuda.
        json: Print one JSON object for all texts, then one a range of lengths.
    """
    from unspool.forensics.detect import Detector
    from unspool.forensics.detect import evaluate as measure
    from unspool.forensics.detect.examples import read_examples

    loaded = Detector.load(detector, device=device)
    found = measure(loaded, read_examples(data), unit=unit, on_overflow=on_overflow)
    if json:
        emit_json({**found.whole.to_json(), "skipped": found.skipped})
        for each in found.lengths:
            emit_json(each)
        return
    _show_metrics([*found.lengths, found.whole])
    if found.skipped:
        message(f"{found.skipped:,} texts were empty")
    _caution(detector, loaded.settings, loaded.facts)


def _workers(given: int | None, device: str, paths: tuple[str, ...]) -> int:
    from unspool._machine import usable_cores
    from unspool.errors import ConfigError

    if given is not None and given < 1:
        raise ConfigError(f"--workers must be at least 1, got {given}.")
    if device != "cpu":
        if given is not None and given > 1:
            raise ConfigError(f"--workers {given} needs --device cpu: a GPU takes one process.")
        return 1
    if given is not None:
        return given
    # A second process takes seconds to start: not worth it for a few small files.
    size = sum(Path(p).stat().st_size if Path(p).is_file() else 1 << 20 for p in paths if p != "-")
    return usable_cores() if size >= 1 << 20 else 1


def _rows(out: Path) -> Any:
    import orjson

    with (out / "scores.jsonl").open("rb") as file:
        for line in file:
            yield orjson.loads(line)


def _show_bins(bins: Any) -> None:
    from unspool.forensics.detect.card import lengths

    columns = ("human", "machine", "bound", "human flagged", "machine flagged")
    emit_table(
        ["tokens", *columns, "decides"],
        (
            [
                lengths(b.low, b.high),
                human_number(b.human),
                human_number(b.machine),
                "" if b.threshold is None else f"{b.threshold:.3f}",
                "" if b.fpr is None else f"{b.fpr:.1%}",
                "" if b.tpr is None else f"{b.tpr:.1%}",
                "yes" if b.decided else "no",
            ]
            for b in bins
        ),
        right=columns,
    )


def _show_metrics(found: list[Metrics]) -> None:
    from unspool.forensics.detect.card import lengths

    def share(value: float | None) -> str:
        return "" if value is None else f"{value:.1%}"

    columns = ("human", "machine", "F1", "AUC", "humans called machine", "human flagged",
               "machine flagged", "undecided")  # fmt: skip
    emit_table(
        ["tokens", *columns],
        (
            [
                "all" if m is found[-1] else lengths(m.low, m.high),
                human_number(m.human),
                human_number(m.machine),
                share(m.f1),
                "" if m.auc is None else f"{m.auc:.3f}",
                "" if m.fpr is None else f"{m.fpr:.1%} ({share(m.fpr_low)} to {share(m.fpr_high)})",
                share(m.flagged_human),
                share(m.flagged_machine),
                share(m.undecided),
            ]
            for m in found
        ),
        right=columns,
    )


def _show_rows(rows: tuple[dict[str, Any], ...]) -> None:
    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    def call(row: dict[str, Any]) -> str:
        return row["reason"] or ("flagged" if row["flagged"] else "not flagged")

    emit_table(
        ["machine", "calibrated", "tokens", "decision", "text"],
        (
            [
                number(row["machine"]),
                number(row["calibrated"]),
                human_number(row["tokens"]),
                call(row),
                f"{row['document']}: {row['text'].strip()}" if "text" in row else row["document"],
            ]
            for row in rows[:_LISTED]
        ),
        right=("machine", "calibrated", "tokens"),
    )
    if rows[_LISTED:]:
        message(f"{len(rows) - _LISTED:,} more: see them with --out or --json.")


def _tell(summary: Summary, resumed: int, unit: str) -> None:
    what = "texts" if unit == "text" else "sentences"
    before = f", {resumed:,} of them by an earlier run" if resumed else ""
    parts = [
        f"{summary.documents:,} texts read{before}",
        f"{summary.flagged:,} {what} flagged",
        f"{summary.scored - summary.flagged - summary.undecided:,} not flagged",
        f"{summary.undecided:,} too short or undecided",
    ]
    for count, said in (
        (summary.empty, "empty"),
        (summary.windowed, "read in several windows"),
    ):
        if count:
            parts.append(f"{count:,} {said}")
    if summary.dropped_tokens:
        parts.append(f"{summary.dropped_tokens:,} tokens not read")
    message("; ".join(parts))


def _caution(folder: Path, settings: TrainSettings, facts: dict[str, Any]) -> None:
    """What every list of scores must be read with."""
    import orjson

    try:
        day = orjson.loads((folder / "run.json").read_bytes())["calibrated"]
    except (OSError, KeyError, TypeError, orjson.JSONDecodeError):
        day = "on an unknown day"
    for note in facts["notes"]:
        message(f"note: {note}")
    machines = ", ".join(sorted(facts["sources"]["machine"]))
    message(
        f"Calibrated {day} on texts of: {machines}; bounds are set for "
        f"{settings.target_fpr:.1%} false alarms on its own human texts. Measure them on "
        "yours (detect eval). No verdict on a single text."
    )
