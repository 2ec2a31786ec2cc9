"""AND of ORs: places where one alternative of every clause occurs close together.

Source: "Infini-gram" (arXiv 2401.17377), CNF queries.
Departures: the released engine takes the rarest clause of each shard as a pivot, so its count
changes with the sharding, and it samples without saying how far off it may be. Here S_j are the
starts of clause j's terms, an answer is a minimal interval [l, r] of starts in one document with
r - l <= window that holds at least one of every S_j, and the count is the number of those: the
same for any order of clauses, tier and sharding. Approximation is opt-in and comes with bounds.
Cost: the cheaper of locating every clause, and locating the rarest one and reading the text round
each of its occurrences; both are estimated from the counts first.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unspool.errors import QueryError
from unspool.index.core import Core, Query
from unspool.index.find import Place, sorted_places
from unspool.index.results import CnfResult, Hit

Symbols = NDArray[np.uint32]
Keys = NDArray[np.int64]

_BITS = 40
"""Positions inside a document take so many bits of a key; its number takes the rest."""

_LOCATE_COST = 6.0
"""Microseconds to locate one occurrence."""
_EXTRACT_COST = 40.0
_SYMBOL_COST = 0.3
"""Microseconds to begin an extraction, and for each symbol of it."""

_CONFIDENCE = 1.96
"""Standard errors of a 95% interval."""


class _Interval(NamedTuple):
    """A minimal interval: the keys of its first and last start."""

    first: int
    last: int


def search(
    core: Core,
    clauses: Sequence[Sequence[Query]],
    window: int,
    limit: int | None,
    context: int,
    sample: int | None,
    seed: int,
) -> CnfResult:
    """Answer a CNF question; the arguments are those of `Index.cnf`."""
    terms = _terms(core, clauses)
    if window < 0:
        raise QueryError(f"window must be 0 or more symbols, got {window}.")
    if sample is not None and sample < 1:
        raise QueryError(f"sample must be at least 1, got {sample}.")
    if limit is not None and limit < 1:
        raise QueryError(f"limit must be at least 1, got {limit}; None is no limit.")
    hits = [int(core.native.count_batch(clause).sum()) for clause in terms]
    if min(hits) == 0:
        return CnfResult(0, (), True, 0, 0)
    rarest = hits.index(min(hits))
    if sample is not None and sample < hits[rarest]:
        return _estimate(core, terms, rarest, window, limit, context, sample, seed)
    if _cost_of_locating(hits) <= _cost_of_reading(terms, hits[rarest], window):
        starts = [_located(core, clause) for clause in terms]
    else:
        pivots = _located(core, terms[rarest])
        starts = _read_round(core, terms, rarest, pivots, window)
    found = _minimal(starts, window)
    shown = _hits(core, terms, found, limit, context)
    return CnfResult(len(found), shown, True, len(found), len(found))


def parse_clause(text: str) -> list[str]:
    r"""The alternatives of a clause as typed: `a|b`; `\|` is a bar and `\\` a backslash."""
    parts, current, escaped = [], "", False
    for character in text:
        if escaped:
            current += character if character in "|\\" else "\\" + character
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == "|":
            parts.append(current)
            current = ""
        else:
            current += character
    parts.append(current + ("\\" if escaped else ""))
    if not all(parts):
        raise QueryError(f"The clause {text!r} has an empty alternative; write \\| for a bar.")
    return parts


def _terms(core: Core, clauses: Sequence[Sequence[Query]]) -> list[list[Symbols]]:
    if isinstance(clauses, str | bytes) or not len(clauses):
        raise QueryError("Give a list of clauses, each a list of alternatives; none was given.")
    found = []
    for clause in clauses:
        if isinstance(clause, str | bytes) or not len(clause):
            raise QueryError(f"A clause is a list of at least one alternative, got {clause!r}.")
        # The same alternative twice would find each of its places twice.
        unique = {core.encode(term).tobytes(): core.encode(term) for term in clause}
        if b"" in unique:
            raise QueryError("A clause has an empty alternative, which occurs everywhere.")
        found.append(list(unique.values()))
    return found


def _cost_of_locating(hits: Sequence[int]) -> float:
    return _LOCATE_COST * sum(hits)


def _cost_of_reading(terms: Sequence[Sequence[Symbols]], pivots: int, window: int) -> float:
    reach = 2 * window + max(len(term) for clause in terms for term in clause)
    return pivots * (_LOCATE_COST + _EXTRACT_COST + _SYMBOL_COST * reach)


def _located(core: Core, clause: Sequence[Symbols]) -> Keys:
    """Keys of every start of a clause's terms, sorted, each once."""
    parts = []
    for term in clause:
        for shard, (low, high) in enumerate(core.native.ranges(term)):
            documents, starts = sorted_places(core.native, shard, low, high, len(term))
            numbers = documents + core.holdings.number(shard, 0)
            parts.append((numbers << _BITS) + starts)
    return np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)


