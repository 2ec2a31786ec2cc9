"""Shares by length as an SVG picture: lines told apart by dashes and marks, not by colour alone.

It has no style attributes and no script, so that a strict Content-Security-Policy lets it be.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

# Okabe and Ito (2008): told apart with any colour vision.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#777777")
_DASHES = ("", "7 3", "2 3", "10 3 2 3")
_STEP, _HEIGHT, _LEFT, _TOP, _KEY = 84, 220, 48, 14, 24


class Line(NamedTuple):
    """A name and a share for each length; None where there is none."""

    name: str
    values: Sequence[float | None]


def draw(names: Sequence[str], lines: Sequence[Line], axis: str) -> str:
    """A picture with one mark a length and a key below."""
    width = _LEFT + _STEP * max(len(names), 1) + 12
    height = _HEIGHT + _KEY * len(lines) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{escape(axis, quote=True)}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="currentColor">'
    ]
    for tick in (0, 25, 50, 75, 100):
        y = _y(tick / 100)
        parts.append(
            f'<line x1="{_LEFT}" x2="{width - 12}" y1="{y:g}" y2="{y:g}" stroke="currentColor" '
            'stroke-opacity="0.2"/>'
        )
        parts.append(_text(_LEFT - 8, y, f"{tick}%", "end"))
    for place, name in enumerate(names):
        parts.append(_text(_x(place), _HEIGHT - 30, name, "middle"))
    parts.append(_text((_LEFT + width) / 2, _HEIGHT - 10, axis, "middle"))
    for number, line in enumerate(lines):
        parts.append(_line(number, line, names))
        y = _HEIGHT + _KEY * (number + 0.5)
        look = f'stroke="{_COLOURS[number]}" stroke-dasharray="{_DASHES[number]}"'
        parts.append(
            f'<line x1="{_LEFT}" x2="{_LEFT + 34}" y1="{y:g}" y2="{y:g}" stroke-width="2" {look}/>'
        )
        parts.append(_text(_LEFT + 42, y, line.name, "start"))
    return "".join(parts) + "</svg>"


def _line(number: int, line: Line, names: Sequence[str]) -> str:
    colour, dash = _COLOURS[number], _DASHES[number]
    out = ""
    held: list[tuple[float, float]] = []
    for place, value in enumerate([*line.values, None]):
        if value is None:  # a gap: what came before is one stroke
            if len(held) > 1:
                points = " ".join(f"{x:g},{y:g}" for x, y in held)
                out += (
                    f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2" '
                    f'stroke-dasharray="{dash}"/>'
                )
            held = []
            continue
        held.append((_x(place), _y(value)))
        tip = escape(f"{line.name}, {names[place]}: {value:.1%}")
        out += (
            f'<circle cx="{_x(place):g}" cy="{_y(value):g}" r="3.5" fill="{colour}">'
            f"<title>{tip}</title></circle>"
        )
    return out


def _x(place: int) -> float:
    return _LEFT + _STEP * (place + 0.5)


def _y(share: float) -> float:
    return _TOP + (_HEIGHT - 64) * (1 - share)


def _text(x: float | int, y: float | int, text: str, anchor: str) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" dominant-baseline="central">'
        f"{escape(text)}</text>"
    )
