"""The pieces of a text that are looked up: `size` characters long, a word or so many apart.

Source: "Infini-gram mini" (arXiv 2506.12229), section 5: substrings of 50 characters at a stride
of one word.
Departures: a word starts where a run of white space ends, and the first window at position 0; a
number in place of "word" is a stride in characters, for scripts that put no blanks between words.
Only whole windows count.
Cost: one pass over the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

Stride: TypeAlias = Literal["word"] | int

_BLANKS = re.compile(r"\s+")


def window_starts(text: str, size: int, stride: Stride) -> list[int]:
    """Where the windows of a text start, in characters; none if the text is shorter than one."""
    last = len(text) - size
    if last < 0:
        return []
    if isinstance(stride, int):
        return list(range(0, last + 1, stride))
    starts = {0, *(match.end() for match in _BLANKS.finditer(text, 0, last + 1))}
    # A run of blanks that goes on past `last` was cut there, and is not at its end.
    return sorted(s for s in starts if s <= last and (s == 0 or not text[s].isspace()))


def byte_offsets(text: str, places: Sequence[int]) -> list[int]:
    """UTF-8 byte offsets of places given in characters, in rising order."""
    if text.isascii():
        return list(places)
    found, at, offset = [], 0, 0
    for place in places:
        offset += len(text[at:place].encode())
        at = place
        found.append(offset)
    return found


def union(pieces: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges joined where they overlap or touch, in order."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(pieces):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
