"""A report as CSV: a row a level and a row a heat-map cell; texts cannot become formulas."""

from __future__ import annotations

import csv
import io
from typing import Any

from unspool.evaluation.render.facts import sorted_levels
from unspool.evaluation.report import Report

_COLUMNS = ("model", "task", "level", "depth", "n", "score", "low", "high", "interval", "official")


def to_csv(report: Report) -> bytes:
    """One row a level (depth empty), then one a cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    model = text_cell(report.data["model"]["name"])
    for task, found in report.data["tasks"].items():
        head = (model, text_cell(task))
        for level, cell in sorted_levels(found):
            official = cell["metric"].get("score")
            writer.writerow([*head, text_cell(level), "", *_numbers(cell), official])
        for cell in found["cells"]:
            writer.writerow([*head, text_cell(cell["level"]), cell["depth"], *_numbers(cell), ""])
    return out.getvalue().encode()


def _numbers(cell: dict[str, Any]) -> list[Any]:
    return [cell[key] for key in ("n", "mean", "low", "high", "interval")]


def text_cell(text: str) -> str:
    """A text that a spreadsheet takes as text: a leading = + - @ or control gets a quote."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
