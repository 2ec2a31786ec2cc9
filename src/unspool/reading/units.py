"""Cut a document into units: runs of whole sentences under one heading, with their byte offsets.

What: the smallest pieces that a reader picks. Units follow one another without a gap, so joining
the units of a document gives the document, and each knows the heading that it stands under.
Source: sentence-aligned passages of open-domain question answering; the heading rules are ours.
Differs from fixed windows: a unit ends before a sentence that would overfill it and before a
heading; only a sentence of more than twice the size is divided.
Cost: that of `unspool.corpus.split.sentences`, about 7 MB/s.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from unspool.corpus.split import sentences

UNIT_BYTES = 400
"""Bytes at which a unit is full."""

_UNDERLINE = re.compile(r"[ \t]*([=*\-~^#\"+])\1{2,}[ \t]*(?:\n|$)")
_MARKDOWN = re.compile(r"[ ]{0,3}#{1,6}[ \t]+\S")
_CAPITALS = re.compile(r"[A-Z][A-Z0-9 ,/()&'.-]{2,59}$")
_LONGEST_HEADING = 120


class Unit(NamedTuple):
    """Bytes `[start, end)` of a document and the heading they stand under ("" for none)."""

    start: int
    end: int
    heading: str


def units(text: str, size: int = UNIT_BYTES) -> Iterator[Unit]:
    """Units of a text of about `size` bytes, in order, without gaps; none of an empty text."""
    data = text.encode()
    pieces = sentences(text, longest=2 * size)
    heading = ""
    begin = end = 0
    here = heading
    for (start, stop), (after, after_stop) in pairwise([*pieces, (len(data), len(data))]):
        found = _heading(data[start:stop].decode(), data[after:after_stop].decode())
        if end > begin and (found or stop - begin > size):
            yield Unit(begin, end, here)
            begin = start
        if begin == start:
            heading = found or heading
            here = heading
        end = stop
    if end > begin:
        yield Unit(begin, end, here)


def _heading(piece: str, following: str) -> str:
    """The heading that a sentence is: underlined by the next, `#`, or a line of capitals."""
    lines = piece.strip("\n").split("\n", 2)
    first = lines[0].strip()
    if not first or len(first) > _LONGEST_HEADING or _UNDERLINE.match(lines[0]):
        return ""
    if _UNDERLINE.match(lines[1] if len(lines) > 1 else following):
        return first
    if _MARKDOWN.match(lines[0]):
        return first.strip("# \t")
    return first if len(lines) == 1 and _CAPITALS.match(first) else ""
