"""Sentences and windows of a text, with exact byte offsets and nothing left out.

Sentences are contiguous: each runs to the start of the next, white space between them included, so
that joining them gives the text back byte for byte. A boundary is a terminator that does not end an
abbreviation, an initial or a list number and that no small letter follows; a terminator of a script
without spaces; a blank line; or the end of a line that is not the middle of a wrapped paragraph
(list items, headings, tables, indented or fenced code). What is longer than `longest` is divided at
white space.
Source: rules of our own; the alternatives are in the Unicode Standard Annex 29, section 5.
Cost: about 7 MB/s of short lines, more of prose; memory is the text and a thousand pieces of it.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, pairwise
from typing import Any, Literal, NamedTuple, TypeAlias

from unspool.errors import ConfigError
from unspool.types import Document, Span

Unit: TypeAlias = Literal["bytes", "words", "sentences"]
Count: TypeAlias = Callable[[Sequence[str]], Sequence[int]]
"""Sizes of some texts."""

# Ellipsis, interrobang, and the stops of Arabic, Urdu, Devanagari, Armenian and Ethiopic.
_STOPS = ".!?\u2026\u203d\u061f\u06d4\u0964\u0965\u0589\u1362"
_CLOSING = "\"'\u201d\u2019\u00bb\u203a)\\]}*_`"
# Full stop, exclamation and question mark, and closing quotes and brackets of Chinese and Japanese.
_WIDE_STOPS = "\u3002\uff01\uff1f\uff0e\uff61"
_WIDE_CLOSING = "\u300d\u300f\u201d\u2019\uff09\u3011\u300b\u3009\"'"
_OPENING = "\"'\u201c\u2018\u00ab([{*_`"
_BOUNDARY = re.compile(
    rf"(?P<stop>(?<![{_STOPS}])[{_STOPS}]++[{_CLOSING}]*+(?=\s))"
    rf"|(?P<wide>[{_WIDE_STOPS}]+[{_WIDE_CLOSING}]*)"
    r"|(?P<line>\n)"
)
_SPACES = re.compile(r"\s*")
_WORD_BEFORE = re.compile(r"[\w.&'’-]*\Z")
# fmt: off
_ABBREVIATIONS = frozenset([
    "mr", "mrs", "ms", "dr", "prof", "rev", "hon", "gen", "col", "capt", "lt", "sgt", "st",
    "sr", "jr", "messrs", "mme", "vs", "etc", "eg", "ie", "e.g", "i.e", "cf", "al", "fig",
    "figs", "eq", "eqs", "sec", "secs", "ch", "chap", "no", "nos", "vol", "vols", "pp", "p",
    "ed", "eds", "approx", "ca", "dept", "est", "inc", "ltd", "co", "corp", "bros", "jan",
    "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec", "op", "art",
    "ref", "refs", "resp", "viz", "incl", "ph.d", "bzw", "usw", "vgl", "nr", "bd",
])
# fmt: on
_ITEM = re.compile(
    r"[ \t]*(?:[-*+•‣◦·–—#|>=~`]|\(?(?:\d{1,3}|[A-Za-z])[.)]\s|:\w|\.\.\s|@|\\|</?\w)"
)
_FENCE = re.compile(r"[ \t]*(?:```|~~~)")
_INDENTED = re.compile(r"(?: {4}|\t)")
_SHORT_LINE = 48
"""A line of fewer characters that a capital follows is a heading or an item, not wrapped text."""
_BATCH = 1024


class Piece(NamedTuple):
    """A part of a text: character indices and byte offsets."""

    first: int
    last: int
    start: int
    end: int


def sentences(text: str, *, longest: int = 4096) -> list[tuple[int, int]]:
    """Byte offsets `[start, end)` of the sentences of a text; together they are all of it.

    Args:
        text: Any text.
        longest: Most bytes of a sentence (at least 4); longer ones are divided at white space, or
            between characters where there is none.
    """
    _at_least_4(longest, "longest")
    return [(p.start, p.end) for p in _pieces(text, longest, _sizes_in_bytes)]


def windows(
    document: Document,
    size: int,
    overlap: int = 0,
    unit: Unit | Count | Any = "bytes",
) -> Iterator[Span]:
    """Cut a document into windows of whole sentences, as full as they fit.

    Without overlap, joining the windows gives the document back byte for byte.

    Args:
        document: What to cut.
        size: Most units in a window. A sentence that is longer is divided.
        overlap: Most units at the end of a window that the next one begins with.
        unit: bytes, words (runs without white space), sentences, a tokenizer with `encode_batch`,
            or a function from texts to their sizes. The last two are asked sentence by sentence,
            so a window as a whole may come to a few tokens less or more.

    Raises:
        ConfigError: size < 1 (4 for bytes), or overlap outside 0..size-1.
    """
    count = _count(unit)
    if size < 1 or not 0 <= overlap < size:
        raise ConfigError(
            f"Windows need size >= 1 and 0 <= overlap < size, got size={size}, overlap={overlap}."
        )
    if unit == "bytes":
        _at_least_4(size, "size")
    held: deque[tuple[Piece, int]] = deque()
    total = 0
    for piece, cost in _counted(document.text, size, count):
        if held and total + cost > size:
            yield _span(document, held)
            # At least one piece leaves, so every window begins later than the one before.
            while held and (total > overlap or total + cost > size or not overlap):
                total -= held.popleft()[1]
        held.append((piece, cost))
        total += cost
    if held:
        yield _span(document, held)


def _span(document: Document, held: deque[tuple[Piece, int]]) -> Span:
    first, last = held[0][0], held[-1][0]
    return Span(document.id, first.start, last.end, document.text[first.first : last.last])


def _at_least_4(value: int, name: str) -> None:
    if value < 4:
        raise ConfigError(f"{name} must be at least 4 bytes, the longest character; got {value}.")


def _count(unit: Any) -> Count:
    if unit == "bytes":
        return _sizes_in_bytes
    if unit == "words":
        return lambda texts: [len(text.split()) for text in texts]
    if unit == "sentences":
        return lambda texts: [1] * len(texts)
    if hasattr(unit, "encode_batch"):
        return lambda texts: [
            len(encoding.ids) for encoding in unit.encode_batch(texts, add_special_tokens=False)
        ]
    if callable(unit):
        counter: Count = unit
        return counter
    raise ConfigError(
        "unit must be bytes, words, sentences, a tokenizer or a function that counts, "
        f"got {unit!r}."
    )


def _sizes_in_bytes(texts: Sequence[str]) -> list[int]:
    return [len(text) if text.isascii() else len(text.encode()) for text in texts]


def _pieces(text: str, size: int, count: Count) -> Iterator[Piece]:
    return (piece for piece, _ in _counted(text, size, count))


def _counted(text: str, size: int, count: Count) -> Iterator[tuple[Piece, int]]:
    """Sentences with their sizes, those above `size` divided, in batches."""
    offset = 0
    ranges = _ranges(text)
    while batch := list(islice(ranges, _BATCH)):
        texts = [text[first:last] for first, last in batch]
        for (first, _), sentence, cost in zip(batch, texts, count(texts), strict=True):
            for part, part_cost in _divide(sentence, cost, size, count):
                end = offset + (len(part) if part.isascii() else len(part.encode()))
                yield Piece(first, first + len(part), offset, end), part_cost
                first, offset = first + len(part), end


def _divide(text: str, cost: int, size: int, count: Count) -> Iterator[tuple[str, int]]:
    """Halve at the white space nearest the middle until each part fits or is one character."""
    todo = [(text, cost)]
    while todo:
        part, part_cost = todo.pop()
        if part_cost <= size or len(part) < 2:
            yield part, part_cost
            continue
        cut = _near_middle(part)
        halves = [part[:cut], part[cut:]]
        first, second = count(halves)
        todo += [(halves[1], second), (halves[0], first)]


def _near_middle(text: str) -> int:
    middle, reach = len(text) // 2, min(len(text) // 4, 1024)
    for distance in range(reach):
        for index in (middle + distance, middle - distance):
            if text[index - 1].isspace() and not text[index].isspace():
                return index
    return middle


def _ranges(text: str) -> Iterator[tuple[int, int]]:
    """Character ranges of the sentences."""
    cuts = _cuts(text)
    return ((a, b) for a, b in pairwise(_unique(0, cuts, len(text))) if a < b)


def _unique(first: int, cuts: Iterable[int], last: int) -> Iterator[int]:
    yield first
    for cut in cuts:
        if first < cut < last:
            yield cut
            first = cut
    if last:
        yield last


def _cuts(text: str) -> Iterator[int]:
    """Places where a sentence ends and the next begins, ascending; repeats are possible."""
    fenced = False
    line_start = 0
    for found in _BOUNDARY.finditer(text):
        kind, end = found.lastgroup, found.end()
        if kind == "line":
            line = text[line_start : end - 1]
            if _FENCE.match(line):
                fenced = not fenced
            next_end = text.find("\n", end)
            following = text[end : next_end if next_end >= 0 else len(text)]
            line_start = end
            if fenced or _ends_block(line, following):
                yield end
        elif kind == "wide" or _ends_sentence(text, line_start, found.start(), end):
            spaces = _SPACES.match(text, end)
            after = spaces.end() if spaces else end
            # White space that crosses lines ends at the start of the last of them, so that an
            # indent stays with its line.
            newline = text.rfind("\n", end, after)
            yield newline + 1 if newline >= 0 else after


def _ends_sentence(text: str, line_start: int, start: int, end: int) -> bool:
    """Whether the terminator at `[start, end)` ends a sentence."""
    after = end
    limit = min(len(text), end + 64)
    while after < limit and (text[after].isspace() or text[after] in _OPENING):
        after += 1
    if after < limit and text[after].islower():
        return False
    if text[start] != "." or text[start : start + 2] == "..":
        return True
    word = _WORD_BEFORE.search(text[max(line_start, start - 24) : start])
    before = word[0] if word else ""
    is_initial = len(before) == 1 and before.isalpha() and before.isupper()
    is_list_number = before.isdigit() and not text[line_start : start - len(before)].strip()
    has_dots = "." in before and all(len(part) <= 1 for part in before.split("."))
    is_short = before.lower() in _ABBREVIATIONS
    return not (is_initial or is_list_number or has_dots or is_short)


def _ends_block(line: str, following: str) -> bool:
    """Whether a line end is more than the wrapping of a paragraph."""
    bare = line.strip()
    following_bare = following.strip()
    if not bare or not following_bare:
        return bool(following_bare)  # blank lines belong to what they follow
    if _INDENTED.match(following) or _INDENTED.match(line) or _ITEM.match(following):
        return True
    if bare[-1] in ":;|" or bare[0] in "#|=~`":
        return True
    return len(bare) < _SHORT_LINE and not following_bare[0].islower()
