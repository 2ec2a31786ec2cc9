"""Texts that metrics get wrong: blanks, marks, scripts, numbers, near copies. Shares no code with
what it tests."""

# ruff: noqa: RUF001 - confusable characters are the point

from __future__ import annotations

import random

PIECES = (
    "the", "a", "an", "The", "cat", "dog", "sat", "on", "3", "14", "3.5", "1-2", "v2.0", ".", "..",
    "......", ",", "!", "?", "-", "_", "`", "#", "//", "&quot;", "&amp;", "<skipped>", "\n", "\n\n",
    "\t", " ", "  ", "\r", "\x0b", "\u2028", "\u3000", "", "。", "，", "！", "？", "”", "……", "《",
    "中国", "人民", "的", "银行", "行长", "段落", "Paragraph", "１", "٣", "é", "e\u0301", "ß", "İ",
    "K", "😀", "—", "“", "x.y", "don't", "1,000", "A", "B", "true", "answer",
)  # fmt: skip


def text(draw: random.Random, most: int) -> str:
    """Up to `most` pieces, joined by blanks, by nothing, or by newlines."""
    joint = draw.choice((" ", " ", " ", "", "\n"))
    return joint.join(draw.choice(PIECES) for _ in range(draw.randint(0, most)))


def pair(draw: random.Random, most: int = 40) -> tuple[str, str]:
    """A prediction and a reference: unrelated, equal, or one a damaged copy of the other."""
    reference = text(draw, most)
    kind = draw.randrange(5)
    if kind == 0:
        return reference, reference
    if kind == 1:
        place = draw.randint(0, len(reference))
        return reference[:place] + draw.choice(PIECES) + reference[place + 2 :], reference
    if kind == 2:
        words = reference.split(" ")
        draw.shuffle(words)
        return " ".join(words), reference
    return text(draw, most), reference


def pairs(n: int, seed: int, most: int = 40) -> list[tuple[str, str]]:
    draw = random.Random(seed)
    return [pair(draw, most) for _ in range(n)]
