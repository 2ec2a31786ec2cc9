"""Effective context length of needle threading, and what a character costs in tokens.

What: the largest length at which accuracy stays over a threshold, at each difficulty (depth,
needles, thread length); and characters a token for prose and for UUIDs.
Source: Roberts et al. (2024), arXiv 2411.05000, sections 4.1 and 4.6: contours at 75%, in
characters, since tokenizers are not comparable.
Differs from the paper: it draws contours of a fitted surface; here the crossing is interpolated
linearly between measured lengths, and a dip below the threshold ends the contour.
Cost: linear in the cells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unspool.errors import ConfigError

THRESHOLD = 0.75


@dataclass(frozen=True, slots=True)
class Contour:
    """Effective length in characters at each difficulty, and over all of them."""

    by_difficulty: Mapping[float, float]
    """0 where the shortest length is already below the threshold."""
    overall: float
    """The smallest of them: every difficulty passes up to here."""
    threshold: float


def effective_length(
    cells: Mapping[tuple[int, float | int], float | int], threshold: float | int = THRESHOLD
) -> Contour:
    """The contour of accuracy `threshold` in the plane of length and difficulty.

    Args:
        cells: Accuracy in 0-1 by (characters, difficulty); missing cells are skipped.
        threshold: What counts as working.

    Raises:
        ConfigError: No cells, or a threshold outside (0, 1].
    """
    if not cells:
        raise ConfigError("There are no cells to draw a contour through: measure some first.")
    if not 0 < threshold <= 1:
        raise ConfigError(f"threshold must be in (0, 1], got {threshold}.")
    rows: dict[float, list[tuple[int, float]]] = {}
    for (chars, difficulty), accuracy in cells.items():
        rows.setdefault(float(difficulty), []).append((chars, float(accuracy)))
    found = {d: _crossing(sorted(row), threshold) for d, row in sorted(rows.items())}
    return Contour(found, min(found.values()), float(threshold))


def _crossing(row: Sequence[tuple[int, float]], threshold: float | int) -> float:
    """Where accuracy first falls below the threshold, between two lengths if need be."""
    before: tuple[int, float] | None = None
    for chars, accuracy in row:
        if accuracy < threshold:
            if before is None:
                return 0.0
            share = (before[1] - threshold) / (before[1] - accuracy)
            return before[0] + share * (chars - before[0])
        before = (chars, accuracy)
    return float(before[0]) if before else 0.0


@dataclass(frozen=True, slots=True)
class TokenizerRow:
    """Characters a token of one tokenizer."""

    name: str
    prose: float
    uuids: float


def tokenizer_table(
    tokenizers: Mapping[str, Callable[[str], Sequence[Any]]], prose: str, *, pairs: int = 500
) -> list[TokenizerRow]:
    """Characters a token for a text and for a haystack, by tokenizer.

    Args:
        tokenizers: From a name to a function that gives the tokens of a text.
        prose: Text of the kind that lengths are usually stated for.
        pairs: Size of the haystack.
    """
    from unspool.evaluation.tasks.needle_threading.haystack import make

    if not prose:
        raise ConfigError("The prose is empty: give a text to count.")
    haystack = make("single_needle", pairs=pairs).haystack
    return [
        TokenizerRow(name, len(prose) / len(count(prose)), len(haystack) / len(count(haystack)))
        for name, count in tokenizers.items()
    ]
