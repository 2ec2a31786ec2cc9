"""Sentences of a text as runs of its tokens: what a reader keeps or drops as one.

What: cuts each document into sentences and says which tokens begin in each; what is longer than a
limit is divided before a token that begins with white space.
Source: the sentence rules are those of `unspool.corpus.split`.
Differs from splitting the text and encoding the pieces: tokens are those of the whole text.
Cost: one pass over the text and its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from unspool.corpus.split import sentences
from unspool.reading.long_text import LongText


class Sentence(NamedTuple):
    """Tokens [first, last) and the characters [start, end) that they stand for."""

    first: int
    last: int
    start: int
    end: int

    @property
    def tokens(self) -> int:
        return self.last - self.first


def token_sentences(
    text: LongText, offsets: Sequence[tuple[int, int]], most: int
) -> list[Sentence]:
    """The sentences of a text, in order; together they hold every token once.

    Args:
        text: One or many documents; no sentence is of two.
        offsets: Characters [start, end) of every token of the joined text, ascending.
        most: Most tokens of a sentence.
    """
    found: list[Sentence] = []
    token = 0
    bounds = [*_starts(text), len(text.text)]
    for end in bounds[1:]:
        first = token
        while token < len(offsets) and (offsets[token][0] < end or end == bounds[-1]):
            token += 1
        found += _divided(text.text, offsets, first, token, most)
    return found


def _starts(text: LongText) -> list[int]:
    """The character that each sentence begins at."""
    out: list[int] = []
    for document, begin in zip(text.documents, text.starts, strict=True):
        data, at = document.text.encode(), begin
        for start, end in sentences(document.text):
            out.append(at)
            at += len(data[start:end].decode())
    if not out or out[0] != 0:
        out.insert(0, 0)
    return out


def _divided(
    text: str, offsets: Sequence[tuple[int, int]], first: int, last: int, most: int
) -> list[Sentence]:
    out = []
    while first < last:
        cut = last
        if last - first > most:
            cut = first + most
            for place in range(cut, first + most // 2, -1):
                if text[offsets[place][0] : offsets[place][0] + 1].isspace():
                    cut = place
                    break
        start, end = offsets[first][0], offsets[cut - 1][1]
        out.append(Sentence(first, cut, *_trimmed(text, start, end)))
        first = cut
    return out


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Without white space at its ends; nothing but white space is left empty."""
    while end > start and text[end - 1].isspace():
        end -= 1
    while start < end and text[start].isspace():
        start += 1
    return start, end
