"""Read what an index keeps beside its symbols (the sections of `sections.py`), piece by piece.

Everything read is bounds-checked: a section that contradicts itself raises IndexCorrupt.
Cost: a document's id and metadata cost one frame of 64 KiB, and the last few frames are kept.
"""

from __future__ import annotations

import struct
import threading
from collections import OrderedDict
from typing import Any, Protocol, runtime_checkable

import numpy as np
import orjson
import zstandard
from numpy.typing import NDArray

from unspool.errors import IndexCorrupt
from unspool.index.sections import TOKEN_STRIDE, id_digest

_KEPT_FRAMES = 8
_KEPT_LINES = 32
_LARGEST_FRAME = 1 << 31


@runtime_checkable
class Sections(Protocol):
    """Where sections are read from."""

    def section(self, shard: int, name: str, start: int = 0, end: int | None = None) -> bytes: ...


class _Section:
    """One section of one shard."""

    def __init__(self, source: Sections, shard: int, name: str) -> None:
        self._source, self._shard, self.name = source, shard, name

    def read(self, start: int, end: int) -> bytes:
        data = self._source.section(self._shard, self.name, start, end)
        if len(data) != end - start:
            raise self.corrupt(f"it ends before byte {end:,}")
        return data

    def numbers(self, start: int, count: int, kind: str = "<u8") -> NDArray[Any]:
        width = np.dtype(kind).itemsize
        return np.frombuffer(self.read(start, start + count * width), dtype=kind)

    def corrupt(self, why: str) -> IndexCorrupt:
        return IndexCorrupt(
            f"Section {self.name} of shard {self._shard} is damaged: {why}. Run "
            "`unspool index verify`, and build the index again if it reports errors."
        )


class _Frames:
    """A section of compressed frames behind a table of what each holds."""

    def __init__(self, section: _Section) -> None:
        self._section = section
        (count,) = struct.unpack("<Q", section.read(0, 8))
        if count > 1 << 40:
            raise section.corrupt(f"{count:,} frames")
        table = section.numbers(8, 2 * (count + 1))
        self.first = table[: count + 1]
        self._offsets = table[count + 1 :] + np.uint64(8 + 16 * (count + 1))
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def total(self) -> int:
        return int(self.first[-1])

    def frame_of(self, item: int) -> int:
        """The frame in which an item begins."""
        return int(self.first.searchsorted(np.uint64(item), side="right")) - 1

    def frame(self, number: int) -> bytes:
        """The bytes of one frame, unpacked."""
        with self._lock:
            return self._frame(number)

    def _frame(self, number: int) -> bytes:
        kept = self._kept.get(number)
        if kept is not None:
            self._kept.move_to_end(number)
            return kept
        start, end = int(self._offsets[number]), int(self._offsets[number + 1])
        packed = self._section.read(start, end) if start <= end else b""
        try:
            if not 0 <= zstandard.frame_content_size(packed) < _LARGEST_FRAME:
                raise self._section.corrupt(f"frame {number:,} has no sound size")
            data = zstandard.ZstdDecompressor().decompress(packed)
        except zstandard.ZstdError as error:
            raise self._section.corrupt(f"frame {number:,} does not unpack") from error
        self._kept[number] = data
        if len(self._kept) > _KEPT_FRAMES:
            self._kept.popitem(last=False)
        return data


