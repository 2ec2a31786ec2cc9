"""What every question to an index needs: its files, its documents, and what its symbols mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unspool import _native
from unspool.errors import QueryError
from unspool.index.alphabet import END, check_ids
from unspool.index.find import Place
from unspool.index.holdings import Holdings
from unspool.index.normalise import normalise
from unspool.index.remote import Native
from unspool.index.results import Hit, IndexInfo
from unspool.types import Span

Query: TypeAlias = str | bytes | Sequence[int] | NDArray[Any]
"""Text, bytes, or symbols (byte values or token ids)."""


class Core:
    """The engine of an open index, with its alphabet and documents."""

    def __init__(
        self,
        native: Native,
        holdings: Holdings,
        info: IndexInfo,
        normalisers: tuple[str, ...],
    ) -> None:
        self.native = native
        self.holdings = holdings
        self.info = info
        self.normalisers = normalisers
        self.tokens = holdings.tokens
        self.plain = self.tokens is None and info.alphabet == "bytes"
        self._text_as_is = self.plain and not normalisers

    def encode(self, query: Query) -> NDArray[np.uint32]:
        """The symbols that a query stands for: byte values, or the ids of the stored tokenizer.

        Raises:
            QueryError: Not text, bytes or symbols of this index.
        """
        asked = self.asked(query)
        if isinstance(asked, str):
            asked = asked.encode()
        return (
            np.frombuffer(asked, np.uint8).astype(np.uint32) if isinstance(asked, bytes) else asked
        )

    def asked(self, query: Query) -> _native.Query:
        """A query in the form that the engine takes."""
        kind = type(query)
        if self._text_as_is and (kind is str or kind is bytes):
            return query  # type: ignore[return-value]  # narrowed by `kind`, which is faster
        if isinstance(query, str):
            return self._text_query(query)
        if isinstance(query, bytes | bytearray | memoryview):
            if self.plain:
                return bytes(query)
            if self.tokens is None:
                raise QueryError(
                    "This index has no tokenizer: ask it with token ids, not with bytes."
                )
            try:
                return self._text_query(bytes(query).decode())
            except UnicodeDecodeError as error:
                raise QueryError(
                    "A token index takes bytes only as UTF-8 text, and these are not valid at "
                    f"byte {error.start}."
                ) from error
        if isinstance(query, Sequence | np.ndarray):
            what = "Byte values" if self.plain else "Token ids"
            return check_ids(query, self.alphabet_size(), what)
        raise QueryError(f"A query is str, bytes, or a sequence of symbols, got {kind.__name__}.")

    def _text_query(self, query: str) -> _native.Query:
        text = normalise(query, self.normalisers) if self.normalisers else query
        if self.plain:
            return text
        if self.tokens is None:
            raise QueryError("This index has no tokenizer: ask it with token ids, not with text.")
        return self.tokens.encode(text)

    def asked_all(self, queries: Iterable[Query]) -> list[_native.Query]:
        if isinstance(queries, str | bytes):
            raise QueryError("A batch is a list of queries, got one query.")
        batch = list(queries)
        if self._text_as_is and set(map(type, batch)) <= {str, bytes}:
            return batch  # type: ignore[return-value]  # the line above says what they are
        return [self.asked(query) for query in batch]

    def length(self, asked: _native.Query) -> int:
        return len(asked.encode()) if isinstance(asked, str) else len(asked)

    def one_symbol(self, continuation: Query | int) -> int | None:
        """A continuation of a single symbol, or None if it has more."""
        if isinstance(continuation, bool):
            raise QueryError("A continuation is text, bytes or symbols, got a bool.")
        if isinstance(continuation, int | np.integer):
            if continuation == END:
                return END
            return int(check_ids([int(continuation)], self.alphabet_size(), "Symbols")[0])
        symbols = self.encode(continuation)
        if not len(symbols):
            raise QueryError("The continuation is empty: give what should follow the prompt.")
        return int(symbols[0]) if len(symbols) == 1 else None

    def alphabet_size(self) -> int:
        if self.plain:
            return 256
        return self.tokens.size if self.tokens else 1 << 32

    def symbol_text(self, symbol: int) -> str:
        """What one symbol spells; nothing for the end of a document."""
        if symbol == END:
            return ""
        return self.spell(np.array([symbol], dtype=np.uint32)).decode("utf-8", "replace")

    def text_of(self, asked: _native.Query) -> bytes | None:
        """What each match of a query spells; None where tokens may spell it in several ways."""
        if not self.plain:
            return None
        if isinstance(asked, str):
            return asked.encode()
        return asked if isinstance(asked, bytes) else self.spell(asked)

    def spell(self, symbols: NDArray[np.uint32]) -> bytes:
        """The bytes that symbols stand for; of tokens without a tokenizer, nothing."""
        if self.plain:
            return symbols.astype(np.uint8).tobytes()
        return self.tokens.spell(symbols) if self.tokens else b""

    def spell_text(self, symbols: NDArray[np.uint32]) -> tuple[bytes, NDArray[np.int64]]:
        """A text from its symbols, and where each symbol starts in it and the last one ends."""
        offsets = np.zeros(len(symbols) + 1, dtype=np.int64)
        if self.plain or self.tokens is None:
            offsets[:] = np.arange(len(symbols) + 1)
            return self.spell(symbols), offsets
        np.cumsum(self.tokens.byte_lengths[symbols], out=offsets[1:], dtype=np.int64)
        lead = self.tokens.lead(symbols)
        return self.tokens.spell(symbols)[lead:], np.maximum(offsets - lead, 0)

    def span(self, place: Place, length: int, known: bytes | None = None) -> Span:
        """The Span of a match of so many symbols; `known` is the text, where that is known."""
        shard, document, _ = place
        low, high = self._bytes_of(place, length)
        if known is None:
            return self.holdings.span(shard, document, low, high)
        identifier = self.holdings.describe(shard, document)[0]
        return Span(identifier, low, high, known.decode("utf-8", "replace"))

    def hit(self, place: Place, length: int, context: int, known: bytes | None = None) -> Hit:
        """A match of so many symbols with the text around it."""
        shard, document, _ = place
        if not context and known is not None:
            span = self.span(place, length, known)
            return Hit(span, span.text, self.holdings.number(shard, document))
        low, high = self._bytes_of(place, length)
        span, text = self.holdings.in_context(shard, document, low, high, context)
        return Hit(span, text, self.holdings.number(shard, document))

    def _bytes_of(self, place: Place, length: int) -> tuple[int, int]:
        shard, document, start = place
        if self.tokens is None:
            return start, start + length
        offset = self.holdings.offset
        return offset(shard, document, start), offset(shard, document, start + length)
