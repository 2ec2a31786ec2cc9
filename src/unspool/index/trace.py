"""Attribution: the maximal pieces of a text that occur verbatim in a corpus, and where.

Source: "OLMoTrace" (arXiv 2504.07096), section 3, and the `attribute` query of the infini-gram
engine (arXiv 2401.17377): longest match from each start, cut at delimiters and word boundaries,
kept if it reaches further than every earlier one, ranked, and sampled for sources.
Departures: sources are drawn without replacement from a seed, and offsets are bytes of the text.
On a byte index a word starts where a letter or digit does not follow another one; a token index
looks at what each token spells. Nothing is dropped unless an option says so: the service's own
settings are density 0.05, at most 10 occurrences, and newline and full stop as delimiters.
Cost: one search per maximal span, not per start; one count for each span that was cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unspool.errors import ConfigError
from unspool.index.core import Core, Query
from unspool.index.find import places
from unspool.index.results import TraceSpan
from unspool.types import Span


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceOptions:
    """Which spans of a text are reported, in which order, with how many sources."""

    min_length: int = 1
    """Fewest symbols (bytes or tokens) of a span."""
    max_count: int | None = None
    """Most occurrences: common phrases say little about a source."""
    delimiters: tuple[str | int, ...] = ()
    """Texts of one symbol, or symbols, that may only end a span."""
    whole_words: bool = False
    """Spans begin where a word begins and end where one ends."""
    density: float | None = None
    """Keep at most this share of the text's symbols, rounded up, as a number of spans."""
    rank: Literal["position", "length", "rarity"] = "position"
    """Order: by place; longest first; or lowest sum of unigram log-probabilities first."""
    max_sources: int = 10
    """Most places reported of each span."""
    seed: int = 42
    """Of the sample of sources."""

    def __post_init__(self) -> None:
        if self.min_length < 1:
            raise ConfigError(f"min_length must be at least 1, got {self.min_length}.")
        if self.max_count is not None and self.max_count < 1:
            raise ConfigError(f"max_count must be at least 1, got {self.max_count}.")
        if self.density is not None and not 0 < self.density <= 1:
            raise ConfigError(f"density must be above 0 and at most 1, got {self.density}.")
        if self.rank not in ("position", "length", "rarity"):
            raise ConfigError(f"rank must be position, length or rarity, got {self.rank!r}.")
        if self.max_sources < 0:
            raise ConfigError(f"max_sources must be 0 or more, got {self.max_sources}.")


@dataclass(frozen=True, slots=True)
class _Candidate:
    start: int
    end: int
    count: int


def trace(core: Core, text: Query, options: TraceOptions) -> list[TraceSpan]:
    """The spans of a text that occur in the corpus, as the options choose and order them."""
    symbols = core.encode(text)
    spelled, offsets = core.spell_text(symbols)
    lengths, known = core.native.longest_matches(symbols)
    ends = np.arange(len(symbols), dtype=np.int64) + lengths
    cut = np.zeros(len(symbols), dtype=bool)
    if options.delimiters:
        ends, cut = cut_at_delimiters(core, symbols, ends, options.delimiters)
    starts = np.ones(len(symbols), dtype=bool)
    if options.whole_words:
        starts = word_starts(spelled, offsets)
        ends, shrunk = shrink_to_words(ends, starts)
        cut |= shrunk
    found = maximal(starts, ends, options.min_length)
    counts = span_counts(core, symbols, found, known, cut)
    kept = [
        _Candidate(start, end, count)
        for (start, end), count in zip(found, counts, strict=True)
        if count > 0 and (options.max_count is None or count <= options.max_count)
    ]
    kept = _ranked(core, symbols, kept, options)
    return [
        TraceSpan(
            int(offsets[span.start]),
            int(offsets[span.end]),
            spelled[offsets[span.start] : offsets[span.end]].decode("utf-8", "replace"),
            span.count,
            _sources(core, symbols[span.start : span.end], span.count, options),
        )
        for span in kept
    ]


def maximal(
    starts: NDArray[np.bool_], ends: NDArray[np.int64], min_length: int
) -> list[tuple[int, int]]:
    """From left to right, the spans that reach further than every one before them."""
    found: list[tuple[int, int]] = []
    furthest = 0
    for start in np.flatnonzero(starts).tolist():
        end = int(ends[start])
        if end - start >= min_length and end > furthest:
            found.append((start, end))
            furthest = end
    return found


