"""What every form of a report is drawn from: levels in order, heat maps, comparisons, costs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from unspool.errors import PathNotFound
from unspool.evaluation import _io
from unspool.evaluation.compare import Comparison, strata
from unspool.evaluation.report import SCORES, Report, read_report


@dataclass(frozen=True, slots=True)
class Grid:
    """A heat map: one value a cell, None where there is no sample."""

    columns: tuple[str, ...]
    rows: tuple[str, ...]
    cells: tuple[tuple[dict[str, Any] | None, ...], ...]
    """By row, then column; each a cell of the report."""
    column_title: str
    row_title: str


def sorted_levels(found: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The levels of a task of a report, shortest first."""
    return sorted(found["levels"].items(), key=lambda level: (level[1]["length"] or 0, level[0]))


def grid(found: dict[str, Any], *, swap: bool = False) -> Grid | None:
    """The length x depth heat map of a task; None if it has no depths.

    Args:
        found: A task of a report.
        swap: Depth along the columns, not down the rows.
    """
    cells = {(cell["level"], cell["depth"]): cell for cell in found["cells"]}
    if not cells:
        return None
    levels = [name for name, _ in sorted_levels(found) if any(key[0] == name for key in cells)]
    depths = sorted({depth for _, depth in cells})
    shown = tuple(f"{100 * depth:g}%" for depth in depths)
    unit = (found["levels_unit"] or "length").partition(":")[0]
    if swap:
        body = tuple(tuple(cells.get((level, depth)) for depth in depths) for level in levels)
        return Grid(shown, tuple(levels), body, "depth", unit)
    body = tuple(tuple(cells.get((level, depth)) for level in levels) for depth in depths)
    return Grid(tuple(levels), shown, body, unit, "depth")


def compared(report: Report, other: Path) -> tuple[Report, dict[str, dict[str, Comparison]]]:
    """Another run, and how it differs from the report on the samples of both."""
    second = read_report(other)
    seed = int(report.data["settings"]["seed"])
    return second, strata(_scores(other), _scores(report.folder), seed=seed)


def _scores(folder: Path) -> dict[tuple[str, str, str], float]:
    path = folder / SCORES
    if not path.exists():
        raise PathNotFound(f"The run in {folder.name} has no {SCORES}. Score it first.")
    return {
        (row["task"], row["level"], f"{row['sample']}#{row['repeat']}"): row["scores"]["score"]
        for _, row in _io.read_lines(path)
    }


def cost_of(folder: Path) -> dict[str, Any] | None:
    """What the run cost; None where nothing says it."""
    try:
        return dict(orjson.loads((folder / "cost.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def interval(cell: dict[str, Any]) -> str:
    return f"{cell['low']:.1f}-{cell['high']:.1f}"


def length_text(value: int | None) -> str:
    return "none" if value is None else f"{value:,}"


def range_text(low: int | None, high: int | None) -> str:
    """An interval of lengths; None is below the shortest."""
    return length_text(low) if low == high else f"{length_text(low)} to {length_text(high)}"


def p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
