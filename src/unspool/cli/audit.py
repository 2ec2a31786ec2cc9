"""`unspool audit`: what a model has seen and written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App

from unspool.cli._args import MAY_BE_DASH
from unspool.cli._output import (
    emit_json,
    emit_table,
    emit_text,
    human_number,
    human_seconds,
    message,
    printable,
    progress,
)
from unspool.errors import ConfigError, InputError, PathNotFound

if TYPE_CHECKING:
    from unspool.forensics.contamination_run import ContaminationReport
    from unspool.forensics.trace_page import TraceReport

app = App(name="audit", help="Find out what a model has seen and written.")
app.command(
    "unspool.cli.audit_extract:app",
    name="extract",
    help="Measure how much of its training text a model gives back.",
)
app.command(
    "unspool.cli.audit_detect:app",
    name="detect",
    help="Tell machine text from human text, and know which lengths can be judged.",
)
app.command(
    "unspool.cli.audit_knn_lm:app",
    name="knn-lm",
    help="Mix a datastore into a model, and find out whether it helps.",
)
app.command(
    "unspool.cli.audit_lengths:app",
    name="lengths",
    help="Measure and predict how long a model's answers are.",
)
app.command(
    "unspool.cli.audit_traps:app",
    name="traps",
    help="Plant sequences that show whether a model was trained on a text.",
)

_LISTED = 20
"""Entries listed on a terminal."""


@app.command(usage="Usage: unspool audit contamination [OPTIONS] BENCH…")
def contamination(
    *benchmarks: Annotated[str, MAY_BE_DASH],
    index: list[Path] | None = None,
    window: int = 50,
    stride: str = "word",
    dirty: float = 0.8,
    suspicious: float = 0.2,
    fields: list[str] | None = None,
    id_field: str = "id",
    examples: int = 3,
    sample: int | None = None,
    seed: int = 0,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Say which entries of a benchmark stand in a corpus, and where.

    Every window of an entry's text is looked up; the share that occurs says whether the entry is
    dirty, suspicious or clean. For example:

        unspool audit contamination test.jsonl --index crawl.idx --fields question,answer

        unspool audit contamination benchmarks/ --index 2023.idx --index 2024.idx --out report/

    Args:
        benchmarks: Files (jsonl, json, csv, tsv, parquet, txt) or folders; each file is a
            benchmark. - reads JSON lines from standard input.
        index: An index of bytes; once for each, and a window counts if it occurs in any.
        window: Characters of a window.
        stride: word, or characters from one window to the next.
        dirty: Share of windows from which an entry is dirty.
        suspicious: Share of windows above which an entry is suspicious.
        fields: Fields to look at, as in question,answer. Default: text, or if there is none, every
            field that holds text.
        id_field: Field with the id of an entry.
        examples: Most places shown of an entry.
        sample: Take at most so many entries of each benchmark, drawn at random.
        seed: Of the sample.
        out: Folder for the reports (entries.jsonl, entries.csv, benchmarks.jsonl, benchmarks.csv,
            report.html). The same command goes on where it was stopped.
        json: Print one JSON object an entry, then one a benchmark.
    """
    from unspool.forensics.contamination import ContaminationSettings
    from unspool.forensics.contamination_run import contamination as check

    if not benchmarks:
        raise InputError("Say which benchmarks to check: unspool audit contamination BENCH…")
    settings = ContaminationSettings(
        window=window,
        stride=_stride(stride),
        dirty=dirty,
        suspicious=suspicious,
        fields=tuple(name.strip() for each in fields or () for name in each.split(",")),
        id_field=id_field,
        examples=examples,
        sample=sample,
        seed=seed,
    )
    with progress("Checking entries", unit="entries", quiet=json) as bar:
        found = check(
            benchmarks,
            _indexes(index),
            out=out,
            settings=settings,
            progress=lambda done, total: bar.update(done, total=total),
        )
    if json:
        for row in (*found.entries, *found.benchmarks):
            emit_json(row)
        return
    _show(found)
    if out is not None:
        message(f"Reports are in {out}; open {out / 'report.html'} in a browser.")


