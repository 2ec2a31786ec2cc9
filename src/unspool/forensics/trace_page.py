"""Where each piece of a model's output comes from: a text annotated with its sources.

What: the maximal pieces of a text that one or several indexes hold word for word, the rarest
first, each with places it stands in and the text around them; as rows and as one page.
Source: "OLMoTrace" (arXiv 2504.07096), sections 3 and 4.
Departures: nothing is left out unless `density` or `max_count` says so (the service shows a
twentieth of the text's tokens as spans, with at most 10 occurrences each); documents are listed by
how much of the text they hold, not ranked by BM25; a verbatim piece shows that a text was there to
be read, not that a model took it from there.
Cost: one trace of the text, and one read of a document a source shown.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

from unspool.corpus.sources import AnyPath
from unspool.errors import ConfigError, IndexCorrupt, InputError, QueryError
from unspool.forensics.benchmark_files import short_names
from unspool.forensics.page import document, percent, section, table, text
from unspool.forensics.windows import union
from unspool.index.engine import Index
from unspool.index.open import open_index
from unspool.index.results import TraceSpan
from unspool.types import Span

_BYTES, _TOKENS = 24, 6
"""Fewest symbols of a piece, if nothing is said: about four words of prose."""
_DOCUMENTS = 20
"""Documents in the table of the page; more are counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceSettings:
    """Which pieces are shown, and how much around them."""

    min_length: int | None = None
    """Fewest symbols of a piece; None: 24 bytes, or 6 tokens."""
    max_count: int | None = None
    """Leave out pieces that occur more often."""
    density: float | None = None
    """Keep so many pieces as this share of the text's symbols."""
    rank: Literal["position", "length", "rarity"] = "rarity"
    """Order of the pieces, and what `density` keeps."""
    whole_words: bool = True
    """Pieces begin and end where words do."""
    max_sources: int = 5
    """Most places shown of each piece."""
    context: int = 200
    """Bytes of text shown on each side of a source."""
    seed: int = 42
    """Of the sample of places."""

    def __post_init__(self) -> None:
        if self.context < 0:
            raise ConfigError(f"context must be 0 or more bytes, got {self.context}.")


@dataclass(frozen=True, slots=True)
class Source:
    """One place that a piece stands in, with the text around it."""

    span: Span
    index: str
    before: str
    after: str

    def to_json(self) -> dict[str, Any]:
        return {
            **self.span.to_json(),
            "index": self.index,
            "before": self.before,
            "after": self.after,
        }


@dataclass(frozen=True, slots=True)
class TracedPiece:
    """A piece of the text, how often the corpus holds it, and places where it does."""

    start: int
    end: int
    """UTF-8 byte offsets in the text."""
    text: str
    count: int
    sources: tuple[Source, ...]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "sources": [source.to_json() for source in self.sources]}


@dataclass(frozen=True, slots=True)
class TraceReport:
    """A text and the pieces of it that were found, in the order of the rank."""

    text: str
    indexes: tuple[str, ...]
    pieces: tuple[TracedPiece, ...]
    covered_bytes: int
    bytes: int

    @property
    def covered(self) -> float:
        """Share of the text's bytes that lie in a piece."""
        return self.covered_bytes / self.bytes if self.bytes else 0.0


def trace_report(
    indexes: AnyPath | Sequence[AnyPath], traced: str, settings: TraceSettings | None = None
) -> TraceReport:
    """Trace a text.

    Args:
        indexes: Directory of an index, or several; their counts add.
        traced: The text.
        settings: What is shown; default: `TraceSettings()`.

    Raises:
        InputError: The text is empty, or an index changes texts before it looks them up.
        ConfigError: A setting cannot work.
    """
    settings = settings or TraceSettings()
    paths = [indexes] if isinstance(indexes, str | os.PathLike) else list(indexes)
    names = short_names([os.fspath(path) for path in paths])
    with ExitStack() as stack:
        index = stack.enter_context(open_index(paths))
        # Two indexes may hold documents of the same id, so each is also asked by itself.
        alone = [index] if len(paths) == 1 else [stack.enter_context(open_index(p)) for p in paths]
        return _traced(index, list(zip(names, alone, strict=True)), traced, settings)


def _traced(
    index: Index, corpora: Sequence[tuple[str, Index]], traced: str, settings: TraceSettings
) -> TraceReport:
    if not traced.strip():
        raise InputError("There is no text to trace: it is empty.")
    if index.info().settings.get("normalise"):
        raise InputError(
            "This index was built with --normalise, so its offsets are not those of the text. "
            "Trace with an index built without."
        )
    least = settings.min_length
    if least is None:
        least = _BYTES if index.info().alphabet == "bytes" else _TOKENS
    found = index.trace(
        traced,
        min_length=least,
        max_count=settings.max_count,
        whole_words=settings.whole_words,
        density=settings.density,
        rank=settings.rank,
        max_sources=settings.max_sources,
        seed=settings.seed,
    )
    pieces = tuple(_piece(corpora, span, settings.context) for span in found)
    covered = sum(end - start for start, end in union([(p.start, p.end) for p in pieces]))
    names = tuple(name for name, _ in corpora)
    return TraceReport(traced, names, pieces, covered, len(traced.encode()))


