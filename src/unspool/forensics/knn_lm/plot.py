"""Curves as inline SVG without scripts or style attributes, so that a strict page lets them be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 680, 270, 62, 12, 28, 46
# Okabe and Ito (2008): told apart with any colour vision; dashes tell them apart without any.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_DASHES = ("", "7 4", "2 3", "9 3 2 3", "4 2", "1 2")


class Line(NamedTuple):
    """One curve."""

    name: str
    x: Sequence[int | float]
    y: Sequence[int | float]


def curves(lines: Sequence[Line], x_title: str, y_title: str) -> str:
    """Lines over one pair of axes, with a legend."""
    drawn = [
        Line(n, *zip(*points, strict=True))
        for n, x, y in lines
        if (points := [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(b)])
    ]
    if not drawn:
        return ""
    xs = [v for line in drawn for v in line.x]
    ys = [v for line in drawn for v in line.y]
    x_ticks, y_ticks = ticks(min(xs), max(xs)), ticks(min(ys), max(ys))
    low_x, high_x, low_y, high_y = x_ticks[0], x_ticks[-1], y_ticks[0], y_ticks[-1]

    def across(value: float | int) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (value - low_x) / (high_x - low_x)

    def up(value: float | int) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (value - low_y) / (high_y - low_y)

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" '
        f'aria-label="{escape(f"{y_title} by {x_title}", quote=True)}" fill="currentColor" '
        f'font-size="12">'
    ]
    for value in y_ticks:
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{up(value):.1f}" y2="{up(value):.1f}" '
            f'stroke="currentColor" stroke-opacity="0.2"/>'
        )
        parts.append(_text(_LEFT - 6, up(value) + 4, f"{value:g}", "end"))
    for value in x_ticks:
        parts.append(_text(across(value), _HEIGHT - _BOTTOM + 16, f"{value:g}", "middle"))
    for number, line in enumerate(drawn):
        colour = _COLOURS[number % len(_COLOURS)]
        dash = _DASHES[number % len(_DASHES)]
        path = " ".join(f"{across(a):.1f},{up(b):.1f}" for a, b in zip(line.x, line.y, strict=True))
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dashed}/>'
        )
    parts.append(_text((_LEFT + _WIDTH) / 2, _HEIGHT - 8, x_title, "middle"))
    parts.append(_text(_LEFT, 12, y_title, "start"))
    legend = " · ".join(_named(n, line.name) for n, line in enumerate(drawn))
    return f'<div class="x">{"".join(parts)}</svg></div><p class="note">{legend}</p>'


def ticks(low: float | int, high: float | int, wanted: int = 5) -> list[float]:
    """Round numbers that span a range, about `wanted` of them."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _named(number: int, name: str) -> str:
    colour, dash = _COLOURS[number % len(_COLOURS)], _DASHES[number % len(_DASHES)]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<svg width="26" height="8" aria-hidden="true"><line x1="0" x2="26" y1="4" y2="4" '
        f'stroke="{colour}" stroke-width="2"{dashed}/></svg> {escape(name)}'
    )


def _text(x: float | int, y: float | int, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
