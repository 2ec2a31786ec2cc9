"""A text of one or many documents as one string, whose every piece knows where it stands.

Offsets inside are characters of the joined string; spans that leave are UTF-8 byte offsets of the
document they quote. Documents are joined by a blank line, which belongs to none of them.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path

from unspool.errors import InputError
from unspool.types import Document, Passage, Span

_BETWEEN = "\n\n"
Context = str | os.PathLike[str] | Iterable[str] | Iterable[Document]


class LongText:
    """The joined text and the way back from it."""

    def __init__(self, context: Context) -> None:
        """Join a text.

        Args:
            context: A text (its document is called "context"), a file, pieces of one text, or
                documents.

        Raises:
            InputError: There is no text.
        """
        self.documents = _documents(context)
        self.starts: list[int] = []
        at = 0
        for document in self.documents:
            self.starts.append(at)
            at += len(document.text) + len(_BETWEEN)
        self.text = _BETWEEN.join(document.text for document in self.documents)
        if not self.text.strip():
            raise InputError("The text is empty: there is nothing to read.")
        self._bytes: dict[int, tuple[int, int]] = {}

    def spans(self, start: int, end: int) -> list[Span]:
        """What characters [start, end) quote: one span a document that they touch."""
        found = []
        number = max(0, bisect_right(self.starts, start) - 1)
        while number < len(self.documents) and self.starts[number] < end:
            document, begin = self.documents[number], self.starts[number]
            first = min(max(start - begin, 0), len(document.text))
            last = min(end - begin, len(document.text))
            if last > first:
                text = document.text[first:last]
                offset = self._offset(number, first)
                found.append(Span(document.id, offset, offset + len(text.encode()), text))
            number += 1
        return found

    def passages(self, pieces: Iterable[tuple[int, int, float]]) -> tuple[Passage, ...]:
        """(start, end, score) of characters as passages, in the order given."""
        return tuple(
            Passage(span, score)
            for first, last, score in pieces
            for span in self.spans(first, last)
        )

    def _offset(self, number: int, character: int) -> int:
        """Bytes before a character of a document; counts on from the last place asked about."""
        known, offset = self._bytes.get(number, (0, 0))
        text = self.documents[number].text
        if character >= known:
            offset += len(text[known:character].encode())
        else:
            offset = len(text[:character].encode())
        self._bytes[number] = (character, offset)
        return offset


def _documents(context: Context) -> list[Document]:
    if isinstance(context, str):
        return [Document("context", context)]
    if isinstance(context, os.PathLike):
        path = Path(context)
        # Read as bytes: offsets hold in the file itself, whatever its line ends.
        return [Document(path.name, path.read_bytes().decode("utf-8"))]
    pieces = list(context)
    if pieces and all(isinstance(piece, Document) for piece in pieces):
        return [piece for piece in pieces if isinstance(piece, Document)]
    return [Document("context", "".join(str(piece) for piece in pieces))]
