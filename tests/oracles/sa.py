"""Suffix arrays by sorting, and the order in which an index must list its matches."""

from __future__ import annotations

from collections.abc import Sequence


def sorted_suffixes(symbols: Sequence[int]) -> list[int]:
    """Starts of all suffixes in lexicographic order; a suffix that is a prefix of another first."""
    packed = b"".join(int(s).to_bytes(4, "big") for s in symbols)
    return sorted(range(len(symbols)), key=lambda i: packed[4 * i :])


def forward_key(document: Sequence[int], start: int) -> list[int]:
    """What the rows of a suffix array over the documents as they are are sorted by."""
    return list(document[start:])


def backward_key(document: Sequence[int], end: int) -> list[int]:
    """What the rows of an index over the reversed documents are sorted by: the past, backwards."""
    return list(reversed(document[:end]))