@app.command(usage="Usage: unspool audit trace [OPTIONS] TEXT")
def trace(
    text: Annotated[str | None, MAY_BE_DASH] = None,
    /,
    *,
    index: list[Path] | None = None,
    file: Path | None = None,
    out: Path | None = None,
    min_length: int | None = None,
    max_count: int | None = None,
    density: float | None = None,
    rank: Literal["position", "length", "rarity"] = "rarity",
    max_sources: int = 5,
    context: int = 200,
    seed: int = 42,
    json: bool = False,
) -> None:
    """Show where each piece of a text stands in a corpus, the rarest first.

    For example:

        unspool audit trace "as the long text says" --index crawl.idx

        unspool audit trace --file answer.txt --index 2023.idx --index 2024.idx --out answer.html

    Args:
        text: The text to trace; - reads it from standard input.
        index: An index; once for each (their counts add).
        file: A file with the text, in place of TEXT.
        out: Write one HTML page, with the text marked and every source in its context.
        min_length: Fewest symbols (bytes or tokens) of a piece. Default: 24 bytes or 6 tokens.
        max_count: Leave out pieces that occur more often.
        density: Keep so many pieces as this share of the text's symbols.
        rank: Order, and what --density keeps: position, length or rarity.
        max_sources: Most places shown of each piece.
        context: Bytes of text shown on each side of a source.
        seed: Of the sample of places.
        json: Print one JSON object a piece: start, end, text, count, sources.
    """
    from unspool.forensics.trace_page import TraceSettings, page_of, trace_report
    from unspool.index._files import storage, write_atomic

    traced = _text(text, file)
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise PathNotFound(f"--out must be a file in a folder that exists, got {str(out)!r}.")
    given = _indexes(index)
    settings = TraceSettings(
        min_length=min_length,
        max_count=max_count,
        density=density,
        rank=rank,
        max_sources=max_sources,
        context=context,
        seed=seed,
    )
    found = trace_report(given, traced, settings)
    if out is not None:
        with storage(out.parent):
            write_atomic(out, [page_of(found)])
    if json:
        for piece in found.pieces:
            emit_json(piece)
        return
    _show_trace(found)
    if out is not None:
        message(f"The page is {out}.")


def _stride(value: str) -> Literal["word"] | int:
    if value == "word":
        return "word"
    try:
        return int(value)
    except ValueError:
        raise ConfigError(
            f"--stride must be word or a number of characters, got {value!r}."
        ) from None


def _indexes(given: list[Path] | None) -> list[Path]:
    if not given:
        raise ConfigError(
            "Say in which index to look: --index DIR. 'unspool index build PATH… --out DIR' makes "
            "one."
        )
    return given


def _text(given: str | None, file: Path | None) -> str:
    if (given is None) == (file is None):
        raise InputError("Give either a text (or - for standard input) or --file FILE.")
    if given is not None and given != "-":
        return given
    if file is not None and not file.is_file():
        raise PathNotFound(f"There is no file {str(file)!r}. Check the path.")
    data = sys.stdin.buffer.read() if file is None else file.read_bytes()
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        where = "Standard input" if file is None else repr(str(file))
        raise InputError(f"{where} is not valid UTF-8 at byte {error.start:,}.") from error


def _show(found: ContaminationReport) -> None:
    columns = ["benchmark", "entries", "dirty", "suspicious", "clean", "skipped", "dirty rate"]
    rows = []
    for row in found.benchmarks:
        rate = "none" if row["dirty_rate"] is None else f"{row['dirty_rate']:.1%}"
        counts = (human_number(row[name]) for name in columns[1:6])
        rows.append((row["benchmark"], *counts, rate))
    emit_table(columns, rows, right=columns[1:])
    bad = [row for row in found.entries if row["label"] in ("dirty", "suspicious")]
    bad.sort(key=lambda row: -row["eta"])
    if bad:
        emit_text()
        emit_table(
            ["eta", "label", "benchmark", "entry", "found", "first document"],
            [
                (
                    f"{row['eta']:.2f}",
                    row["label"],
                    row["benchmark"],
                    row["id"],
                    "+".join(row["matched"]),
                    row["examples"][0]["document"] if row["examples"] else "",
                )
                for row in bad[:_LISTED]
            ],
            right=["eta"],
        )
    if bad[_LISTED:]:
        left = len(bad) - _LISTED
        message(f"{left:,} more entries are dirty or suspicious: see them with --out or --json.")
    before = f", {found.resumed:,} of them by an earlier run" if found.resumed else ""
    message(
        f"{len(found.entries):,} entries checked{before}, {human_seconds(found.seconds)}. An entry "
        "without any text is skipped."
    )


def _show_trace(found: TraceReport) -> None:
    if not found.pieces:
        message("No piece of the text stands in the corpus. A smaller --min-length finds more.")
        return
    for number, piece in enumerate(found.pieces, 1):
        emit_text(
            f"[{number}] {printable(piece.text, one_line=True)}  (bytes {piece.start:,}-"
            f"{piece.end:,}; {human_number(piece.count)} in the corpus)"
        )
        for source in piece.sources:
            span = source.span
            name = printable(span.document, one_line=True)
            of = f" of {source.index}" if len(found.indexes) > 1 else ""
            emit_text(f"    {name}{of}, bytes {span.start:,}-{span.end:,}")
    many = "1 piece holds" if len(found.pieces) == 1 else f"{len(found.pieces):,} pieces hold"
    message(f"{many} {found.covered:.1%} of the text's {found.bytes:,} bytes.")
