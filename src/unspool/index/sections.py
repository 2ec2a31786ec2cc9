"""What an index keeps beside its symbols: ids and metadata, a table of ids, text, token offsets.

Each is an opaque section of a shard file, little-endian, read in small checked pieces.

- `docs`: one JSON line a document, `[id]` or `[id, meta]`, in zstd frames of about 64 KiB.
- `ids`: the upper 32 bits of each id's digest, sorted, then the document that each belongs to.
- `text`: the documents' bytes one after the other, in zstd frames of 64 KiB, and `textpos`: where
  each document starts in them.
- `toff`: of a token index, the byte offset of every 256th token of each document.
- `origin`: digest of the settings and pieces that the shard was built from.

Frames lie behind a table: `u64` number of frames F, `u64` first item of each frame (F + 1 values,
the last is the total), `u64` offset of each frame behind the table (F + 1 values).

Cost: about 8 bytes a document for `ids`, 5-20 for `docs`; 4 bytes every 256 tokens for `toff`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import zstandard
from numpy.typing import NDArray

FRAME_SIZE = 1 << 16
"""Raw bytes a frame holds before it is closed."""

TOKEN_STRIDE = 256
"""One token offset is kept in so many."""

LEVEL = 3
"""The zstd level: higher ones gain little on frames of this size."""


class Frames(NamedTuple):
    """Compressed frames: the bytes, the size of each, and how many items begin in each."""

    data: bytes
    sizes: NDArray[np.uint64]
    items: NDArray[np.uint64]


class FrameWriter:
    """Collects lines (or any bytes) and compresses them by the frame."""

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True)
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._frames: list[bytes] = []
        self._items: list[int] = []

    def add_line(self, line: bytes) -> None:
        """Append one line whole: a frame ends only between two lines."""
        self._pending.append(line)
        self._pending_bytes += len(line)
        if self._pending_bytes >= FRAME_SIZE:
            self._close(len(self._pending))

    def add_bytes(self, data: bytes) -> None:
        """Append bytes that a frame may cut anywhere; the items of its frames are bytes."""
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes < FRAME_SIZE:
            return
        joined = b"".join(self._pending)
        whole = len(joined) // FRAME_SIZE * FRAME_SIZE
        for start in range(0, whole, FRAME_SIZE):
            self._frames.append(self._compressor.compress(joined[start : start + FRAME_SIZE]))
            self._items.append(FRAME_SIZE)
        self._pending = [joined[whole:]]
        self._pending_bytes = len(joined) - whole

    def finish(self, *, lines: bool) -> Frames:
        """Close the last frame and hand everything over."""
        if self._pending_bytes:
            self._close(len(self._pending) if lines else self._pending_bytes)
        return Frames(
            b"".join(self._frames),
            np.array([len(f) for f in self._frames], dtype=np.uint64),
            np.array(self._items, dtype=np.uint64),
        )

    def _close(self, items: int) -> None:
        self._frames.append(self._compressor.compress(b"".join(self._pending)))
        self._items.append(items)
        self._pending, self._pending_bytes = [], 0


def framed(pieces: Iterable[Frames]) -> bytes:
    """The frames of several pieces as one section."""
    frames = list(pieces)
    sizes = np.concatenate([f.sizes for f in frames] or [np.empty(0, np.uint64)])
    items = np.concatenate([f.items for f in frames] or [np.empty(0, np.uint64)])
    return b"".join(
        [
            np.uint64(len(sizes)).tobytes(),
            starts(items).tobytes(),
            starts(sizes).tobytes(),
            *(f.data for f in frames),
        ]
    )


def starts(lengths: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Where each of several consecutive things starts, and where the last one ends."""
    out = np.zeros(len(lengths) + 1, dtype="<u8")
    np.cumsum(lengths, out=out[1:])
    return out


def id_digest(identifier: str) -> int:
    """64 bits that stand for an id."""
    raw = hashlib.blake2b(identifier.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(raw, "little")


def id_table(digests: NDArray[np.uint64]) -> bytes:
    """The section that finds a document by its id."""
    keys: NDArray[np.uint32] = (digests >> np.uint64(32)).astype("<u4")
    order: NDArray[np.uint32] = np.argsort(keys, kind="stable").astype("<u4")
    return keys[order].tobytes() + order.tobytes()


def token_marks(lengths: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """How many offsets are kept of documents of so many tokens: those of token 256, 512, …"""
    marks: NDArray[np.uint64] = np.maximum(lengths, 1).astype(np.uint64)
    return (marks - np.uint64(1)) // np.uint64(TOKEN_STRIDE)


def token_offsets(lengths: NDArray[np.uint64], values: NDArray[np.uint64]) -> bytes:
    """The section of token offsets, from the tokens of each document and all their marks."""
    width = 8 if len(values) and int(values.max()) >= 1 << 32 else 4
    head: bytes = np.array([len(lengths), width], dtype="<u8").tobytes()
    base: bytes = starts(token_marks(lengths)).astype("<u4").tobytes()
    offsets: bytes = values.astype(f"<u{width}").tobytes()
    return head + base + offsets
