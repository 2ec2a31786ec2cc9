"""The documents of an index: their numbers, ids, metadata, text, and byte offsets.

Documents are numbered from 0 over all shards of all directories opened together. A byte index
counts offsets as its symbols; a token index turns token positions into UTF-8 byte offsets with the
offset kept for every 256th token, so that a span costs at most 256 tokens.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from unspool.errors import QueryError
from unspool.index.alphabet import Tokens
from unspool.index.remote import Native
from unspool.types import Span

_CHUNK = 256


@runtime_checkable
class Table(Protocol):
    """Ids and metadata of one shard's documents."""

    def describe(self, document: int) -> tuple[str, dict[str, Any]]:
        """The id and metadata of a document of the shard."""

    def find(self, identifier: str) -> int | None:
        """The document with this id, if it is in the shard."""


@runtime_checkable
class Offsets(Protocol):
    """Kept byte offsets of one shard's documents."""

    def before_token(self, document: int, token: int) -> tuple[int, int]:
        """A token at or before this one, and where it starts."""

    def before_byte(self, document: int, offset: int) -> tuple[int, int]:
        """A token that starts at or before this byte, and where it starts."""


@runtime_checkable
class Text(Protocol):
    """The stored text of one shard's documents."""

    def length(self, document: int) -> int:
        """Bytes of a document."""

    def read(self, document: int, start: int, end: int) -> bytes:
        """Some of them."""


@dataclass(frozen=True, slots=True)
class ShardHoldings:
    """What goes with one shard."""

    documents: int
    table: Table
    offsets: Offsets | None = None
    text: Text | None = None


