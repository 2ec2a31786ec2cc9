"""What questions to an index are answered with. Each result has the JSON form of the commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unspool.types import Span


@dataclass(frozen=True, slots=True)
class Hit:
    """One occurrence, with the text around it."""

    span: Span
    context: str
    """The occurrence and its surroundings; cut inward to whole characters."""
    number: int
    """The number of the document in the index."""

    def to_json(self) -> dict[str, Any]:
        return {**self.span.to_json(), "context": self.context}


@dataclass(frozen=True, slots=True)
class NextSymbol:
    """One symbol that follows a prompt."""

    symbol: int
    """Byte value or token id; -1 is the end of a document."""
    text: str
    """What the symbol spells; U+FFFD for a byte that is no character by itself."""
    count: int
    prob: float
    suffix_length: int
    """Symbols of the prompt that the count is of."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Distribution:
    """Everything that follows a prompt in the corpus, most frequent first."""

    prompt_count: int
    """Occurrences of the prompt, or of its suffix that was used."""
    suffix_length: int
    symbols: tuple[NextSymbol, ...]
    distinct: int
    """How many different symbols follow; more than are listed if `top` was given."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "symbols": [s.to_json() for s in self.symbols]}


class NextCounts(NamedTuple):
    """What follows a prompt as arrays, for programs that need the whole distribution."""

    suffix_length: int
    """Symbols of the prompt that the counts are of."""
    prompt_count: int
    symbols: NDArray[np.int64]
    """Ascending; -1 is the end of a document."""
    counts: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Probability:
    """How often a continuation follows a prompt."""

    prompt_count: int
    count: int
    prob: float | None
    """None where the prompt does not occur, since nothing follows it."""
    suffix_length: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Matches:
    """For each start in a text, the longest piece from there that occurs in the corpus."""

    lengths: NDArray[np.int64]
    """In symbols, one a start."""
    counts: NDArray[np.int64]
    """Occurrences where the match is not inside the one before it, else -1."""

    def longest(self) -> tuple[int, int]:
        """Start and end (in symbols) of the longest match of all, the first of equals."""
        if not len(self.lengths):
            return 0, 0
        start = int(np.argmax(self.lengths))
        return start, start + int(self.lengths[start])

    def to_json(self) -> dict[str, Any]:
        return {"lengths": self.lengths.tolist(), "counts": self.counts.tolist()}


@dataclass(frozen=True, slots=True)
class TraceSpan:
    """A piece of a text that occurs in the corpus and in no longer piece that does."""

    start: int
    end: int
    """UTF-8 byte offsets in the text traced."""
    text: str
    count: int
    sources: tuple[Span, ...]
    """Where it occurs: all places, or a sample of them."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "sources": [s.to_json() for s in self.sources]}


@dataclass(frozen=True, slots=True)
class CnfResult:
    """Where all clauses are met close together."""

    count: int
    """Minimal intervals; an estimate unless `exact`."""
    hits: tuple[Hit, ...]
    exact: bool
    low: int
    high: int
    """Bounds: equal to `count` if exact, else a 95% interval."""

    def to_json(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "exact": self.exact,
            "low": self.low,
            "high": self.high,
            "hits": [hit.to_json() for hit in self.hits],
        }


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """Whether every byte of an index is what was written."""

    ok: bool
    errors: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "errors": list(self.errors)}


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """What an index holds."""

    documents: int
    symbols: int
    bytes_text: int
    bytes_index: int
    alphabet: str
    tier: str
    """The tier that answers."""
    tiers: tuple[str, ...]
    """The tiers that were built."""
    shards: int
    settings: Mapping[str, Any]
    notes: tuple[str, ...]
    seconds: float | None
    """What the last run of the build took; None where that is not known."""
    peak_bytes: int | None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "tiers": list(self.tiers), "notes": list(self.notes)}