def _read_round(
    core: Core,
    terms: Sequence[Sequence[Symbols]],
    rarest: int,
    pivots: Keys,
    window: int,
) -> list[Keys]:
    """Starts of every clause that lie within the window of a pivot; the rarest are the pivots."""
    longest = max(len(term) for clause in terms for term in clause)
    found: list[list[int]] = [[] for _ in terms]
    for number, low, high in _regions(pivots, window):
        shard, document = core.holdings.place(number)
        last = core.native.document_length(shard, document)
        low, end = max(0, low), min(last, high + longest)
        text = core.holdings.symbols(shard, document, low, end)
        base = (number << _BITS) + low
        for clause, starts in zip(terms, found, strict=True):
            for term in clause:
                starts += [base + at for at in occurrences(text, term).tolist() if low + at <= high]
    keys = [np.unique(np.array(starts, dtype=np.int64)) for starts in found]
    keys[rarest] = pivots
    return keys


def _regions(pivots: Keys, window: int) -> Iterator[tuple[int, int, int]]:
    """Ranges of starts (document, first, last) within the window of a pivot, merged."""
    mask = (1 << _BITS) - 1
    current: tuple[int, int, int] | None = None
    for key in pivots.tolist():
        document, at = key >> _BITS, key & mask
        if current and current[0] == document and at - window <= current[2] + 1:
            current = (document, current[1], at + window)
            continue
        if current:
            yield current
        current = (document, at - window, at + window)
    if current:
        yield current


def occurrences(text: Symbols, term: Symbols) -> NDArray[np.int64]:
    """Every place, overlapping ones too, where a term stands in a text."""
    if len(term) > len(text):
        return np.empty(0, dtype=np.int64)
    places = np.flatnonzero(text[: len(text) - len(term) + 1] == term[0])
    for offset in range(1, len(term)):
        if not len(places):
            break
        places = places[text[places + offset] == term[offset]]
    return places


def _minimal(starts: Sequence[Keys], window: int) -> list[_Interval]:
    """All minimal intervals that hold a start of every clause.

    For each start l, r(l) is the first place by which every clause has come up again; [l, r(l)] is
    minimal if and only if r of the next start is larger.
    """
    if not all(len(keys) for keys in starts):
        return []
    firsts = np.unique(np.concatenate(starts))
    lasts = firsts.copy()
    reached = np.ones(len(firsts), dtype=bool)
    for keys in starts:
        at = np.searchsorted(keys, firsts)
        inside = at < len(keys)
        reached &= inside
        lasts = np.maximum(lasts, keys[np.minimum(at, len(keys) - 1)])
    following = np.append(lasts[1:], np.iinfo(np.int64).max)
    following[:-1][~reached[1:]] = np.iinfo(np.int64).max
    good = reached & (following > lasts) & (lasts - firsts <= window)
    return [_Interval(*p) for p in zip(firsts[good].tolist(), lasts[good].tolist(), strict=True)]


def _hits(
    core: Core,
    terms: Sequence[Sequence[Symbols]],
    found: Sequence[_Interval],
    limit: int | None,
    context: int,
) -> tuple[Hit, ...]:
    mask = (1 << _BITS) - 1
    hits = []
    for interval in islice(found, limit):
        shard, document = core.holdings.place(interval.first >> _BITS)
        start, last = interval.first & mask, interval.last & mask
        end = _end_of_term(core, terms, shard, document, start, last)
        hits.append(core.hit(Place(shard, document, start), end - start, context))
    return tuple(hits)


def _end_of_term(
    core: Core,
    terms: Sequence[Sequence[Symbols]],
    shard: int,
    document: int,
    start: int,
    last: int,
) -> int:
    """Where the terms that make an interval end: the furthest of the shortest that fit."""
    longest = max(len(term) for clause in terms for term in clause)
    length = core.native.document_length(shard, document)
    text = core.holdings.symbols(shard, document, start, min(length, last + longest))
    end = last
    for clause in terms:
        ends = []
        for term in clause:
            at = occurrences(text[: last - start + len(term)], term)
            ends += (at + start + len(term)).tolist()
        end = max(end, min(ends))
    return end


def _estimate(
    core: Core,
    terms: Sequence[Sequence[Symbols]],
    rarest: int,
    window: int,
    limit: int | None,
    context: int,
    sample: int,
    seed: int,
) -> CnfResult:
    """Count from a sample of the rarest clause's places.

    Each interval belongs to its first pivot, so the sum over a sample without replacement, scaled
    up, is unbiased; the bounds are its 95% interval, with the correction for a finite population.
    """
    pivots = _located(core, terms[rarest])
    total = len(pivots)
    chosen = np.sort(np.array(random.Random(seed).sample(range(total), min(sample, total))))
    # Pivots near a chosen one decide which interval is whose, so all of them stay known.
    starts = _read_round(core, terms, rarest, pivots[chosen], window)
    starts[rarest] = pivots
    found = _minimal(starts, window)
    owners = np.searchsorted(pivots, np.array([i.first for i in found], dtype=np.int64))
    mine = np.isin(owners, chosen)
    per_pivot = np.bincount(owners[mine], minlength=total)[chosen].astype(np.float64)
    seen = int(per_pivot.sum())
    shown = _hits(core, terms, [i for i, m in zip(found, mine, strict=True) if m], limit, context)
    if len(chosen) == total:
        return CnfResult(seen, shown, True, seen, seen)
    estimate = total * per_pivot.mean()
    variance = per_pivot.var(ddof=1) if len(chosen) > 1 else float(per_pivot[0]) + 1.0
    spread = _CONFIDENCE * total * math.sqrt(variance / len(chosen) * (1 - len(chosen) / total))
    return CnfResult(
        round(estimate),
        shown,
        False,
        max(seen, math.floor(estimate - spread)),
        math.ceil(estimate + spread),
    )
