"""An index whose shards are asked elsewhere: the engine's interface over groups of shards.

What: every question goes to all groups at once, and the answers are put together as the engine
does over its own shards: counts add, distributions add symbol by symbol, of matches the longest
wins and only those that reach it are counted.
Source: "Infini-gram" (arXiv 2401.17377), section 3; the rules are those of the native engine.
Departures: a group that does not answer is never counted as empty: the question fails and names its
shards, unless partial answers were asked for, and then its shards are noted beside the answer.
Cost: one round of calls a question, or one call where the question is about one document.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from unspool import _native
from unspool.errors import ShardsMissing

Outcome = Any
"""What a group answered, or the ShardsMissing that says that it did not."""


@runtime_checkable
class Groups(Protocol):
    """Where groups of shards are asked. Shards are counted from the first of their group."""

    @property
    def names(self) -> Sequence[Sequence[str]]:
        """The shards of each group, by name."""

    def ask(self, group: int, name: str, args: Sequence[Any]) -> Any:
        """One group; raises ShardsMissing if it does not answer."""

    def ask_all(self, name: str, args: Sequence[Any]) -> list[Outcome]:
        """All groups at once."""

    def close(self) -> None:
        """Let go of them."""

    def end(self) -> None:
        """End them, whoever began them."""


class Missed(threading.local):
    """Shards that gave no answer, noted by the thread that asked."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def note(self, names: Sequence[str]) -> None:
        self.names += [name for name in names if name not in self.names]

    def take(self) -> tuple[str, ...]:
        found, self.names = tuple(self.names), []
        return found