class Holdings:
    """The documents of all shards."""

    def __init__(
        self,
        native: Native,
        shards: Sequence[ShardHoldings],
        tokens: Tokens | None,
        width: int,
    ) -> None:
        self._native = native
        self._shards = shards
        self.tokens = tokens
        self._kind = f"<u{width}"
        self._bytes = width == 1
        self._first = [0, *accumulate(shard.documents for shard in shards)]

    @property
    def documents(self) -> int:
        return self._first[-1]

    def number(self, shard: int, document: int) -> int:
        """The number in the index of a document of a shard."""
        return self._first[shard] + document

    def place(self, number: int) -> tuple[int, int]:
        """The shard of a document, and its number there."""
        if not 0 <= number < self.documents:
            raise QueryError(f"There are {self.documents:,} documents, and no number {number:,}.")
        shard = bisect_right(self._first, number) - 1
        return shard, number - self._first[shard]

    def resolve(self, document: str | int) -> tuple[int, int]:
        """The place of a document given by id or number."""
        if isinstance(document, int) and not isinstance(document, bool):
            return self.place(document)
        if not isinstance(document, str):
            raise QueryError(f"A document is named by its id or number, got {document!r}.")
        found = self.places_of(document)
        if not found:
            raise QueryError(f"There is no document with the id {document!r} in this index.")
        if len(found) > 1:
            numbers = ", ".join(str(self.number(*place)) for place in found)
            raise QueryError(
                f"The indexes opened together hold {len(found)} documents with the id "
                f"{document!r}: give the number of one ({numbers})."
            )
        return found[0]

    def places_of(self, identifier: str) -> list[tuple[int, int]]:
        """Shard and number there of every document with this id."""
        return [
            (number, local)
            for number, shard in enumerate(self._shards)
            if shard.documents and (local := shard.table.find(identifier)) is not None
        ]

    def describe(self, shard: int, document: int) -> tuple[str, dict[str, Any]]:
        return self._shards[shard].table.describe(document)

    def table(self, shard: int) -> Table:
        """Ids and metadata of a shard."""
        return self._shards[shard].table

    def symbols(self, shard: int, document: int, start: int, end: int) -> NDArray[np.uint32]:
        """Symbols [start, end) of a document."""
        raw = self._native.extract(shard, document, start, end)
        return np.frombuffer(raw, dtype=self._kind).astype(np.uint32)

    def length(self, shard: int, document: int) -> int:
        """Bytes of a document."""
        text = self._shards[shard].text
        if text is not None:
            return text.length(document)
        symbols = self._native.document_length(shard, document)
        return symbols if self.tokens is None else self.offset(shard, document, symbols)

    def offset(self, shard: int, document: int, position: int) -> int:
        """Where a symbol of a document starts, in bytes."""
        if self.tokens is None:
            return position
        offsets = self._shards[shard].offsets
        token, at = offsets.before_token(document, position) if offsets else (0, 0)
        ids = self.symbols(shard, document, token, position)
        at += int(self.tokens.byte_lengths[ids].sum())
        return at - self.tokens.lead(ids) if token == 0 else at

    def read(self, shard: int, document: int, start: int, end: int) -> bytes:
        """Bytes [start, end) of a document; the caller keeps them inside it."""
        if start >= end:
            return b""
        text = self._shards[shard].text
        if text is not None:
            return text.read(document, start, end)
        if self.tokens is None:
            raw = self._native.extract(shard, document, start, end)
            return raw if self._bytes else _ids_as_text(np.frombuffer(raw, dtype=self._kind))
        return self._spell(shard, document, start, end)

    def _spell(self, shard: int, document: int, start: int, end: int) -> bytes:
        assert self.tokens is not None
        offsets = self._shards[shard].offsets
        token, at = offsets.before_byte(document, start) if offsets else (0, 0)
        last = self._native.document_length(shard, document)
        parts: list[bytes] = []
        have, first = 0, token == 0
        while at + have < end and token < last:
            ids = self.symbols(shard, document, token, min(last, token + _CHUNK))
            part = self.tokens.spell(ids)
            parts.append(part[self.tokens.lead(ids) :] if first else part)
            have += len(parts[-1])
            token += len(ids)
            first = False
        return b"".join(parts)[start - at : end - at]

    def check_range(self, shard: int, document: int, start: int, end: int | None) -> int:
        """The end of a byte range of a document; refuses one that is not inside it."""
        length = self.length(shard, document)
        stop = length if end is None else end
        if not 0 <= start <= stop <= length:
            raise QueryError(
                f"Document {self.describe(shard, document)[0]!r} has {length:,} bytes; "
                f"[{start:,}, {stop:,}) is not a range of them."
            )
        return stop

    def span(self, shard: int, document: int, start: int, end: int) -> Span:
        """A quoted span, from byte offsets."""
        text = self.read(shard, document, start, end).decode("utf-8", "replace")
        return Span(self.describe(shard, document)[0], start, end, text)

    def in_context(
        self, shard: int, document: int, start: int, end: int, around: int
    ) -> tuple[Span, str]:
        """A span, and it with up to `around` bytes on each side, cut inward to whole characters."""
        length = self.length(shard, document)
        low, high = max(0, start - around), min(length, end + around)
        data = self.read(shard, document, low, high)
        first = _character_start(data) if low else 0
        last = _character_end(data) if high < length else len(data)
        first, last = min(first, start - low), max(last, end - low)
        text = data[start - low : end - low].decode("utf-8", "replace")
        span = Span(self.describe(shard, document)[0], start, end, text)
        return span, data[first:last].decode("utf-8", "replace")


def _character_start(data: bytes) -> int:
    """The first offset that is not inside a character (of valid UTF-8)."""
    for place in range(min(4, len(data))):
        if data[place] & 0xC0 != 0x80:
            return place
    return 0


def _character_end(data: bytes) -> int:
    """The offset after the last whole character (of valid UTF-8)."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            needed = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if back < needed else len(data)
    return len(data)


def _ids_as_text(ids: NDArray[Any]) -> bytes:
    """Token ids of an index without a tokenizer, as a person can read them."""
    return " ".join(map(str, ids.tolist())).encode()
