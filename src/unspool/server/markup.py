"""Texts cut into the pieces that a page shows: before, match, after; marked and not marked.

Offsets are bytes until the last moment, so that a mark stands where the engine says. Control
characters, which a browser would swallow or obey, are shown as pictures of themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from unspool.index.engine import Index
from unspool.index.results import Hit
from unspool.types import Passage

_CONTROLS = {code: 0x2400 + code for code in range(0x20) if code not in (0x09, 0x0A)}
_CONTROLS |= {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
# Marks that turn the direction of what follows are shown by their numbers.
_TURNS = {code: f"[U+{code:04X}]" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_TABLE: dict[int, int | str] = {**_CONTROLS, **_TURNS}

_MOST_SOURCES = 5
_WHOLE = 200_000
"""Bytes of a text up to which all of it is shown with its evidence."""
_AROUND = 1_000


def shown(text: Any) -> str:
    """Text as it may stand in a page; escaping is the template's."""
    return str(text).replace("\r\n", "\n").translate(_TABLE)


def spaces(text: str) -> str:
    """A word with what is not seen made visible."""
    return text.strip(" ") or {" ": "␠", "": ""}.get(text, "␠" * len(text)) if text != "\n" else "⏎"


def share(count: int, most: int) -> int:
    """Length of a bar, of 100; something that is there is at least seen."""
    return max(1, round(100 * count / most)) if count and most else 0


def percent(value: float) -> str:
    return f"{100 * value:.0f}%" if value >= 0.0995 else f"{100 * value:.2g}%"


def cut(data: bytes, start: int, end: int) -> dict[str, str]:
    """Bytes as the text before, in and after a range of them."""
    return {
        "before": data[:start].decode("utf-8", "replace"),
        "text": data[start:end].decode("utf-8", "replace"),
        "after": data[end:].decode("utf-8", "replace"),
    }


def whole_characters(data: bytes, low: int, high: int, length: int) -> tuple[int, int, bytes]:
    """A window drawn in so that it neither begins nor ends inside a character."""
    first, last = 0, len(data)
    while low and first < min(4, last) and data[first] & 0xC0 == 0x80:
        first += 1
    if high < length:
        for back in range(1, min(4, last - first) + 1):
            byte = data[-back]
            if byte & 0xC0 != 0x80:
                needed = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
                last -= back if back < needed else 0
                break
    return low + first, low + last, data[first:last]


def hit(found: Hit, around: int) -> dict[str, Any]:
    """A hit with its context in three parts."""
    context = found.context.encode("utf-8", "replace")
    match = found.span.text.encode("utf-8", "replace")
    # The context begins up to three bytes later than asked, at a whole character.
    at = min(found.span.start, around)
    place = next((at - k for k in range(4) if context[at - k : at - k + len(match)] == match), at)
    return {
        **cut(context, place, place + len(match)),
        "document": found.span.document,
        "start": found.span.start,
        "end": found.span.end,
        "number": found.number,
    }


def traced(index: Index, text: str, min_length: int) -> dict[str, Any]:
    """The pieces of a text that stand in an index, and the text cut where they begin and end."""
    found = index.trace(
        text, min_length=min_length, whole_words=True, max_sources=_MOST_SOURCES, seed=0
    )
    data = text.encode()
    spans = [
        {
            "text": span.text,
            "count": span.count,
            "sources": [
                {**source.to_json(), "number": index.document_number(source.document)}
                for source in span.sources
            ],
        }
        for span in found
    ]
    ranges = [(span.start, span.end) for span in found]
    segments, covered = [], 0
    for start, end, owner in _segments(ranges, len(data)):
        if owner is not None:
            covered += end - start
        segments.append(
            {
                "text": data[start:end].decode("utf-8", "replace"),
                "span": owner,
                "shade": (owner or 0) % 2,
            }
        )
    share_of = f"{100 * covered / len(data):.0f}%" if data else "0%"
    return {"spans": spans, "segments": segments, "covered": share_of}


def _segments(ranges: Sequence[tuple[int, int]], length: int) -> list[tuple[int, int, int | None]]:
    """A text cut at the ends of spans; what lies in several belongs to the longest of them."""
    owners: list[tuple[int, int, int | None]] = []
    edges = sorted({0, length, *(edge for each in ranges for edge in each)})
    active: list[int] = []
    following = 0
    for start, end in pairwise(edges):
        while following < len(ranges) and ranges[following][0] <= start:
            active.append(following)
            following += 1
        active = [number for number in active if ranges[number][1] > start]
        owner = max(active, key=lambda n: (ranges[n][1] - ranges[n][0], -n), default=None)
        if owners and owners[-1][2] == owner:
            owners[-1] = (owners[-1][0], end, owner)
        else:
            owners.append((start, end, owner))
    return owners


def evidence(data: bytes, passages: Sequence[Passage]) -> list[dict[str, Any]]:
    """A text with its evidence marked; what lies far from any mark is left out of a long one."""
    placed = sorted(
        (passage.span.start, passage.span.end, rank) for rank, passage in enumerate(passages)
    )
    pieces: list[dict[str, Any]] = []
    at = 0
    for start, end, rank in placed:
        if start < at:
            continue  # inside the one before
        _plain(pieces, data, at, start, after=at > 0, before=True)
        pieces.append(_piece(data[start:end].decode("utf-8", "replace"), rank))
        at = end
    _plain(pieces, data, at, len(data), after=at > 0, before=False)
    return pieces


def _plain(
    pieces: list[dict[str, Any]], data: bytes, start: int, end: int, *, after: bool, before: bool
) -> None:
    """Text that was not read, or no more of it than lies near a mark."""
    if len(data) <= _WHOLE or end - start <= 3 * _AROUND:
        if start < end:
            pieces.append(_piece(data[start:end].decode("utf-8", "replace"), None))
        return
    near, far = start + (_AROUND if after else 0), end - (_AROUND if before else 0)
    while near > start and data[near] & 0xC0 == 0x80:
        near -= 1
    while far < end and data[far] & 0xC0 == 0x80:
        far += 1
    if near > start:
        pieces.append(_piece(data[start:near].decode("utf-8", "replace"), None))
    pieces.append({**_piece("", None), "skipped": far - near})
    if far < end:
        pieces.append(_piece(data[far:end].decode("utf-8", "replace"), None))


def _piece(text: str, rank: int | None) -> dict[str, Any]:
    return {"text": text, "rank": rank, "skipped": 0}