class DocumentTable:
    """Ids and metadata of the documents of one shard."""

    def __init__(self, source: Sections, shard: int) -> None:
        self._section = _Section(source, shard, "docs")
        self._frames = _Frames(self._section)
        self._ids = _Section(source, shard, "ids")
        self._lines: OrderedDict[int, list[bytes]] = OrderedDict()

    @property
    def documents(self) -> int:
        return self._frames.total

    def describe(self, document: int) -> tuple[str, dict[str, Any]]:
        """The id and metadata of a document, by its number in the shard."""
        frame = self._frames.frame_of(document)
        lines = self._lines.get(frame)
        if lines is None:
            lines = self._frames.frame(frame).splitlines()
            self._lines[frame] = lines
            if len(self._lines) > _KEPT_LINES:
                self._lines.pop(next(iter(self._lines)), None)
        place = document - int(self._frames.first[frame])
        try:
            value = orjson.loads(lines[place])
            identifier, meta = value[0], value[1] if len(value) > 1 else {}
            if not (isinstance(identifier, str) and isinstance(meta, dict)):
                raise ValueError
        except (IndexError, ValueError, KeyError, TypeError) as error:
            raise self._section.corrupt(f"no line for document {document:,}") from error
        return identifier, meta

    def find(self, identifier: str) -> int | None:
        """The number of the document with this id, or None."""
        total = self.documents
        key = id_digest(identifier) >> 32
        low, keys = self._near(key, total)
        start, end = np.searchsorted(keys, key, "left"), np.searchsorted(keys, key, "right")
        places = self._ids.numbers(4 * (total + low + int(start)), int(end - start), "<u4")
        for place in places.tolist():
            if place < total and self.describe(place)[0] == identifier:
                return int(place)
        return None

    def _near(self, key: int, total: int) -> tuple[int, NDArray[np.uint32]]:
        """A short range of the sorted keys that holds every copy of `key` there is, and where it
        starts. Digests are spread evenly, so it is near where perfectly spread ones would be."""
        guess, reach = key * total >> 32, 64
        while True:
            low, high = max(0, guess - reach), min(total, guess + reach)
            keys = self._ids.numbers(4 * low, high - low, "<u4")
            below = low == 0 or int(keys[0]) < key
            above = high == total or int(keys[-1]) > key
            if below and above:
                return low, keys
            reach *= 4


class TextStore:
    """The compressed text of one shard."""

    def __init__(self, source: Sections, shard: int) -> None:
        self._frames = _Frames(_Section(source, shard, "text"))
        self._positions = _Section(source, shard, "textpos")

    def length(self, document: int) -> int:
        start, end = self._positions.numbers(8 * document, 2).tolist()
        if not 0 <= start <= end <= self._frames.total:
            raise self._positions.corrupt(f"document {document:,} lies outside the text")
        return int(end - start)

    def read(self, document: int, start: int, end: int) -> bytes:
        """Bytes [start, end) of a document; the caller keeps them inside it."""
        base = int(self._positions.numbers(8 * document, 1)[0])
        at, stop = base + start, base + end
        parts = []
        frame = self._frames.frame_of(at)
        while at < stop:
            first = int(self._frames.first[frame])
            part = self._frames.frame(frame)[at - first : stop - first]
            if not part:
                raise self._positions.corrupt(f"document {document:,} lies outside the text")
            parts.append(part)
            at += len(part)
            frame += 1
        return b"".join(parts)


class TokenOffsets:
    """The byte offset of every 256th token of each document of one shard."""

    def __init__(self, source: Sections, shard: int) -> None:
        self._section = _Section(source, shard, "toff")
        documents, width = struct.unpack("<QQ", self._section.read(0, 16))
        if width not in (4, 8):
            raise self._section.corrupt(f"offsets of {width} bytes")
        self._kind = f"<u{width}"
        self._width = width
        self._values = 16 + 4 * (documents + 1)

    def _range(self, document: int) -> tuple[int, int]:
        start, end = self._section.numbers(16 + 4 * document, 2, "<u4").tolist()
        if start > end:
            raise self._section.corrupt(f"document {document:,} has no offsets")
        return start, end

    def before_token(self, document: int, token: int) -> tuple[int, int]:
        """The nearest token at or before this one whose offset is kept, and that offset."""
        mark = token // TOKEN_STRIDE
        if mark == 0:
            return 0, 0
        start, end = self._range(document)
        mark = min(mark, end - start)
        if mark == 0:
            return 0, 0
        at = self._values + self._width * (start + mark - 1)
        return mark * TOKEN_STRIDE, int(self._section.numbers(at, 1, self._kind)[0])

    def before_byte(self, document: int, offset: int) -> tuple[int, int]:
        """The last token with a kept offset that starts at or before a byte, and its offset."""
        start, end = self._range(document)
        low, high, found = start, end, 0
        while low < high:
            middle = (low + high) // 2
            at = self._values + self._width * middle
            value = int(self._section.numbers(at, 1, self._kind)[0])
            if value <= offset:
                low, found = middle + 1, value
            else:
                high = middle
        return (low - start) * TOKEN_STRIDE, found
