"""An open index: every question that can be asked of it.

What: exact counts, places, next-symbol and n-gram probabilities, longest matches, tracing and
quoting, the same over one shard or many, one directory or several, on either tier.
Source: "Infini-gram" (arXiv 2401.17377), sections 2-4; "Infini-gram mini" (2506.12229), section 3.
Departures: everything is exact unless an approximation is asked for; an undefined probability is
None, not -1; the end of a document is the symbol -1, the same in distributions and probabilities.
Cost: see the methods; the work is the native engine's, which releases the interpreter lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unspool import _native
from unspool.errors import QueryError
from unspool.index import cnf as _cnf
from unspool.index import probability
from unspool.index import trace as _trace
from unspool.index.core import Core, Query
from unspool.index.export import ExportReport, write_documents
from unspool.index.find import Order, first_of_each_document, places
from unspool.index.remote import RemoteNative
from unspool.index.results import (
    CnfResult,
    Distribution,
    Hit,
    IndexInfo,
    Matches,
    NextCounts,
    Probability,
    TraceSpan,
    VerifyReport,
)
from unspool.types import Document, Span


class Index:
    """An open index. Use `unspool.open_index` to get one."""

    def __init__(
        self,
        core: Core,
        verifier: Callable[[], list[str]],
        others: Sequence[_native.Index] = (),
    ) -> None:
        self._core = core
        self._native = core.native
        self._holdings = core.holdings
        self._verifier = verifier
        self._others = others

    def encode(self, query: Query) -> NDArray[np.uint32]:
        """The symbols that a query stands for: byte values, or the ids of the stored tokenizer.

        Raises:
            QueryError: Not text, bytes or symbols of this index.
        """
        return self._core.encode(query)

    def symbol_text(self, symbol: int) -> str:
        """What one symbol spells; U+FFFD if that is no character, nothing for -1."""
        return self._core.symbol_text(symbol)

    def spell(self, query: Query) -> bytes:
        """The bytes that a query's symbols stand for."""
        return self._core.spell(self._core.encode(query))

    # --- counts and probabilities

    def count(self, query: Query) -> int:
        """Occurrences of a query; of the empty one, symbols and documents together."""
        return self._native.count(self._core.asked(query))

    def count_batch(self, queries: Iterable[Query]) -> NDArray[np.int64]:
        """Occurrences of many queries, asked side by side: several times faster than one by one."""
        return self._native.count_batch(self._core.asked_all(queries))

    def next(self, query: Query, top: int | None = None) -> Distribution:
        """The exact distribution of what follows a prompt, the end of a document included.

        Args:
            query: The prompt; empty gives the unigram distribution.
            top: List only so many symbols; `distinct` says how many there are.
        """
        return probability.following(self._core, query, top)

    def next_batch(self, queries: Iterable[Query], top: int | None = None) -> list[Distribution]:
        """`next` of many prompts."""
        return probability.following_batch(self._core, queries, top)

    def prob(self, query: Query, continuation: Query | int) -> Probability:
        """n-gram probability: how often the continuation follows, of all times the prompt occurs.

        Args:
            query: The prompt.
            continuation: What follows: text, bytes, symbols, or one symbol; -1 is the end of a
                document.
        """
        return probability.probability(self._core, query, continuation)

    def prob_batch(
        self, queries: Sequence[Query], continuations: Sequence[Query | int]
    ) -> list[Probability]:
        """`prob` of many prompts, each with its continuation."""
        return probability.probability_batch(self._core, queries, continuations)

    def infgram(
        self, query: Query, continuation: Query | int | None = None, top: int | None = None
    ) -> Probability | Distribution:
        """The ∞-gram: as `prob` or `next`, of the longest suffix of the prompt that occurs.

        Args:
            query: The prompt; of its suffixes the longest that occurs in some shard is used, at
                worst the empty one.
            continuation: With it the result is a Probability, without it a Distribution.
            top: List only so many symbols of the distribution.
        """
        if continuation is None:
            return probability.infgram_following(self._core, query, top)
        return probability.infgram(self._core, query, continuation)

    def infgram_batch(
        self,
        queries: Sequence[Query],
        continuations: Sequence[Query | int] | None = None,
        top: int | None = None,
    ) -> list[Probability | Distribution]:
        """`infgram` of many prompts."""
        if continuations is None:
            return [*probability.infgram_following_batch(self._core, queries, top)]
        return [*probability.infgram_batch(self._core, queries, continuations)]

    def infgram_counts(self, queries: Iterable[Query]) -> list[NextCounts]:
        """`infgram` of many prompts as arrays: all that follows, without a name for each symbol."""
        found = self._native.infgram_batch(self._core.asked_all(queries))
        return [NextCounts(*each) for each in found]

    # --- places

    def find(
        self,
        query: Query,
        limit: int | None = 10,
        context: int = 80,
        order: Order = "index",
        seed: int = 0,
        start: int = 0,
    ) -> list[Hit]:
        """Occurrences of a query.

        Args:
            query: What to find; not empty.
            limit: Most hits; None for all.
            context: Bytes of text on each side.
            order: `index`: the index's own, stable order, which costs only the limit; `position`:
                by document and place, which locates every hit first; `random`: drawn without
                replacement.
            seed: Of the random order.
            start: Leave out so many hits of that order, to go on where an earlier call ended.
        """
        asked, length = self._to_find(query, limit, context)
        if start < 0:
            raise QueryError(f"start must be 0 or more, got {start}.")
        found = places(
            self._native, asked, length, limit=limit, order=order, seed=seed, start=start
        )
        known = self._core.text_of(asked)
        return [self._core.hit(place, length, context, known) for place in islice(found, limit)]

    def documents(
        self,
        query: Query,
        limit: int | None = 10,
        context: int = 80,
        order: Order = "index",
        seed: int = 0,
        start: int = 0,
    ) -> list[Hit]:
        """The first hit in each of at most `limit` different documents; arguments as of `find`."""
        asked, length = self._to_find(query, limit, context)
        if start < 0:
            raise QueryError(f"start must be 0 or more, got {start}.")
        found = places(self._native, asked, length, limit=None, order=order, seed=seed)
        most = None if limit is None else start + limit
        firsts = islice(first_of_each_document(found, most), start, None)
        known = self._core.text_of(asked)
        return [self._core.hit(place, length, context, known) for place in firsts]

    def find_batch(self, queries: Iterable[Query], **options: Any) -> list[list[Hit]]:
        """`find` of many queries."""
        return [self.find(query, **options) for query in queries]

    def documents_batch(self, queries: Iterable[Query], **options: Any) -> list[list[Hit]]:
        """`documents` of many queries."""
        return [self.documents(query, **options) for query in queries]

    def cnf(
        self,
        clauses: Sequence[Sequence[Query]],
        window: int = 100,
        limit: int | None = 10,
        context: int = 80,
        sample: int | None = None,
        seed: int = 0,
    ) -> CnfResult:
        """Places where every clause is met within `window` symbols of one document.

        Args:
            clauses: Each a list of alternatives, of which one must occur.
            window: Most symbols between the starts of the first and the last term of an interval.
            limit: Most hits; the count is of all.
            context: Bytes of text on each side of a hit.
            sample: Look round so many random occurrences of the rarest clause instead of all; the
                count is then an estimate with bounds.
            seed: Of the sample.
        """
        return _cnf.search(self._core, clauses, window, limit, context, sample, seed)

    def cnf_batch(
        self, questions: Iterable[Sequence[Sequence[Query]]], **options: Any
    ) -> list[CnfResult]:
        """`cnf` of many questions."""
        return [self.cnf(clauses, **options) for clauses in questions]

    def _to_find(self, query: Query, limit: int | None, context: int) -> tuple[_native.Query, int]:
        if limit is not None and limit < 1:
            raise QueryError(f"limit must be at least 1, got {limit}; None is no limit.")
        if context < 0:
            raise QueryError(f"context must be 0 or more bytes, got {context}.")
        asked = self._core.asked(query)
        length = self._core.length(asked)
        if length == 0:
            raise QueryError("The query is empty: it occurs everywhere. Give something to find.")
        return asked, length

    # --- matches of a text

    def longest_match(self, text: Query) -> Matches:
        """For each start in a text, the longest piece from there that occurs in the corpus."""
        return Matches(*self._native.longest_matches(self._core.asked(text)))

    def longest_match_batch(self, texts: Iterable[Query]) -> list[Matches]:
        """`longest_match` of many texts."""
        return [self.longest_match(text) for text in texts]

    def trace(self, text: Query, **options: Any) -> list[TraceSpan]:
        """The maximal pieces of a text that occur in the corpus, with where they occur.

        Options are those of `TraceOptions`: min_length, max_count, delimiters, whole_words,
        density, rank, max_sources, seed.
        """
        return _trace.trace(self._core, text, _trace.TraceOptions(**options))

    def trace_batch(self, texts: Iterable[Query], **options: Any) -> list[list[TraceSpan]]:
        """`trace` of many texts."""
        return [self.trace(text, **options) for text in texts]

    # --- documents

    def extract(self, document: str | int, start: int = 0, end: int | None = None) -> bytes:
        """Bytes [start, end) of a document, exactly as they were indexed.

        Args:
            document: Its id, or its number in the index.
            start: UTF-8 byte offset.
            end: UTF-8 byte offset; default the end of the document.
        """
        shard, local = self._holdings.resolve(document)
        stop = self._holdings.check_range(shard, local, start, end)
        return self._holdings.read(shard, local, start, stop)

    def extract_batch(self, ranges: Iterable[tuple[str | int, int, int | None]]) -> list[bytes]:
        """`extract` of many (document, start, end)."""
        return [self.extract(*each) for each in ranges]

    def quote(self, document: str | int, start: int = 0, end: int | None = None) -> Span:
        """A range of a document as a Span."""
        shard, local = self._holdings.resolve(document)
        return self._holdings.span(
            shard, local, start, self._holdings.check_range(shard, local, start, end)
        )

    def document(self, document: str | int) -> Document:
        """A whole document with its metadata; bytes that are not UTF-8 become U+FFFD in its text
        (`extract` gives the bytes themselves)."""
        shard, local = self._holdings.resolve(document)
        identifier, meta = self._holdings.describe(shard, local)
        data = self._holdings.read(shard, local, 0, self._holdings.length(shard, local))
        return Document(identifier, data.decode("utf-8", "replace"), meta)

    def document_length(self, document: str | int) -> int:
        """UTF-8 bytes of a document."""
        return self._holdings.length(*self._holdings.resolve(document))

    def describe(self, number: int) -> tuple[str, dict[str, Any]]:
        """The id and metadata of a document, by its number."""
        return self._holdings.describe(*self._holdings.place(number))

    def document_number(self, document: str | int) -> int:
        """The number of a document, by its id; a number is checked and given back."""
        return self._holdings.number(*self._holdings.resolve(document))

    def symbols(self, document: str | int) -> NDArray[np.uint32]:
        """All symbols of a document: byte values or token ids."""
        shard, local = self._holdings.resolve(document)
        length = self._native.document_length(shard, local)
        return self._holdings.symbols(shard, local, 0, length)

    def to_text(self, out: str | os.PathLike[str]) -> ExportReport:
        """Write every document back: one record each into a `.jsonl` file, else one file each into
        a directory, under its id. The bytes are those that were indexed."""
        return write_documents(self, out)

    def __len__(self) -> int:
        """How many documents there are."""
        return self._holdings.documents

    # --- the index itself

    def info(self) -> IndexInfo:
        """What the index holds and how it was built."""
        return self._core.info

    def shards(self) -> list[tuple[int, int]]:
        """For each shard, its documents and the bytes that a stored symbol takes."""
        infos = map(self._native.info, range(self._native.num_shards))
        return [(info["documents"], info["width"]) for info in infos]

    def tokenizer_json(self) -> bytes | None:
        """The stored tokenizer of a token index."""
        return self._core.tokens.to_bytes() if self._core.tokens else None

    def warm(self) -> None:
        """Read, map and check the whole index, so that no query has to wait for that."""
        self._native.warm()

    def verify(self) -> VerifyReport:
        """Read every byte of the index and compare it with its checksums."""
        errors = tuple(self._verifier())
        return VerifyReport(not errors, errors)

    def take_missing(self) -> tuple[str, ...]:
        """Shards that gave no answer in this thread since this was last asked.

        Empty unless the index was opened on a cluster with partial answers.
        """
        return self._native.missed.take() if isinstance(self._native, RemoteNative) else ()

    def retire(self) -> None:
        """Close an index that was replaced, also for the other processes that opened it on the
        same cluster."""
        if isinstance(self._native, RemoteNative):
            self._native.retire()
        self.close()

    def close(self) -> None:
        """Unmap the files. Asking a closed index is an error."""
        for native in (self._native, *self._others):
            native.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
