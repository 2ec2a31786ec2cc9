"""A contamination report as tables for spreadsheets and as one HTML page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from unspool.forensics.contamination import LABELS
from unspool.forensics.contamination_run import ContaminationReport
from unspool.forensics.page import document, percent, section, table, text

_SHOWN = 500
"""Entries of a benchmark on the page; the rest are counted there and stand in the other files."""
_QUOTED = 2000
"""Characters of a quotation on the page."""


def entries_csv(report: ContaminationReport) -> bytes:
    """A row an entry."""
    columns = ["benchmark", "id", "eta", "label", "windows", "hits", "matched"]
    columns += ["document", "start", "end", "text"]
    rows = []
    for row in report.entries:
        example = row["examples"][0] if row["examples"] else {}
        rows.append(
            [
                *(row[name] for name in columns[:6]),
                "+".join(row["matched"]),
                *(example.get(name, "") for name in columns[7:]),
            ]
        )
    return _csv(columns, rows)


def benchmarks_csv(report: ContaminationReport) -> bytes:
    """A row a benchmark, and one a benchmark and index where there are several indexes."""
    columns = ["benchmark", "index", "entries", "dirty", "suspicious", "clean", "skipped"]
    rows: list[list[Any]] = []
    for row in report.benchmarks:
        rows.append([row["benchmark"], "all", *(row[name] for name in columns[2:])])
        if len(report.indexes) > 1:
            for name, found in row["indexes"].items():
                counts = (found["dirty"], found["suspicious"], "", "")
                rows.append([row["benchmark"], name, row["entries"], *counts])
    return _csv(columns, rows)


def page_of(report: ContaminationReport) -> bytes:
    """The page: counts a benchmark, then every entry that is not clean, the worst first."""
    settings = report.settings
    stride = "a word" if settings.stride == "word" else f"{settings.stride} characters"
    lead = (
        f"{len(report.entries):,} entries against {text(', '.join(report.indexes))}. Windows of "
        f"{settings.window} characters, {stride} apart. Dirty: at least "
        f"{settings.dirty:.0%} of an entry's windows occur in the corpus; suspicious: more than "
        f"{settings.suspicious:.0%}."
    )
    body = [section("Benchmarks", _benchmarks(report))]
    for row in report.benchmarks:
        own = [e for e in report.entries if e["benchmark"] == row["benchmark"]]
        body.append(section(row["benchmark"], _entries(own)))
    return document("Contamination report", lead, "".join(body))


def _benchmarks(report: ContaminationReport) -> str:
    rows = []
    for row in report.benchmarks:
        cells = [f'<span class="{label}">{row[label]:,}</span>' for label in LABELS]
        sides = ", ".join(f"{text(name)} {n:,}" for name, n in row["matched"].items())
        drawn = row["entries"] < row["entries_in_file"]
        of = f" of {row['entries_in_file']:,}" if drawn else ""
        rows.append(
            [
                f"<b>{text(row['benchmark'])}</b>",
                f"{row['entries']:,}{of}",
                *cells,
                percent(row["dirty_rate"]),
                sides or "none",
            ]
        )
        if len(report.indexes) > 1:
            for name, found in row["indexes"].items():
                counts = [f"{found['dirty']:,}", f"{found['suspicious']:,}"]
                rows.append([f"in {text(name)} alone", "", *counts, "", "", "", ""])
    columns = ["benchmark", "entries", *LABELS, "dirty rate", "fields found, entries"]
    return table(columns, rows)


def _entries(rows: Sequence[dict[str, Any]]) -> str:
    found = sorted(
        (row for row in rows if row["hits"]), key=lambda row: (-row["eta"], -row["windows"])
    )
    if not found:
        return '<p class="note">No window of any entry occurs in the corpus.</p>'
    shown = found[:_SHOWN]
    parts = [_entry(row) for row in shown]
    rest = len(rows) - len(found)
    left = f"; {len(found) - len(shown):,} more are in entries.jsonl" if found[_SHOWN:] else ""
    parts.append(
        f'<p class="note">{len(shown):,} entries with windows in the corpus are shown{left}. '
        f"{rest:,} have none.</p>"
    )
    return "".join(parts)


def _entry(row: dict[str, Any]) -> str:
    sides = ", ".join(map(text, row["matched"]))
    head = (
        f'<span class="{row["label"]}">{row["label"]}</span> <b>{text(row["id"])}</b> '
        f"<small>{percent(row['eta'])}, {row['hits']:,} of {row['windows']:,} windows; "
        f"found: {sides}</small>"
    )
    parts = []
    for name, each in row["fields"].items():
        for span in each["spans"]:
            where = f"{text(name)}, bytes {span['start']:,}–{span['end']:,}"
            parts.append(f"<small>{where}</small><blockquote>{_quote(span['text'])}</blockquote>")
    for example in row["examples"]:
        times = f"{example['count']:,} time{'s' if example['count'] != 1 else ''}"
        parts.append(
            f"<small>stands in <b>{text(example['document'])}</b> of {text(example['index'])}, "
            f"bytes {example['start']:,}–{example['end']:,}; {times} in that index</small>"
            f"<blockquote><mark>{_quote(example['text'])}</mark></blockquote>"
        )
    return f"<details><summary>{head}</summary>{''.join(parts)}</details>"


def _quote(quoted: str) -> str:
    left = len(quoted) - _QUOTED
    if left <= 0:
        return text(quoted)
    return f"{text(quoted[:_QUOTED])} […{left:,} more characters in entries.jsonl]"


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return out.getvalue().encode()


def _cell(value: Any) -> Any:
    """A text that a spreadsheet takes as text: a leading = + - @ or control gets a quote."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r", "\n"):
        return f"'{value}"
    return "" if value is None else value
