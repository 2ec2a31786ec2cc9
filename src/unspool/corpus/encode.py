"""Between characters and bytes: offsets both ways, ends that fall inside a character, quoting.

Cost: ASCII text needs no table; other text one pass and one number a 256 characters, and then a
    lookup decodes at most 256 characters.
"""

from __future__ import annotations

from bisect import bisect_right

from unspool.errors import ConfigError
from unspool.types import Span

_STEP = 256


class ByteOffsets:
    """Character index to UTF-8 byte offset of one text, and back."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._length = len(text)
        self._table: list[int] | None = None
        self._size = len(text)
        if not text.isascii():
            self._table = [0]
            for start in range(0, len(text), _STEP):
                self._table.append(self._table[-1] + len(text[start : start + _STEP].encode()))
            self._size = self._table[-1]

    @property
    def size(self) -> int:
        """Bytes of the whole text."""
        return self._size

    def byte(self, index: int) -> int:
        """Byte offset of the character at `index` (of the end, if it is the length)."""
        if not 0 <= index <= self._length:
            raise ConfigError(f"Character {index} is not in 0..{self._length}.")
        if self._table is None:
            return index
        block, inside = divmod(index, _STEP)
        start = block * _STEP
        return self._table[block] + len(self._text[start : start + inside].encode())

    def char(self, offset: int) -> int:
        """Index of the character that the byte at `offset` belongs to (the length, at the end)."""
        if not 0 <= offset <= self._size:
            raise ConfigError(f"Byte {offset} is not in 0..{self._size}.")
        if self._table is None or offset == self._size:
            return offset if self._table is None else self._length
        block = bisect_right(self._table, offset) - 1
        start = block * _STEP
        data = self._text[start : start + _STEP].encode()
        # Every byte that is not a continuation byte starts a character.
        return start + _characters(data[: offset - self._table[block] + 1]) - 1


def snap_inward(data: bytes, start: int, end: int) -> tuple[int, int]:
    """The largest part of `[start, end)` that begins and ends between characters of valid UTF-8."""
    if not 0 <= start <= end <= len(data):
        raise ConfigError(f"[{start}, {end}) is not inside the {len(data)} bytes of the text.")
    while start < end and _inside(data, start):
        start += 1
    while end > start and _inside(data, end):
        end -= 1
    return start, end


def quote(data: bytes, start: int, end: int) -> str:
    """The text of a byte range, U+FFFD where it begins or ends inside a character."""
    return data[start:end].decode("utf-8", "replace")


def span(document: str, data: bytes, start: int, end: int) -> Span:
    """A byte range of a document as a Span."""
    return Span(document, start, end, quote(data, start, end))


def _inside(data: bytes, offset: int) -> bool:
    return offset < len(data) and data[offset] & 0xC0 == 0x80


_CONTINUATION = bytes(range(0x80, 0xC0))


def _characters(data: bytes) -> int:
    return len(data.translate(None, _CONTINUATION))
