"""Where a query occurs: hits in the order asked for, and distinct documents.

`index` order is that of the index's own rows: stable, and costs only what is shown. `position`
locates every hit first. `random` draws rows without replacement, from a seed.
Departs from the released engine, whose search_docs draws with replacement from an unseeded
generator, so that ten results may be one document ten times.
Cost: one locate and one extraction a hit; `position` one locate for every occurrence.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from unspool import _native
from unspool.errors import QueryError
from unspool.index.remote import Native

Order: TypeAlias = Literal["index", "position", "random"]

_BATCH = 4096
_LOCATE_AT_ONCE = 1 << 18


class Place(NamedTuple):
    """One occurrence: a shard, a document of it, and a start in symbols."""

    shard: int
    document: int
    start: int


def places(
    native: Native,
    query: _native.Query,
    length: int,
    *,
    limit: int | None,
    order: Order,
    seed: int,
    start: int = 0,
) -> Iterator[Place]:
    """Occurrences of a query in the order asked for, from number `start` of that order on.

    `limit` is a hint of how many are wanted.
    """
    if order not in get_args(Order):
        raise QueryError(f"There is no order {order!r}: choose index, position or random.")
    ranges = native.ranges(query)
    if order == "position":
        most = None if limit is None else start + limit
        return islice(_by_position(native, ranges, length, most), start, None)
    if order == "random":
        return _located(native, _drawn(ranges, limit, seed, start), length)
    return _located(native, _in_order(ranges, limit, start), length)


def _in_order(
    ranges: Sequence[tuple[int, int]], limit: int | None, skipped: int
) -> Iterator[list[tuple[int, int]]]:
    step = _BATCH if limit is None else max(1, min(limit, _BATCH))
    for shard, (first, high) in enumerate(ranges):
        low = min(high, first + skipped)
        skipped -= low - first
        for start in range(low, high, step):
            yield [(shard, row) for row in range(start, min(start + step, high))]


def _drawn(
    ranges: Sequence[tuple[int, int]], limit: int | None, seed: int, skipped: int
) -> Iterator[list[tuple[int, int]]]:
    """All rows in a random order, decided as far as it is asked for (a sparse Fisher-Yates)."""
    sizes = [high - low for low, high in ranges]
    total = sum(sizes)
    draw = random.Random(seed)
    moved: dict[int, int] = {}
    step = _BATCH if limit is None else max(1, min(limit, _BATCH))
    batch: list[tuple[int, int]] = []
    for left in range(total, 0, -1):
        # random() is the one method whose sequence Python promises to keep for a seed.
        at = min(int(draw.random() * left), left - 1)
        chosen = moved.get(at, at)
        moved[at] = moved.pop(left - 1, left - 1)
        if total - left < skipped:
            continue
        for shard, (low, _) in enumerate(ranges):
            if chosen < sizes[shard]:
                batch.append((shard, low + chosen))
                break
            chosen -= sizes[shard]
        if len(batch) == step:
            yield batch
            batch = []
    if batch:
        yield batch


def _located(
    native: Native, batches: Iterator[list[tuple[int, int]]], length: int
) -> Iterator[Place]:
    for batch in batches:
        found: dict[tuple[int, int], Place] = {}
        for shard in {shard for shard, _ in batch}:
            rows = np.array([row for s, row in batch if s == shard], dtype=np.uint64)
            documents, starts = native.locate(shard, rows, length)
            for row, document, start in zip(
                rows.tolist(), documents.tolist(), starts.tolist(), strict=True
            ):
                found[shard, row] = Place(shard, document, start)
        for key in batch:
            yield found[key]


def _by_position(
    native: Native, ranges: Sequence[tuple[int, int]], length: int, limit: int | None
) -> Iterator[Place]:
    """Every shard in turn, its hits sorted; no more than the first `limit` are kept meanwhile."""
    left = limit
    for shard, (low, high) in enumerate(ranges):
        documents, starts = sorted_places(native, shard, low, high, length, left)
        for document, start in zip(documents.tolist(), starts.tolist(), strict=True):
            yield Place(shard, document, start)
        if left is not None:
            left -= len(starts)
            if left <= 0:
                return


def sorted_places(
    native: Native, shard: int, low: int, high: int, length: int, limit: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Documents and starts of the rows [low, high) of a shard, sorted, the first `limit`."""
    documents = np.empty(0, dtype=np.int64)
    starts = np.empty(0, dtype=np.int64)
    for first in range(low, high, _LOCATE_AT_ONCE):
        rows = np.arange(first, min(first + _LOCATE_AT_ONCE, high), dtype=np.uint64)
        more_documents, more_starts = native.locate(shard, rows, length)
        documents = np.concatenate([documents, more_documents])
        starts = np.concatenate([starts, more_starts])
        order = np.lexsort((starts, documents))[:limit]
        documents, starts = documents[order], starts[order]
    return documents, starts


def first_of_each_document(found: Iterator[Place], limit: int | None) -> Iterator[Place]:
    """The first occurrence in each of at most `limit` documents."""
    seen: set[tuple[int, int]] = set()
    for place in found:
        if limit is not None and len(seen) >= limit:
            return
        if place[:2] not in seen:
            seen.add(place[:2])
            yield place
