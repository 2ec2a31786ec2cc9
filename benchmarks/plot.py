"""`python -m benchmarks.plot NAME`: draw a benchmark from its rows, as SVG and PNG.

The newest row of each point counts. A sweep over a number becomes lines on logarithmic axes,
anything else bars. Colours are the Okabe-Ito set, and each contender has its own marker too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.registry import OURS
from benchmarks.run import RESULTS, ROOT
from unspool._optional import require
from unspool.cli._output import message
from unspool.errors import ConfigError, UnspoolError

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__)
    parser.add_argument("name")
    parser.add_argument(
        "--x", help="parameter on the horizontal axis; default: the first of the sweep"
    )
    parser.add_argument(
        "--figure", default="median", help="median, peak_bytes or the name of a fact"
    )
    parser.add_argument("--label", help="what the vertical axis says")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "assets")
    options = parser.parse_args(argv)
    try:
        for path in draw(**vars(options)):
            message(f"wrote {path}")
    except UnspoolError as error:
        message(f"error: {error}")
        return 2
    return 0


def draw(
    name: str, *, x: str | None, figure: str, label: str | None, results: Path, out: Path
) -> list[Path]:
    """Draw one figure of one benchmark and return the files written."""
    path = results / f"{name}.jsonl"
    if not path.exists():
        raise ConfigError(f"{name} has no rows yet. Run: python -m benchmarks.run {name}")
    newest: dict[str, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        newest[json.dumps(row["point"], sort_keys=True)] = row
    rows = list(newest.values())
    plt = require("matplotlib.pyplot", extra="plots", purpose="drawing a plot")
    matplotlib = sys.modules["matplotlib"]
    style = {"svg.hashsalt": name, "svg.fonttype": "none", "font.size": 10}
    with matplotlib.rc_context(style):
        canvas, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
        axes.spines[["top", "right"]].set_visible(False)
        axis = x or next(iter(rows[0]["point"]), None)
        if axis is not None and isinstance(rows[0]["point"][axis], int | float):
            _lines(axes, rows, axis, figure)
        else:
            _bars(axes, rows, figure)
        unit = rows[-1]["unit"] if figure == "median" else figure
        axes.set_ylabel(label or {"s": "seconds", "peak_bytes": "bytes of memory"}.get(unit, unit))
        axes.grid(axis="y", alpha=0.3)
        out.mkdir(parents=True, exist_ok=True)
        stem = name if figure == "median" else f"{name}-{figure}"
        files = [out / f"{stem}.svg", out / f"{stem}.png"]
        canvas.savefig(files[0], metadata={"Date": None})
        canvas.savefig(files[1], dpi=160)
        plt.close(canvas)
    return files


def _figure(row: dict[str, Any], contender: str, figure: str) -> float | None:
    found = row["results"].get(contender)
    if found is None:
        return None
    value = found.get(figure, found.get("facts", {}).get(figure))
    return float(value) if value is not None else None


def _contenders(rows: Sequence[dict[str, Any]], figure: str) -> list[str]:
    names = {n for row in rows for n in row["results"] if _figure(row, n, figure) is not None}
    return sorted(names, key=lambda n: (n != OURS, n))


def _lines(axes: Any, rows: Sequence[dict[str, Any]], axis: str, figure: str) -> None:
    for i, contender in enumerate(_contenders(rows, figure)):
        points = sorted(
            (row["point"][axis], value)
            for row in rows
            if (value := _figure(row, contender, figure)) is not None
        )
        axes.plot(
            *zip(*points, strict=True),
            color=_COLOURS[i % len(_COLOURS)],
            marker=_MARKERS[i % len(_MARKERS)],
            linewidth=2.4 if contender == OURS else 1.4,
            label=contender,
        )
    axes.set(xscale="log", yscale="log", xlabel=axis)
    axes.legend(frameon=False)


def _bars(axes: Any, rows: Sequence[dict[str, Any]], figure: str) -> None:
    names = _contenders(rows, figure)
    points = [", ".join(str(v) for v in row["point"].values()) or row["benchmark"] for row in rows]
    width = 0.8 / max(len(names), 1)
    for i, contender in enumerate(names):
        values = [_figure(row, contender, figure) or 0.0 for row in rows]
        places = [p + (i - (len(names) - 1) / 2) * width for p in range(len(rows))]
        axes.bar(places, values, width * 0.92, color=_COLOURS[i % len(_COLOURS)], label=contender)
    axes.set_xticks(range(len(rows)), points)
    axes.legend(frameon=False)


if __name__ == "__main__":
    sys.exit(main())
