"""Bytes of a file or of standard input, decompressed as they are read.

Source: RFC 1952 (gzip, several members), RFC 8878 (Zstandard, several and skippable frames).
Cost: zstd about 2.5 GB/s and gzip about 300 MB/s of output; memory is bounded also for an archive
    made to expand: at most 16 MiB more than what is asked for.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, cast

import zstandard

from unspool.corpus.sources import SourceFile
from unspool.errors import InputError

Read = Callable[[int], bytes]
"""Returns about so many bytes, at least one, or none at the end."""

_BLOCK = 1 << 20
_ZSTD_INPUT = 512  # a 4-byte block can stand for 128 KiB, so this can become 16 MiB


@contextmanager
def open_stream(source: SourceFile, count: Callable[[int], None]) -> Iterator[Read]:
    """Open a source for reading; `count` is told of the bytes taken from disk."""
    try:
        raw = _open(source)
    except OSError as error:
        raise InputError(f"{source.path!r} cannot be read: {error.strerror or error}.") from error
    counted = _Counted(raw, count)
    with raw:
        if source.compression == "gz":
            yield _guard(source, _gzip(counted))
        elif source.compression == "zst":
            yield _guard(source, _Zstd(counted).read)
        else:
            yield _guard(source, counted.read)


def read_all(read: Read, limit: int, what: str, expected: int = _BLOCK) -> bytes:
    """Everything a stream holds, or InputError as soon as it is more than `limit` bytes."""
    parts: list[bytes] = []
    total = 0
    while part := read(max(1, expected + 1 - total) if total <= expected else _BLOCK):
        total += len(part)
        if total > limit:
            raise too_long(what, limit)
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def too_long(what: str, limit: int, size: int | None = None) -> InputError:
    is_long = "is longer than" if size is None else f"has {size:,} bytes, more than"
    return InputError(
        f"{what} {is_long} the {limit:,} bytes that one document may have. "
        "Raise max_document (--max-document) or split the document."
    )


def _open(source: SourceFile) -> IO[bytes]:
    if source.path == "-":
        return open(0, "rb", buffering=0, closefd=False)
    return open(source.path, "rb", buffering=0)


class _Counted:
    def __init__(self, raw: IO[bytes], count: Callable[[int], None]) -> None:
        self._raw, self._count = raw, count

    def read(self, size: int = -1) -> bytes:
        data = self._raw.read(size)
        self._count(len(data))
        return data


def _gzip(raw: _Counted) -> Read:
    archive = gzip.GzipFile(mode="rb", fileobj=cast("IO[bytes]", raw))  # it only calls read()
    return archive.read


class _Zstd:
    """python-zstandard's own reader takes a file that ends inside a frame for a whole one."""

    def __init__(self, raw: _Counted) -> None:
        self._raw = raw
        self._buffer, self._position = b"", 0
        self._frame: zstandard.ZstdDecompressionObj | None = None

    def read(self, size: int) -> bytes:
        parts: list[bytes] = []
        have = 0
        while have < size and self._fill():
            part = self._step()
            have += len(part)
            parts.append(part)
        return b"".join(parts)

    def _fill(self) -> bool:
        if self._position == len(self._buffer):
            self._buffer, self._position = self._raw.read(_BLOCK), 0
            if not self._buffer and self._frame is not None:
                raise EOFError("it ends inside a frame")
        return bool(self._buffer)

    def _step(self) -> bytes:
        if self._frame is None:
            self._frame = zstandard.ZstdDecompressor().decompressobj()
        piece = self._buffer[self._position : self._position + _ZSTD_INPUT]
        out = self._frame.decompress(piece)
        self._position += len(piece)
        if self._frame.eof:
            self._position -= len(self._frame.unused_data)
            self._frame = None
        return out


def _guard(source: SourceFile, read: Read) -> Read:
    name = "standard input" if source.path == "-" else repr(source.path)

    def guarded(size: int) -> bytes:
        try:
            return read(size)
        except EOFError as error:
            raise InputError(f"The archive {name} is cut short: {error}.") from error
        except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
            raise InputError(
                f"The archive {name} is not sound .{source.compression} data: {error}."
            ) from error
        except OSError as error:
            raise InputError(f"{name} cannot be read: {os.strerror(error.errno or 0)}.") from error

    return guarded
