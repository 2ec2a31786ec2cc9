"""How pieces of a corpus are joined into shards under a memory budget.

Source: "Infini-gram" (arXiv 2401.17377) splits a corpus round-robin; here consecutive pieces are
joined, so that documents keep their order and a shard is a range of them. Every query pays for
every shard, so there are as few as the budget and the workers allow.
Cost: linear in the number of pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from unspool import _native
from unspool.errors import BudgetError
from unspool.index.settings import MIB, RESERVED

LARGEST_SYMBOLS = (1 << 31) - 1
"""A shard of more symbols needs wider suffix array entries, which cost twice the memory."""

SMALL_CORPUS = 16 * MIB
"""Below this much text one shard serves better than one a worker."""


class Piece(NamedTuple):
    """One piece of the spool: its name, and what it holds."""

    name: str
    symbols: int
    documents: int
    digest: str

    @property
    def rows(self) -> int:
        """Symbols with the end of each document."""
        return self.symbols + self.documents


class Limits(NamedTuple):
    """What the first run's budget and workers mean for the layout."""

    largest: int
    """Most rows a shard."""
    least: int
    """Fewest shards, once the corpus is large enough to be worth cutting."""


def shard_memory(tiers: Sequence[str], width: int, symbols: int, documents: int) -> int:
    """Peak bytes of building one shard, all its tiers one after the other."""
    return max(_native.shard_memory(tier, width, symbols, documents) for tier in tiers)


def largest_rows(budget: int, memory_of: Callable[[int], int]) -> int:
    """The most rows whose memory stays within a budget; `memory_of` grows with the rows."""
    low, high = 0, 1 << 42
    while low < high:
        middle = (low + high + 1) // 2
        if memory_of(middle) <= budget:
            low = middle
        else:
            high = middle - 1
    return low


def limits_for(tiers: Sequence[str], width: int, memory: int, workers: int) -> Limits:
    """The largest shard that each of `workers` processes can build within `memory` bytes."""
    budget = (memory - RESERVED * (workers + 1)) // workers
    if budget < 4 * MIB:
        least = workers * 16 * MIB + RESERVED * (workers + 1)
        raise BudgetError(
            f"A memory budget of {memory / MIB:.0f} MiB leaves nothing for each of {workers} "
            f"workers. Give --workers {max(1, memory // (128 * MIB))}, or --memory "
            f"{-(-least // MIB)}MiB."
        )
    largest = largest_rows(budget, lambda rows: shard_memory(tiers, width, rows, rows // 64))
    return Limits(min(largest, LARGEST_SYMBOLS), workers)


def join_pieces(pieces: Sequence[Piece], limits: Limits, bytes_text: int) -> list[tuple[int, int]]:
    """Ranges of consecutive pieces, of nearly equal rows, none above the largest if it can be.

    A piece above the largest (one document of that size) becomes a shard of its own.
    """
    total = sum(piece.rows for piece in pieces)
    least = limits.least if bytes_text >= SMALL_CORPUS else 1
    count = max(1, min(least, len(pieces)), -(-total // limits.largest))
    while True:
        shards = _cut(pieces, total, count)
        oversize = [s for s in shards if s[1] - s[0] > 1 and _rows(pieces, s) > limits.largest]
        if not oversize or count >= len(pieces):
            return shards
        count += 1


def _rows(pieces: Sequence[Piece], shard: tuple[int, int]) -> int:
    return sum(piece.rows for piece in pieces[shard[0] : shard[1]])


def _cut(pieces: Sequence[Piece], total: int, count: int) -> list[tuple[int, int]]:
    """Cut at the piece boundaries nearest to `count` equal parts."""
    shards: list[tuple[int, int]] = []
    first, done = 0, 0
    for index, piece in enumerate(pieces):
        target = total * (len(shards) + 1) / count
        to_come = count - 1 - len(shards)
        near = done + piece.rows / 2 >= target or len(pieces) - index == to_come
        if index > first and to_come > 0 and near:
            shards.append((first, index))
            first = index
        done += piece.rows
    shards.append((first, len(pieces)))
    return shards


def pinned_shards(pieces: Sequence[Piece], shard_size: int, width: int) -> list[tuple[int, int]]:
    """Fill shards in order up to `shard_size` bytes of spool each, whatever the memory."""
    shards, first, filled = [], 0, 0
    for index, piece in enumerate(pieces):
        if index > first and filled + piece.symbols * width > shard_size:
            shards.append((first, index))
            first, filled = index, 0
        filled += piece.symbols * width
    shards.append((first, len(pieces)))
    return shards


def concurrency(needs: Sequence[int], memory: int, workers: int) -> int:
    """How many shards may be built at once, so that any so many stay within the budget."""
    largest_first = sorted(needs, reverse=True)
    if largest_first and largest_first[0] + 2 * RESERVED > memory:
        need = -(-(largest_first[0] + 2 * RESERVED) // MIB)
        raise BudgetError(
            f"The largest shard of this index needs {need:,} MiB, more than the memory budget of "
            f"{memory // MIB:,} MiB. Give --memory {need}MiB (a document is never split, and an "
            "unfinished index keeps the layout of its first run)."
        )
    at_once = 0
    used = RESERVED
    for need in largest_first[:workers]:
        used += need + RESERVED
        if used > memory:
            break
        at_once += 1
    return max(1, at_once)


def check_document(symbols: int, tiers: Sequence[str], width: int, memory: int, where: str) -> None:
    """Refuse a document that no shard within the budget can hold, before the corpus is read on."""
    need = shard_memory(tiers, width, symbols, 1) + 2 * RESERVED
    if need > memory:
        raise BudgetError(
            f"{where} is one document of {symbols:,} symbols: its shard needs {need // MIB + 1:,} "
            f"MiB, more than the memory budget of {memory // MIB:,} MiB. Give --memory "
            f"{need // MIB + 1}MiB, or split the document."
        )
