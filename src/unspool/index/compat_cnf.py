"""CNF counts as the released infini-gram engine takes them, for its scripts.

Source: behaviour of infini-gram 2.6.0, found by asking it (190 random questions of two and three
clauses, answered alike). In each shard the clauses are sorted by their occurrences; each occurrence
of the rarest begins a window [l, r] of one place. Each further clause stretches the window to its
nearest place before r, if that is at most `max_diff` tokens before l, and to its nearest place from
l on, if that is at most `max_diff` tokens after r; where neither is, the window is dropped. So is a
window that crosses a document's end. There is one answer an occurrence of the rarest clause, so
the count depends on which clause that is, and with it on the sharding.
Departures: never subsampled, so `max_clause_freq` changes nothing.
Cost: one locate for every occurrence of every clause, and a sort.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unspool.index.core import Core

Positions = NDArray[np.int64]


class Windows(NamedTuple):
    """Windows of one shard: first and last place, counted with a separator before each document."""

    first: Positions
    last: Positions


def released_windows(
    core: Core,
    clauses: Sequence[Sequence[NDArray[np.uint32]]],
    max_diff: int,
    document_starts: Callable[[int], Positions],
) -> list[Windows]:
    """The windows of each shard, in the order of the rarest clause's occurrences."""
    return [
        _windows(
            [_positions(core, shard, clause, document_starts(shard)) for clause in clauses],
            max_diff,
            document_starts(shard),
        )
        for shard in range(core.native.num_shards)
    ]


def _positions(
    core: Core, shard: int, clause: Sequence[NDArray[np.uint32]], starts: Positions
) -> Positions:
    """Every occurrence of a clause's terms in one shard, in the order of the terms and rows."""
    found = [np.empty(0, dtype=np.int64)]
    for term in clause:
        low, high = core.native.ranges(term)[shard]
        rows = np.arange(low, high, dtype=np.uint64)
        documents, places = core.native.locate(shard, rows, len(term))
        found.append(starts[documents] + places)
    return np.concatenate(found)


def _windows(clauses: list[Positions], max_diff: int, starts: Positions) -> Windows:
    by_count = sorted(clauses, key=len)
    first = last = by_count[0]
    for unsorted in by_count[1:]:
        places = np.sort(unsorted)
        if not len(places):
            return Windows(first[:0], last[:0])
        before = np.searchsorted(places, last) - 1
        after = np.searchsorted(places, first)
        left = places[np.maximum(before, 0)]
        right = places[np.minimum(after, len(places) - 1)]
        near_left = (before >= 0) & (first - left <= max_diff)
        near_right = (after < len(places)) & (right - last <= max_diff)
        first, last = (
            np.where(near_left, np.minimum(first, left), first),
            np.where(near_right, np.maximum(last, right), last),
        )
        kept = near_left | near_right
        first, last = first[kept], last[kept]
    inside = np.searchsorted(starts, first, "right") == np.searchsorted(starts, last, "right")
    return Windows(first[inside], last[inside])