def page_of(report: TraceReport) -> bytes:
    """The page: the text with its pieces marked, then a card a piece."""
    many = len(report.pieces)
    where = text(", ".join(report.indexes))
    lead = (
        f"{many:,} piece{'s' if many != 1 else ''} of this text stand{'s' if many == 1 else ''} "
        f"word for word in {where}: {percent(report.covered)} of its bytes. Choose a marked piece "
        "to see where. That a piece stands there does not show that it was taken from there."
    )
    body = [section("The text", f'<div class="text">{_marked(report)}</div>')]
    if report.pieces:
        body.append(section("Documents", _documents(report)))
        cards = "".join(_card(n, piece) for n, piece in enumerate(report.pieces, 1))
        body.append(section("Pieces", cards))
    return document("Where this text comes from", lead, "".join(body))


def _piece(corpora: Sequence[tuple[str, Index]], span: TraceSpan, context: int) -> TracedPiece:
    sources: list[Source] = []
    for span_there in span.sources:
        # The same place of a document that several indexes hold comes up once for each of them.
        asked = {source.index for source in sources if source.span == span_there}
        left = [each for each in corpora if each[0] not in asked]
        sources.append(_source(left, span_there, context))
    return TracedPiece(span.start, span.end, span.text, span.count, tuple(sources))


def _source(corpora: Sequence[tuple[str, Index]], span: Span, context: int) -> Source:
    """A place with its surroundings, in the first index that holds just this there."""
    for name, index in corpora:
        try:
            length = index.document_length(span.document)
        except QueryError:  # no such document in this one
            continue
        low, high = max(0, span.start - context), min(span.end + context, length)
        if span.end > length:
            continue
        data = index.extract(span.document, low, high)
        quoted = data[span.start - low : span.end - low].decode("utf-8", "replace")
        if quoted == span.text:
            before = data[: span.start - low].decode("utf-8", "ignore")
            after = data[span.end - low :].decode("utf-8", "ignore")
            return Source(span, name, before, after)
    raise IndexCorrupt(
        f"The document {span.document!r} does not hold at byte {span.start:,} what the index found "
        "there. Check it with 'unspool index verify'."
    )


def _marked(report: TraceReport) -> str:
    data = report.text.encode()
    parts = []
    for start, end, owner in segments([(p.start, p.end) for p in report.pieces], len(data)):
        shown = text(data[start:end].decode("utf-8", "replace"))
        if owner is None:
            parts.append(shown)
            continue
        times = f"{report.pieces[owner].count:,} in the corpus"
        parts.append(f'<a class="m{owner % 2}" href="#p{owner + 1}" title="{times}">{shown}</a>')
    return "".join(parts)


def segments(ranges: Sequence[tuple[int, int]], length: int) -> list[tuple[int, int, int | None]]:
    """A text cut where ranges begin and end; what lies in several belongs to the first listed."""
    edges = sorted({0, length, *(edge for each in ranges for edge in each)})
    order = sorted(range(len(ranges)), key=lambda n: ranges[n][0])
    active: list[int] = []
    found: list[tuple[int, int, int | None]] = []
    following = 0
    for start, end in pairwise(edges):
        while following < len(order) and ranges[order[following]][0] <= start:
            active.append(order[following])
            following += 1
        active = [number for number in active if ranges[number][1] > start]
        owner = min(active, default=None)
        if found and found[-1][2] == owner:
            found[-1] = (found[-1][0], end, owner)
        else:
            found.append((start, end, owner))
    return found


def _documents(report: TraceReport) -> str:
    held: dict[str, list[tuple[int, int]]] = {}
    for piece in report.pieces:
        for name in {source.span.document for source in piece.sources}:
            held.setdefault(name, []).append((piece.start, piece.end))
    sizes = {name: sum(b - a for a, b in union(ranges)) for name, ranges in held.items()}
    order = sorted(held, key=lambda name: (-sizes[name], name))
    rows = [
        [text(name), f"{len(held[name]):,}", percent(sizes[name] / report.bytes)]
        for name in order[:_DOCUMENTS]
    ]
    more = len(order) - len(rows)
    note = "Of a piece with more occurrences than are shown, only the shown ones count here."
    if more:
        note += f" {more:,} more documents hold less."
    columns = ["document", "pieces", "of the text"]
    return table(columns, rows) + f'<p class="note">{note}</p>'


def _card(number: int, piece: TracedPiece) -> str:
    shown = len(piece.sources)
    times = f"{piece.count:,} occurrence{'s' if piece.count != 1 else ''}"
    told = f"{times}, {shown:,} shown" if shown < piece.count else times
    quotes = "".join(map(_quote, piece.sources))
    return (
        f'<div class="card" id="p{number}"><h3>{number}. {text(piece.text)}</h3>'
        f"<small>Bytes {piece.start:,}–{piece.end:,} of the text; {told}</small>{quotes}</div>"
    )


def _quote(source: Source) -> str:
    span = source.span
    return (
        f"<small><b>{text(span.document)}</b> of {text(source.index)}, bytes {span.start:,}–"
        f"{span.end:,}</small><blockquote>{text(source.before)}<mark>{text(span.text)}</mark>"
        f"{text(source.after)}</blockquote>"
    )
