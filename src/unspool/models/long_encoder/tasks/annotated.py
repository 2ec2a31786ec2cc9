"""Entities that a released corpus gives by characters: checked against the text, made disjoint.

What: an annotation that does not stand where its file says is looked for nearby, one that overlaps
a longer one is left out, and everything that was not taken as it stands is counted with its place.
Source: none; the rules are ours, after the faults that loaders of i2b2's releases name.
Differs from those loaders: they pass over such annotations, or over the whole file, in silence.
Cost: linear in the text for each annotation that is not where it is said to be.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from unspool.errors import InputError
from unspool.models.long_encoder.tasks.examples import Example, tags_of

_NEAR = 200
"""Characters between where an annotation should be and where it is looked for."""
_ENTITY = re.compile(r"&(?:(amp|lt|gt|quot|apos)|#(\d{1,7})|#x([0-9a-fA-F]{1,6}));")
_NAMED = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}


class Annotation(NamedTuple):
    """A piece of a text and what it is, as a file says."""

    start: int
    end: int
    label: str
    quote: str | None = None
    """What the file says stands there; None: it does not say."""


class Notes:
    """What was not read as it stands, by kind: how often, and where first."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, str]] = {}

    def add(self, what: str, where: str, count: int = 1) -> None:
        """One more case, or several."""
        known, first = self._found.get(what, (0, where))
        self._found[what] = known + count, first

    def lines(self) -> tuple[str, ...]:
        """A sentence a kind."""
        return tuple(
            f"{what}: {count:,}, the first in {where}"
            for what, (count, where) in self._found.items()
        )


def unescape(text: str) -> str:
    """XML's five named references and numbered ones as characters; others stay."""

    def character(match: re.Match[str]) -> str:
        name, decimal, hexadecimal = match.groups()
        if name:
            return _NAMED[name]
        code = int(decimal) if decimal else int(hexadecimal, 16)
        valid = code < 0x110000 and not 0xD800 <= code < 0xE000
        return chr(code) if valid else match.group()

    return _ENTITY.sub(character, text)


def place(text: str, words: str, near: int, reach: int | None = None) -> tuple[int, int] | None:
    """The occurrence of some words that is nearest to a character; blanks between them may differ.

    Args:
        text: To look in.
        words: To look for, in any case.
        near: Character.
        reach: Characters to either side to look in; None: everywhere.
    """
    parts = words.split()
    if not parts:
        return None
    first, last = 0, len(text)
    if reach is not None:
        first, last = max(0, near - reach), min(last, near + reach + len(words))
    pattern = re.compile(r"\s+".join(map(re.escape, parts)), re.IGNORECASE)
    spans = [match.span() for match in pattern.finditer(text, first, last)]
    return min(spans, key=lambda span: abs(span[0] - near), default=None)


def checked(
    text: str, annotations: Sequence[Annotation], where: str, notes: Notes
) -> list[tuple[int, int, str]]:
    """Annotations that the text bears out, disjoint, in order.

    Raises:
        InputError: Most of them are not in the text: it is another text.
    """
    found: list[tuple[int, int, str]] = []
    lost: list[Annotation] = []
    for each in annotations:
        if not each.label.strip():
            notes.add("annotations without a type, left out", where)
            continue
        span: tuple[int, int] | None = (each.start, each.end)
        inside = 0 <= each.start < each.end <= len(text)
        quoted = text[each.start : each.end] if inside else ""
        if not inside or not quoted.strip() or not _same(quoted, each.quote):
            span = place(text, unescape(each.quote or ""), each.start, _NEAR)
            if span is not None:
                notes.add("annotations that stand near where they should, moved", where)
        if span is None:
            lost.append(each)
        else:
            found.append((*span, each.label))
    if len(lost) > len(found):
        said = repr(lost[0].quote) if lost[0].quote else f"the one at character {lost[0].start:,}"
        raise InputError(
            f"{where}: {len(lost):,} of {len(lost) + len(found):,} annotations are not in the "
            f"text, the first is {said}. Is it the text that they were made for?"
        )
    if lost:
        notes.add("annotations that are not in the text, left out", where, len(lost))
    return _disjoint(found, where, notes)


def _same(one: str, other: str | None) -> bool:
    return other is None or _plain(one) == _plain(other)


def _plain(text: str) -> str:
    return " ".join(unescape(text).split()).casefold()


def _disjoint(
    found: Sequence[tuple[int, int, str]], where: str, notes: Notes
) -> list[tuple[int, int, str]]:
    kept: list[tuple[int, int, str]] = []
    # the longest first, then the earliest; the same one twice is one
    for start, end, label in sorted(set(found), key=lambda e: (e[0] - e[1], e)):
        if any(start < stop and end > first for first, stop, _ in kept):
            notes.add("annotations that overlap a longer one, left out", where)
        else:
            kept.append((start, end, label))
    return sorted(kept)


def tagged(
    name: str,
    text: str,
    words: Sequence[tuple[int, int]],
    annotations: Sequence[Annotation] | None,
    where: str,
    notes: Notes,
) -> Example:
    """A record with tags; None for annotations: they are not known.

    A word that two entities share is cut where they meet.
    """
    if annotations is None:
        return Example(id=name, text=text, words=tuple(words))
    entities = checked(text, annotations, where, notes)
    parts = _cut(words, entities)
    return Example(id=name, text=text, words=parts, labels=tags_of(parts, entities, name))


def _cut(
    words: Sequence[tuple[int, int]], entities: Sequence[tuple[int, int, str]]
) -> tuple[tuple[int, int], ...]:
    starts = [first for first, _ in words]
    edges: dict[int, set[int]] = {}
    owners: dict[int, int] = {}
    for start, end, _ in entities:
        number = max(0, bisect_right(starts, start) - 1)
        while number < len(words) and words[number][0] < end:
            if words[number][1] > start:
                owners[number] = owners.get(number, 0) + 1
                edges.setdefault(number, set()).update((start, end))
            number += 1
    out: list[tuple[int, int]] = []
    for number, (first, last) in enumerate(words):
        inner = []
        if owners.get(number, 0) > 1:
            inner = sorted(edge for edge in edges[number] if first < edge < last)
        out += pairwise([first, *inner, last])
    return tuple(out)
