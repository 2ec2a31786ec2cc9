"""Longest common subsequences by bit vectors: lengths, and the one that `rouge` reads out.

Source: Hyyrö (2004), "Bit-parallel LCS-length computation revisited"; the way back through the
table is that of the package `rouge` 1.0.1.
Differs from the released code: no table is kept, only one integer a row, whose zero bits say where
the row grows; a step left or up follows from that bit alone, so the path is the same.
Cost: O(n m / 64) for sequences of n and m items.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple, TypeVar

Item = TypeVar("Item", bound=Hashable)


class Path(NamedTuple):
    """One longest common subsequence and how many steps the way through the table takes."""

    items: list[str]
    steps: int


def lcs_length(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence."""
    masks, full = _masks(b)
    row = full
    for item in a:
        mask = masks.get(item)
        if mask:
            hit = row & mask
            row = ((row + hit) | (row - hit)) & full
    return len(b) - row.bit_count()


def lcs_path(a: Sequence[str], b: Sequence[str]) -> Path:
    """The subsequence that `rouge` finds: from the ends, a match is taken, else up if that is
    strictly longer, else left. Items come last first."""
    masks, full = _masks(b)
    row = full
    rows = [full]
    for item in a:
        mask = masks.get(item)
        if mask:
            hit = row & mask
            row = ((row + hit) | (row - hit)) & full
        rows.append(row)
    items: list[str] = []
    i, j, steps = len(a), len(b), 0
    while i and j:
        steps += 1
        if a[i - 1] == b[j - 1]:
            items.append(a[i - 1])
            i -= 1
            j -= 1
        elif rows[i] >> (j - 1) & 1:  # the row does not grow here: left is as long
            j -= 1
        else:
            i -= 1
    return Path(items, steps)


def _masks(items: Sequence[Item]) -> tuple[dict[Item, int], int]:
    """Where each item stands, as bits, and all bits."""
    masks: dict[Item, int] = {}
    bit = 1
    for item in items:
        masks[item] = masks.get(item, 0) | bit
        bit <<= 1
    return masks, bit - 1
