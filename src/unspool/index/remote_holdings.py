"""The documents of an index whose shards are asked elsewhere: each question in one call.

What: ids, lengths, quotations and byte offsets of a document, from the group that holds it.
Source: the same as of one index; see `holdings`.
Departures: an id is looked for in all groups, and none may be missing, since a document that is not
found might lie in it.
Cost: one call a question.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unspool.index.alphabet import Tokens
from unspool.index.holdings import Holdings, ShardHoldings
from unspool.index.remote import RemoteNative
from unspool.types import Span


class RemoteHoldings(Holdings):
    """The documents of groups of shards, each question about one of them in one call."""

    def __init__(
        self,
        native: RemoteNative,
        documents: Sequence[int],
        tokens: Tokens | None,
        width: int,
    ) -> None:
        """Know where documents are.

        Args:
            native: The engine over the same groups.
            documents: Of each shard.
            tokens: The alphabet, None for bytes.
            width: Bytes of a stored symbol.
        """
        shards = [
            ShardHoldings(number, _Table(self, shard)) for shard, number in enumerate(documents)
        ]
        super().__init__(native, shards, tokens, width)
        self._remote = native

    def places_of(self, identifier: str) -> list[tuple[int, int]]:
        found, first = [], 0
        parts = self._remote.whole("places_of", identifier)
        for part, shards in zip(parts, self._remote.names, strict=True):
            found += [(first + shard, local) for shard, local in part]
            first += len(shards)
        return found

    def describe(self, shard: int, document: int) -> tuple[str, dict[str, Any]]:
        identifier, meta = self._ask("describe", shard, document)
        return identifier, meta

    def length(self, shard: int, document: int) -> int:
        return int(self._ask("length", shard, document))

    def offset(self, shard: int, document: int, position: int) -> int:
        if self.tokens is None:
            return position
        return int(self._ask("offset", shard, document, position))

    def read(self, shard: int, document: int, start: int, end: int) -> bytes:
        return bytes(self._ask("read", shard, document, start, end))

    def symbols(self, shard: int, document: int, start: int, end: int) -> NDArray[np.uint32]:
        found: NDArray[np.uint32] = self._ask("symbols", shard, document, start, end)
        return found

    def span(self, shard: int, document: int, start: int, end: int) -> Span:
        found: Span = self._ask("span", shard, document, start, end)
        return found

    def in_context(
        self, shard: int, document: int, start: int, end: int, around: int
    ) -> tuple[Span, str]:
        span, text = self._ask("in_context", shard, document, start, end, around)
        return span, text

    def _ask(self, name: str, shard: int, *args: Any) -> Any:
        return self._remote.of_shard(shard, name, *args)


class _Table:
    """Ids and metadata of one shard, elsewhere."""

    def __init__(self, holdings: RemoteHoldings, shard: int) -> None:
        self._holdings, self._shard = holdings, shard

    def describe(self, document: int) -> tuple[str, dict[str, Any]]:
        return self._holdings.describe(self._shard, document)

    def find(self, identifier: str) -> int | None:
        places = self._holdings.places_of(identifier)
        return next((local for shard, local in places if shard == self._shard), None)
