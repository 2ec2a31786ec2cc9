"""A comparison as a CSV file and as a plot of loss by position."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unspool._optional import require
from unspool.reading.compare import FRESH, Compared, write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
_STYLES = ("-", "--", "-.", ":")


def write_csv(results: Sequence[Compared], path: Path) -> None:
    """One line a method and position, then what was measured once a method."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["method", "measure", "at", "value"])
    for result in results:
        name = _safe(result.method)
        for position, nats in result.buckets:
            writer.writerow([name, "nats", position, f"{nats:.6f}"])
        for depth, found in result.passkeys:
            writer.writerow([name, "passkey", depth, int(found)])
        for measure in ("prefill_rate", "decode_rate", "kept_bytes", "dropped_tokens"):
            value = getattr(result, measure)
            if value and result.method != FRESH:
                writer.writerow([name, measure, "", f"{value:.6g}"])
        if result.breaks is not None:
            writer.writerow([name, "breaks_at", "", result.breaks])
        if result.error:
            writer.writerow([name, "error", "", _safe(result.error)])
    write_atomically(path, buffer.getvalue().encode())


def write_plot(results: Sequence[Compared], path: Path, *, window: int | None) -> None:
    """Loss by position, one line a method, the trained window marked.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    pyplot = require("matplotlib.pyplot", extra="plots", purpose="drawing a plot")
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    try:
        _draw(axes, results, window)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    finally:
        pyplot.close(figure)
    write_atomically(path, buffer.getvalue())


def _draw(axes: Axes, results: Sequence[Compared], window: int | None) -> None:
    lowest, highest = float("inf"), 0.0
    for number, result in enumerate(r for r in results if r.buckets):
        positions, nats = zip(*result.buckets, strict=True)
        reference = result.method == FRESH
        axes.plot(
            positions,
            nats,
            color="#888888" if reference else _COLOURS[(number - 1) % len(_COLOURS)],
            linestyle=":" if reference else _STYLES[(number - 1) % len(_STYLES)],
            label=result.method,
        )
        lowest = min(lowest, *nats)
        if reference:
            highest = max(nats)
    # A model that breaks leaves the picture; what is worth seeing is around the reference.
    axes.set_ylim(bottom=max(0.0, lowest - 0.3), top=highest + 3)
    last = max((p for r in results for p, _ in r.buckets), default=0)
    if window is not None and window < last:
        axes.axvline(window, color="#bbbbbb", linewidth=1)
        axes.text(window, axes.get_ylim()[1], " trained window", va="top", color="#666666")
    axes.set_xlabel("position (tokens)")
    axes.set_ylabel("loss (nats a token)")
    axes.xaxis.set_major_formatter(lambda x, _: f"{int(x):,}")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def _safe(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in "=+-@" else text
