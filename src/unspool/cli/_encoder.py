"""What the verbs of `unspool encoder` share: options, checks, the record of a run, and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cyclopts import Parameter

from unspool.cli._output import emit_table, emit_text, human_number, message, printable
from unspool.errors import ConfigError, PathNotFound

if TYPE_CHECKING:
    from unspool.models.long_encoder.tasks.examples import TaskName
    from unspool.models.long_encoder.tasks.heads import TaskModel
    from unspool.models.long_encoder.tasks.predicting import Prediction
    from unspool.models.long_encoder.tasks.readers import Read
    from unspool.models.long_encoder.tasks.scores import Scores
    from unspool.models.long_encoder.tasks.windows import Reading


DATA = (
    "ner: CoNLL (.conll, .bio), .jsonl with words and tags or text and entities, i2b2's .xml of "
    "2006, 2012 and 2014, or a folder of CoNLL, of that .xml, or of i2b2's .txt and .con of 2010. "
    "qa: SQuAD's .json, emrQA's data.json, or .jsonl with context, question and answers. "
    "classify: .jsonl, .csv or .tsv with text and label. nli: the same with premise, hypothesis "
    "and label, or SNLI's names."
)
"""What the commands read."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Options of the commands that read records with a trained model."""

    length: int | None = None
    """Tokens of a window. Default: what the encoder reads."""
    overlap: int = 128
    """Tokens that two windows of a longer record share."""
    on_overflow: Literal["error", "truncate", "window"] = "window"
    """A record longer than a window is refused, cut (what is dropped is counted), or read in
    several windows."""
    batch: int = 4
    """Windows at once."""
    sentences: bool = False
    """ner: sentences of a CoNLL file become records."""
    part: str | None = None
    """qa: the part of emrQA to read: medication, relations or risk."""
    longest_answer: int = 30
    """qa: most tokens of an answer."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto, cpu or cuda."""
    json: bool = False
    """Print JSON."""

    def window(self) -> dict[str, Any]:
        """As `predict` takes them."""
        return {
            "length": self.length,
            "overlap": self.overlap,
            "on_overflow": self.on_overflow,
            "batch": self.batch,
            "longest_answer": self.longest_answer,
        }


def trained(folder: Path) -> TaskModel:
    """A model that fit wrote."""
    if not folder.is_dir():
        raise PathNotFound(
            f"There is no model {str(folder)!r}. `unspool encoder fit TASK MODEL DATA --out DIR` "
            "trains one."
        )
    from unspool.models.long_encoder.tasks import TaskModel

    return TaskModel.load(folder)


def device_of(name: str) -> str | None:
    """What the calls take: None lets them choose."""
    if name == "auto":
        return None
    if name == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ConfigError("--device cuda needs a GPU that PyTorch can use, and there is none.")
    return name


def free(out: Path) -> None:
    """Nothing that is there may be overwritten."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists and is not an empty folder. Choose another one.")


def apart(model: Path, out: Path) -> None:
    """A model must not be written over the one that it is made of."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file, choose a folder.")
    if model.resolve() == out.resolve():
        raise ConfigError(f"--out must not be the folder of the model, {model}.")


def mean_of_last(losses: Sequence[float]) -> float | None:
    """Of the last 20 steps; None if a run had nothing left to do."""
    last = losses[-20:]
    return sum(last) / len(last) if last else None


def record(out: Path, verb: str, settings: Any, facts: dict[str, Any], **given: Any) -> None:
    """Settings, versions and what came of it, beside the model."""
    from dataclasses import asdict

    from unspool._machine import versions
    from unspool.evaluation._io import canonical, write_atomic

    record = {
        "command": f"encoder {verb}",
        **given,
        "settings": asdict(settings),
        "versions": versions(("torch", "transformers", "tokenizers")),
        "result": facts,
    }
    write_atomic(out / "run.json", [canonical(record)])


def records(
    task: TaskName,
    path: Path,
    fields: Sequence[str] = (),
    sentences: bool = False,
    part: str | None = None,
) -> Read:
    """Labelled records; what is not read as it stands is said."""
    from unspool.models.long_encoder.tasks import read_examples

    read = read_examples(task, path, label_fields=fields, sentences=sentences, part=part)
    for line in read.notes:
        message(f"note: {line}.")
    return read


def tell(reading: Reading, skipped: int) -> None:
    """What was read, and what was not."""
    parts = [f"{reading.records:,} records", f"{reading.tokens:,} tokens"]
    if reading.windowed:
        parts.append(f"{reading.windowed:,} records read in several windows")
    if reading.dropped_tokens:
        parts.append(f"{reading.dropped_tokens:,} tokens NOT read")
    if skipped:
        parts.append(f"{skipped:,} records without consensus left out")
    message("; ".join(parts) + ".")


def line(each: Prediction) -> str:
    """One prediction for a person."""
    if each.score is not None:
        said = "no answer" if each.answer is None else each.answer.text
        where = "" if each.answer is None else f" (bytes {each.answer.start:,}-{each.answer.end:,})"
        return f"{each.id}: {printable(said, one_line=True)}{where}"
    if each.probabilities:
        shares = dict(each.probabilities)
        return f"{each.id}: " + (
            ", ".join(f"{label} {shares[label]:.0%}" for label in each.labels) or "no class"
        )
    found = ", ".join(
        f"{e.label} {printable(e.span.text, one_line=True)!r} (byte {e.span.start:,})"
        for e in each.entities
    )
    return f"{each.id}: {found or 'no entities'}"


def show(scores: Scores) -> None:
    """Figures, and figures by label."""

    def shown(value: float | None) -> str:
        return "not defined" if value is None else f"{value:.3f}"

    emit_table(
        ["figure", "value"],
        [(name, shown(value)) for name, value in scores.figures.items()],
        right=["value"],
    )
    if scores.by_label:
        names = list(next(iter(scores.by_label.values())))
        emit_text()
        emit_table(
            ["label", *names],
            [(label, *map(shown, each.values())) for label, each in scores.by_label.items()],
            right=names,
        )
    if scores.reading.records < 30:
        message(f"{human_number(scores.reading.records)} records are few: expect other figures.")
