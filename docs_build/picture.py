"""Draw `docs/assets/unspool.svg`, the one picture of the README. Same code, same bytes."""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path

WIDTH, HEIGHT = 960, 300
INK, FAINT, BLUE, ORANGE, PAPER = "#1f2933", "#c3ccd6", "#0072B2", "#E69F00", "#ffffff"
FONT = "font-family='Inter,Segoe UI,Helvetica,Arial,sans-serif'"


def picture() -> str:
    """A long ribbon of text leaves its spool; two places of it are read, and answer a question."""
    dice = random.Random(7)
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' role='img' "
        "aria-label='A text of any length is indexed whole; the places that matter are read; "
        "the answer quotes them.'>",
        f"<rect width='{WIDTH}' height='{HEIGHT}' rx='14' fill='{PAPER}'/>",
    ]
    left, cell, cells, y = 112, 34, 15, 172
    parts.append(
        f"<rect x='{left}' y='{y - 26}' width='{cell * cells + 14}' height='52' fill='#eef2f6'/>"
    )
    read = ((4, 7), (10, 12))
    for column in range(2, cells):
        inside = any(a <= column < b for a, b in read)
        for line in range(3):
            parts.append(
                f"<rect x='{left + column * cell + 4}' y='{y - 16 + line * 13}' "
                f"width='{dice.randint(12, 27)}' height='6' rx='3' "
                f"fill='{ORANGE if inside else FAINT}'/>"
            )
    parts += _spool(112, y - 44)
    for (a, b), target in zip(read, (128, 152), strict=True):
        x, width = left + a * cell - 3, (b - a) * cell + 3
        middle = x + width / 2
        parts.append(
            f"<rect x='{x}' y='{y - 32}' width='{width}' height='64' rx='8' fill='none' "
            f"stroke='{ORANGE}' stroke-width='2.5'/>"
        )
        parts.append(
            f"<path d='M{middle} {y - 36} C {middle} {y - 110}, 600 {target - 40}, 672 {target}' "
            f"fill='none' stroke='{ORANGE}' stroke-width='2' stroke-dasharray='5 5'/>"
            f"<circle cx='674' cy='{target + 1}' r='4' fill='{ORANGE}'/>"
        )
    parts.append(_label(46, 254, "every byte indexed", "count, find and trace exactly"))
    parts.append(_label(288, 254, "the places that matter, read", "nothing is cut silently"))
    parts += _answer(684, 62)
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _spool(x: float, y: float) -> list[str]:
    turns = []
    for step in range(0, 4 * 360 + 180, 6):
        radius = 16 + step / 1620 * 50
        angle = math.radians(step)
        turns.append(f"{x + radius * math.sin(angle):.1f},{y - radius * math.cos(angle):.1f}")
    return [
        f"<circle cx='{x}' cy='{y}' r='70' fill='{PAPER}'/>",
        f"<circle cx='{x}' cy='{y}' r='70' fill='{BLUE}' fill-opacity='0.08'/>",
        f"<polyline points='{' '.join(turns)}' fill='none' stroke='{BLUE}' stroke-width='5' "
        "stroke-linecap='round'/>",
        f"<circle cx='{x}' cy='{y}' r='8' fill='{BLUE}'/>",
    ]


def _answer(x: float, y: float) -> list[str]:
    return [
        f"<rect x='{x}' y='{y}' width='244' height='170' rx='12' fill='{PAPER}' stroke='{INK}' "
        "stroke-width='2'/>",
        f"<text x='{x + 18}' y='{y + 32}' {FONT} font-size='17' font-weight='600' fill='{INK}'>"
        "The answer</text>",
        f"<rect x='{x + 18}' y='{y + 46}' width='200' height='7' rx='3.5' fill='{INK}'/>",
        f"<rect x='{x + 18}' y='{y + 60}' width='148' height='7' rx='3.5' fill='{INK}'/>",
        f"<text x='{x + 18}' y='{y + 98}' {FONT} font-size='14' fill='{INK}'>"
        "“quoted”  a.txt, bytes 812–1,204</text>",
        f"<rect x='{x + 18}' y='{y + 104}' width='58' height='3' fill='{ORANGE}'/>",
        f"<text x='{x + 18}' y='{y + 126}' {FONT} font-size='14' fill='{INK}'>"
        "“quoted”  b.txt, bytes 90–377</text>",
        f"<rect x='{x + 18}' y='{y + 132}' width='58' height='3' fill='{ORANGE}'/>",
        f"<text x='{x + 18}' y='{y + 156}' {FONT} font-size='13' fill='#52606d'>"
        "read, dropped, seconds: all counted</text>",
    ]


def _label(x: float, y: float, first: str, second: str) -> str:
    return (
        f"<text x='{x}' y='{y - 18}' {FONT} font-size='15' font-weight='600' fill='{INK}'>{first}"
        f"</text><text x='{x}' y='{y + 2}' {FONT} font-size='13' fill='#52606d'>{second}</text>"
    )


if __name__ == "__main__":
    target = Path(__file__).resolve().parents[1] / "docs" / "assets" / "unspool.svg"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(picture(), encoding="utf-8")
    sys.stdout.write(f"{target.name}\n")
