"""n-gram and ∞-gram probabilities and next-symbol distributions.

Source: "Infini-gram" (arXiv 2401.17377), sections 2 and 3: P(w|c) = cnt(cw) / cnt(c), and the
∞-gram, which conditions on the longest suffix of the prompt that occurs at least once.
Departures from the released code: undefined is None, not -1; distributions are exact, never
sampled; the end of a document is a symbol (-1) like any other.
Cost: one or two searches; a distribution takes one step a distinct next symbol.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from unspool.errors import QueryError
from unspool.index.core import Core, Query
from unspool.index.results import Distribution, NextSymbol, Probability


def following(core: Core, query: Query, top: int | None) -> Distribution:
    """What follows a prompt."""
    asked = core.asked(query)
    return distribution(core, core.length(asked), *core.native.next(asked), top)


def following_batch(core: Core, queries: Iterable[Query], top: int | None) -> list[Distribution]:
    """What follows each of many prompts."""
    asked = core.asked_all(queries)
    answers = core.native.next_batch(asked)
    return [
        distribution(core, core.length(query), *answer, top)
        for query, answer in zip(asked, answers, strict=True)
    ]


def probability(core: Core, query: Query, continuation: Query | int) -> Probability:
    """How often a continuation follows a prompt."""
    asked, symbol = core.asked(query), core.one_symbol(continuation)
    if symbol is not None:
        return _ratio(*core.native.prob(asked, symbol), core.length(asked))
    return _joined(core, core.encode(query), core.native.count(asked), continuation)


def probability_batch(
    core: Core, queries: Sequence[Query], continuations: Sequence[Query | int]
) -> list[Probability]:
    """`probability` of many pairs."""
    symbols = _symbols(core, queries, continuations)
    if symbols is None:
        return [probability(core, q, c) for q, c in zip(queries, continuations, strict=True)]
    asked = core.asked_all(queries)
    found = core.native.prob_batch(asked, symbols).tolist()
    return [
        _ratio(before, both, core.length(query))
        for query, (before, both) in zip(asked, found, strict=True)
    ]


def infgram(core: Core, query: Query, continuation: Query | int) -> Probability:
    """How often a continuation follows the longest suffix of a prompt that occurs."""
    asked, symbol = core.asked(query), core.one_symbol(continuation)
    if symbol is not None:
        length, before, both = core.native.infgram_prob(asked, symbol)
        return _ratio(before, both, length)
    length, before = core.native.longest_suffix(asked)
    prompt = core.encode(query)
    return _joined(core, prompt[len(prompt) - length :], before, continuation)


def infgram_batch(
    core: Core, queries: Sequence[Query], continuations: Sequence[Query | int]
) -> list[Probability]:
    """`infgram` of many pairs."""
    symbols = _symbols(core, queries, continuations)
    if symbols is None:
        return [infgram(core, q, c) for q, c in zip(queries, continuations, strict=True)]
    found = core.native.infgram_prob_batch(core.asked_all(queries), symbols).tolist()
    return [_ratio(before, both, length) for length, before, both in found]


def infgram_following(core: Core, query: Query, top: int | None) -> Distribution:
    """What follows the longest suffix of a prompt that occurs."""
    return distribution(core, *core.native.infgram(core.asked(query)), top)


def infgram_following_batch(
    core: Core, queries: Iterable[Query], top: int | None
) -> list[Distribution]:
    """`infgram_following` of many prompts."""
    answers = core.native.infgram_batch(core.asked_all(queries))
    return [distribution(core, *answer, top) for answer in answers]


def distribution(
    core: Core,
    length: int,
    count: int,
    symbols: NDArray[np.int64],
    counts: NDArray[np.int64],
    top: int | None,
) -> Distribution:
    """A distribution from the engine's arrays: most frequent first, then by symbol."""
    if top is not None and top < 1:
        raise QueryError(f"top must be at least 1, got {top}.")
    order = np.lexsort((symbols, -counts))[:top]
    listed = tuple(
        NextSymbol(symbol, core.symbol_text(symbol), many, many / count, length)
        for symbol, many in zip(symbols[order].tolist(), counts[order].tolist(), strict=True)
    )
    return Distribution(count, length, listed, len(symbols))


def _symbols(
    core: Core, queries: Sequence[Query], continuations: Sequence[Query | int]
) -> NDArray[np.int64] | None:
    """Continuations of one symbol each, or None if one has more."""
    if len(queries) != len(continuations):
        raise QueryError(
            f"There are {len(queries):,} prompts and {len(continuations):,} continuations: give "
            "one continuation a prompt."
        )
    symbols = [core.one_symbol(continuation) for continuation in continuations]
    if any(symbol is None for symbol in symbols):
        return None
    return np.array(symbols, dtype=np.int64)


def _joined(
    core: Core, prompt: NDArray[np.uint32], before: int, continuation: Query | int
) -> Probability:
    assert not isinstance(continuation, int)
    both = core.native.count(np.concatenate([prompt, core.encode(continuation)]))
    return _ratio(before, both, len(prompt))


def _ratio(before: int, both: int, length: int) -> Probability:
    return Probability(before, both, both / before if before else None, length)