def cut_at_delimiters(
    core: Core,
    symbols: NDArray[np.uint32],
    ends: NDArray[np.int64],
    delimiters: Sequence[str | int],
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """End each span after the first delimiter in it."""
    wanted: set[int] = set()
    for delimiter in delimiters:
        ids = [delimiter] if isinstance(delimiter, int) else core.encode(delimiter).tolist()
        if len(ids) != 1:
            raise ConfigError(
                f"A delimiter is one symbol of the index, and {delimiter!r} is {len(ids)}."
            )
        wanted.add(ids[0])
    at = np.flatnonzero(np.isin(symbols, list(wanted)))
    following = np.append(at + 1, len(symbols))[np.searchsorted(at, np.arange(len(symbols)))]
    return np.minimum(ends, following), following < ends


def word_starts(spelled: bytes, offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a word may begin, for each symbol of a text."""
    text = spelled.decode("utf-8", "replace")
    at, previous = 0, ""
    begins: set[int] = set()
    for character in text:
        if not (character.isalnum() and previous.isalnum()):
            begins.add(at)
        at += len(character.encode())
        previous = character
    if at != len(spelled):  # not UTF-8, so that offsets in the text are none in the bytes
        alnum = np.array([chr(b).isalnum() for b in range(128)] + [True] * 128)
        data = alnum[np.frombuffer(spelled, np.uint8)]
        begins = set(np.flatnonzero(~(data & np.append(False, data[:-1]))).tolist())
    return np.array([offset in begins for offset in offsets[:-1].tolist()], dtype=bool)


def shrink_to_words(
    ends: NDArray[np.int64], starts: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Move each end back to where the next symbol begins a word (the end of the text does)."""
    boundary = np.append(starts, True)
    last = np.maximum.accumulate(np.where(boundary, np.arange(len(boundary)), 0))
    shrunk = last[ends]
    return shrunk, shrunk < ends


def span_counts(
    core: Core,
    symbols: NDArray[np.uint32],
    found: Sequence[tuple[int, int]],
    known: NDArray[np.int64],
    cut: NDArray[np.bool_],
) -> list[int]:
    """Occurrences of each span: already known where the match is maximal and was not cut."""
    counts = [-1 if cut[start] else int(known[start]) for start, _ in found]
    unknown = [place for place, count in enumerate(counts) if count < 0]
    asked = [symbols[slice(*found[place])] for place in unknown]
    for place, count in zip(unknown, core.native.count_batch(asked).tolist(), strict=True):
        counts[place] = count
    return counts


def _ranked(
    core: Core,
    symbols: NDArray[np.uint32],
    spans: list[_Candidate],
    options: TraceOptions,
) -> list[_Candidate]:
    """The spans that the density leaves, in the order of the rank."""
    if options.rank == "length":
        spans = sorted(spans, key=lambda s: (s.start - s.end, s.start))
    elif options.rank == "rarity":
        logs = unigram_logs(core, symbols)
        spans = sorted(spans, key=lambda s: (float(logs[s.start : s.end].sum()), s.start))
    if options.density is None:
        return spans
    most = math.ceil(options.density * len(symbols))
    if options.rank == "position":  # the longest stay, in their places
        longest = sorted(spans, key=lambda s: (s.start - s.end, s.start))[:most]
        return sorted(longest, key=lambda s: s.start)
    return spans[:most]


def unigram_logs(core: Core, symbols: NDArray[np.uint32]) -> NDArray[np.float64]:
    distinct, places_of = np.unique(symbols, return_inverse=True)
    counts = core.native.count_batch([distinct[i : i + 1] for i in range(len(distinct))])
    logs = np.log(np.maximum(counts, 1) / max(1, core.info.symbols + core.info.documents))
    found: NDArray[np.float64] = logs[places_of]
    return found


def _sources(
    core: Core, symbols: NDArray[np.uint32], count: int, options: TraceOptions
) -> tuple[Span, ...]:
    """All places of a span by position, or a sample of them drawn without replacement."""
    most = options.max_sources
    if most == 0:
        return ()
    length = len(symbols)
    if count <= most:
        found = list(places(core.native, symbols, length, limit=None, order="position", seed=0))
    else:
        drawn = places(core.native, symbols, length, limit=most, order="random", seed=options.seed)
        found = sorted(place for place, _ in zip(drawn, range(most), strict=False))
    known = core.text_of(symbols)
    return tuple(core.span(place, length, known) for place in found)
