"""A report as one picture: a heat map a task, or its scores by length."""

from __future__ import annotations

import io
import math
from typing import Any

from unspool._optional import require
from unspool.errors import InputError
from unspool.evaluation.render.facts import grid, sorted_levels
from unspool.evaluation.report import Report


def to_png(report: Report, *, swap: bool = False) -> bytes:
    """Draw every task; needs the extra `plots`."""
    figure_module = require("matplotlib.figure", extra="plots", purpose="Drawing a report")
    tasks = report.data["tasks"]
    if not tasks:
        raise InputError("There is nothing to draw: the report has no task.")
    columns = min(3, len(tasks))
    rows = math.ceil(len(tasks) / columns)
    figure = figure_module.Figure(figsize=(4.8 * columns, 3.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for number, (name, found) in enumerate(tasks.items()):
        axis = axes[number // columns][number % columns]
        axis.set_title(name, fontsize=10, parse_math=False)
        heat = grid(found, swap=swap)
        if heat is not None:
            _heat(axis, heat)
        else:
            _curve(axis, found)
    for number in range(len(tasks), rows * columns):
        axes[number // columns][number % columns].axis("off")
    figure.suptitle(report.data["model"]["name"], parse_math=False)
    out = io.BytesIO()
    # No creation date or version in the file, so that one report gives the same bytes.
    figure.savefig(out, format="png", dpi=120, metadata={"Software": None})
    return out.getvalue()


def _heat(axis: Any, heat: Any) -> None:
    values = [[math.nan if c is None else c["mean"] for c in row] for row in heat.cells]
    axis.imshow(values, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    axis.set_xticks(range(len(heat.columns)), heat.columns)
    axis.set_yticks(range(len(heat.rows)), heat.rows)
    axis.set_xlabel(heat.column_title)
    axis.set_ylabel(heat.row_title)
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            if not math.isnan(value):
                colour = "black" if value > 55 else "white"
                axis.text(x, y, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=8)


def _curve(axis: Any, found: dict[str, Any]) -> None:
    levels = sorted_levels(found)
    means = [cell["mean"] for _, cell in levels]
    errors = [
        [max(0.0, cell["mean"] - cell["low"]) for _, cell in levels],
        [max(0.0, cell["high"] - cell["mean"]) for _, cell in levels],
    ]
    axis.errorbar(range(len(levels)), means, yerr=errors, marker="o", capsize=3, color="#00204d")
    axis.set_xticks(range(len(levels)), [name for name, _ in levels])
    axis.set_xlabel((found["levels_unit"] or "length").partition(":")[0])
    axis.set_ylabel("score")
    axis.set_ylim(-5, 105)
