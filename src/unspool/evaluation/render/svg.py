"""Heat maps and curves as inline SVG: no style attributes, so a strict CSP lets them be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from unspool.evaluation.render.facts import Grid

# Cividis (Nuñez et al. 2018): reads the same with and without colour vision.
_COLOURS = (
    (0, 32, 77), (0, 52, 110), (57, 71, 108), (87, 92, 109), (112, 113, 115),
    (138, 134, 120), (165, 156, 116), (195, 179, 105), (225, 204, 85), (253, 234, 69),
)  # fmt: skip
_CELL, _ROW, _LEFT, _TOP = 64, 34, 64, 18

Link = Callable[[str, float], str]
"""Address of the samples of a level and depth."""


def colour(score: float | int) -> str:
    """A score in percent as a colour."""
    place = min(max(score, 0.0), 100.0) / 100 * (len(_COLOURS) - 1)
    low = min(int(place), len(_COLOURS) - 2)
    share = place - low
    mixed = (
        round(a + (b - a) * share) for a, b in zip(_COLOURS[low], _COLOURS[low + 1], strict=True)
    )
    return "#" + "".join(f"{value:02x}" for value in mixed)


def heat_map(grid: Grid, link: Link, title: str) -> str:
    """A table of coloured cells with their scores; each leads to its samples."""
    width = _LEFT + _CELL * len(grid.columns) + 8
    height = _TOP + _ROW * len(grid.rows) + 44
    parts = [
        f'<svg class="{_fit(len(grid.columns))}" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title, quote=True)}">'
    ]
    for y, (name, row) in enumerate(zip(grid.rows, grid.cells, strict=True)):
        middle = _TOP + _ROW * y + _ROW / 2
        parts.append(_text(_LEFT - 8, middle, name, "end"))
        for x, cell in enumerate(row):
            parts.append(_cell(_LEFT + _CELL * x, _TOP + _ROW * y, cell, link))
    bottom = _TOP + _ROW * len(grid.rows)
    for x, name in enumerate(grid.columns):
        parts.append(_text(_LEFT + _CELL * (x + 0.5), bottom + 14, name, "middle"))
    middle = _LEFT + _CELL * len(grid.columns) / 2
    parts.append(_text(middle, bottom + 34, grid.column_title, "middle", "axis"))
    parts.append(_text(_LEFT - 8, _TOP - 8, grid.row_title, "end", "axis"))
    return "".join(parts) + "</svg>"


def _cell(x: float | int, y: float | int, cell: dict[str, Any] | None, link: Link) -> str:
    box = f'x="{x + 1:g}" y="{y + 1:g}" width="{_CELL - 2}" height="{_ROW - 2}" rx="3"'
    if cell is None:
        return f'<rect {box} class="missing"/>'
    score = cell["mean"]
    ink = "#000" if score > 55 else "#fff"
    tip = (
        f"{cell['level']}, depth {100 * cell['depth']:g}%: {score:.1f} "
        f"({cell['low']:.1f}-{cell['high']:.1f}), {cell['n']} samples"
    )
    middle_x, middle_y = x + _CELL / 2, y + _ROW / 2
    return (
        f'<a href="#{link(cell["level"], cell["depth"])}"><title>{escape(tip)}</title>'
        f'<rect {box} fill="{colour(score)}"/>'
        f'<text x="{middle_x:g}" y="{middle_y:g}" fill="{ink}" text-anchor="middle" '
        f'dominant-baseline="central">{score:.0f}</text></a>'
    )


def curve(levels: Sequence[tuple[str, dict[str, Any]]], unit: str, title: str) -> str:
    """Score by level with 95% intervals; levels stand at equal distances."""
    step, height, left, top = 78, 190, 44, 14
    width = left + step * len(levels) + 8

    def at(score: float | int) -> float:
        return top + (height - 50) * (1 - score / 100)

    parts = [
        f'<svg class="{_fit(len(levels))}" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title, quote=True)}">'
    ]
    for tick in (0, 25, 50, 75, 100):
        parts.append(
            f'<line class="grid" x1="{left}" x2="{width - 8}" y1="{at(tick):g}" y2="{at(tick):g}"/>'
        )
        parts.append(_text(left - 8, at(tick), str(tick), "end"))
    points = []
    for place, (name, cell) in enumerate(levels):
        x = left + step * (place + 0.5)
        points.append(f"{x:g},{at(cell['mean']):g}")
        tip = f"{name}: {cell['mean']:.1f} ({cell['low']:.1f}-{cell['high']:.1f}), n {cell['n']}"
        parts.append(
            f'<g><title>{escape(tip)}</title><line class="range" x1="{x:g}" x2="{x:g}" '
            f'y1="{at(cell["low"]):g}" y2="{at(cell["high"]):g}"/>'
            f'<circle class="dot" cx="{x:g}" cy="{at(cell["mean"]):g}" r="4"/></g>'
        )
        parts.append(_text(x, height - 24, name, "middle"))
    parts.append(f'<polyline class="line" points="{" ".join(points)}"/>')
    parts.append(_text(left + step * len(levels) / 2, height - 6, unit, "middle", "axis"))
    return "".join(parts) + "</svg>"


def _fit(columns: int) -> str:
    """Narrow pictures shrink to a phone's width; wide ones are scrolled."""
    return "fit" if columns <= 8 else "wide"


def _text(x: float | int, y: float | int, text: str, anchor: str, kind: str = "tick") -> str:
    return (
        f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}" '
        f'dominant-baseline="central">{escape(text)}</text>'
    )