class RemoteNative:
    """Stands for the native engine over all shards; see `_native.Index` for each question."""

    def __init__(self, groups: Groups, *, partial: bool = False) -> None:
        """Ask groups.

        Args:
            groups: In the order of their shards.
            partial: Leave out groups that do not answer, and note their shards in `missed`.
        """
        self._groups = groups
        self._partial = partial
        self.missed = Missed()
        self._first = [0, *accumulate(len(names) for names in groups.names)]
        self._infos = [
            self._groups.ask(group, "info", [number])
            for group, names in enumerate(groups.names)
            for number in range(len(names))
        ]

    @property
    def num_shards(self) -> int:
        return self._first[-1]

    def info(self, shard: int) -> dict[str, Any]:
        return dict(self._infos[shard])

    @property
    def names(self) -> Sequence[Sequence[str]]:
        """The shards of each group."""
        return self._groups.names

    def close(self) -> None:
        self._groups.close()

    def retire(self) -> None:
        """End the groups, whoever began them."""
        self._groups.end()

    # --- of one shard

    def of_shard(self, shard: int, name: str, *args: Any) -> Any:
        """A question about one shard, which is the first argument of it."""
        group = bisect_right(self._first, shard) - 1
        return self._groups.ask(group, name, [shard - self._first[group], *args])

    def section(self, shard: int, name: str, start: int = 0, end: int | None = None) -> bytes:
        return bytes(self.of_shard(shard, "section", name, start, end))

    def locate(
        self, shard: int, rows: NDArray[np.uint64], length: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        documents, starts = self.of_shard(shard, "locate", rows, length)
        return documents, starts

    def extract(self, shard: int, document: int, start: int, end: int) -> bytes:
        return bytes(self.of_shard(shard, "extract", document, start, end))

    def document_length(self, shard: int, document: int) -> int:
        return int(self.of_shard(shard, "document_length", document))

    def document_lengths(self, shard: int) -> NDArray[np.uint64]:
        found: NDArray[np.uint64] = self.of_shard(shard, "document_lengths")
        return found

    def verify(self, shard: int) -> list[str]:
        return list(self.of_shard(shard, "verify"))

    # --- of all shards

    def whole(self, name: str, *args: Any) -> list[Any]:
        """The answers of every group; fails if one is missing, partial answers or not."""
        outcomes = self._groups.ask_all(name, args)
        lost = [o for o in outcomes if isinstance(o, ShardsMissing)]
        if lost:
            raise ShardsMissing([name for each in lost for name in each.shards])
        return outcomes

    def _all(self, name: str, *args: Any) -> list[Any]:
        """The answers of every group, or of those that gave one."""
        if not self._partial:
            return self.whole(name, *args)
        outcomes = self._groups.ask_all(name, args)
        found = [o for o in outcomes if not isinstance(o, ShardsMissing)]
        lost = [name for o in outcomes if isinstance(o, ShardsMissing) for name in o.shards]
        if not found:
            raise ShardsMissing(lost)
        self.missed.note(lost)
        return found

    def warm(self) -> None:
        self.whole("warm")

    def count(self, query: Any) -> int:
        return sum(self._all("count", query))

    def count_batch(self, queries: Sequence[Any]) -> NDArray[np.int64]:
        return _sum(self._all("count_batch", list(queries)))

    def ranges(self, query: Any) -> list[tuple[int, int]]:
        return [
            (int(low), int(high)) for part in self._ranges("ranges", query) for low, high in part
        ]

    def ranges_batch(self, queries: Sequence[Any]) -> NDArray[np.uint64]:
        parts = self._ranges("ranges_batch", list(queries), len(queries))
        return np.concatenate(parts, axis=1)

    def _ranges(self, name: str, query: Any, queries: int | None = None) -> list[Any]:
        """Rows of every group in order; none of one that is missing."""
        outcomes = self._groups.ask_all(name, [query])
        for group, outcome in enumerate(outcomes):
            if not isinstance(outcome, ShardsMissing):
                continue
            if not self._partial or len(outcomes) == 1:
                raise outcome
            self.missed.note(outcome.shards)
            shards = len(self._groups.names[group])
            outcomes[group] = (
                [(0, 0)] * shards
                if queries is None
                else np.zeros((queries, shards, 2), dtype=np.uint64)
            )
        return outcomes

    def next(self, query: Any) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
        return _following(self._all("next", query))

    def next_batch(
        self, queries: Sequence[Any]
    ) -> list[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        found = self._all("next_batch", list(queries))
        return [_following(each) for each in zip(*found, strict=True)]

    def prob(self, query: Any, symbol: int) -> tuple[int, int]:
        before, both = _sum(self._all("prob", query, symbol)).tolist()
        return before, both

    def prob_batch(self, queries: Sequence[Any], symbols: NDArray[np.int64]) -> NDArray[np.int64]:
        return _sum(self._all("prob_batch", list(queries), symbols))

    # --- of the longest match: the longest wins, and those that reach it add up

    def longest_suffix(self, query: Any) -> tuple[int, int]:
        length, count = _longest(self._all("longest_suffix", query)).tolist()
        return length, count

    def longest_suffix_batch(self, queries: Sequence[Any]) -> NDArray[np.int64]:
        return _longest(self._all("longest_suffix_batch", list(queries)))

    def infgram_prob(self, query: Any, symbol: int) -> tuple[int, int, int]:
        length, before, both = _longest(self._all("infgram_prob", query, symbol)).tolist()
        return length, before, both

    def infgram_prob_batch(
        self, queries: Sequence[Any], symbols: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        return _longest(self._all("infgram_prob_batch", list(queries), symbols))

    def infgram(self, query: Any) -> tuple[int, int, NDArray[np.int64], NDArray[np.int64]]:
        return _infinity(self._all("infgram", query))

    def infgram_batch(
        self, queries: Sequence[Any]
    ) -> list[tuple[int, int, NDArray[np.int64], NDArray[np.int64]]]:
        found = self._all("infgram_batch", list(queries))
        return [_infinity(each) for each in zip(*found, strict=True)]

    def longest_matches(self, text: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        found = self._all("longest_matches", text)
        lengths = np.stack([lengths for lengths, _ in found])
        counts = np.stack([counts for _, counts in found])
        longest = lengths.max(axis=0)
        ends = np.arange(len(longest)) + longest
        reached = np.maximum.accumulate(np.concatenate([[0], ends]))[:-1]
        maximal = (ends > reached) & (longest > 0)
        # A group whose match is as long counts it itself: nothing in it reaches further either.
        summed = np.where(lengths == longest, counts, 0).sum(axis=0)
        return longest, np.where(maximal, summed, -1)


Native: TypeAlias = _native.Index | RemoteNative
"""The engine over all shards, wherever they are."""


def _sum(parts: Sequence[Any]) -> NDArray[np.int64]:
    total: NDArray[np.int64] = np.asarray(parts, dtype=np.int64).sum(axis=0)
    return total


def _following(parts: Sequence[Any]) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    """Counts of what follows, added up symbol by symbol."""
    symbols = np.concatenate([symbols for _, symbols, _ in parts])
    counts = np.concatenate([counts for _, _, counts in parts])
    merged, place = np.unique(symbols, return_inverse=True)
    summed = np.zeros(len(merged), dtype=np.int64)
    np.add.at(summed, place, counts)
    return sum(int(count) for count, _, _ in parts), merged.astype(np.int64), summed


def _infinity(parts: Sequence[Any]) -> tuple[int, int, NDArray[np.int64], NDArray[np.int64]]:
    longest = max(int(part[0]) for part in parts)
    return longest, *_following([part[1:] for part in parts if part[0] == longest])


def _longest(parts: Sequence[Any]) -> NDArray[np.int64]:
    """Rows (length, counts …): the largest length, and the counts of the parts that reach it."""
    stacked = np.asarray(parts, dtype=np.int64)
    lengths = stacked[..., 0].max(axis=0)
    reached = stacked[..., 0] == lengths
    total: NDArray[np.int64] = np.where(reached[..., None], stacked, 0).sum(axis=0)
    total[..., 0] = lengths
    return total
