"""A run folder on disk: whole files by rename, lines that are only appended, one writer."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from unspool.errors import InputError, RunLocked

_SYNC_SECONDS = 1.0


def canonical(value: Any) -> bytes:
    """The one JSON form of a value: keys sorted, so that equal values are equal bytes."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"


def line(value: Any) -> bytes:
    """One line of JSON, keys sorted."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


@contextmanager
def replacing(path: Path) -> Iterator[Any]:
    """A binary file that appears under its name only when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{secrets.token_hex(4)}-{path.name}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    with contextlib.suppress(OSError):  # a folder cannot be flushed everywhere
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_atomic(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file so that it is either there whole or not there at all."""
    with replacing(path) as file:
        for part in parts:
            file.write(part)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_temporary(folder: Path) -> None:
    """Remove what a killed run left half written. Only the holder of the lock may call this."""
    for entry in list(os.scandir(folder)):
        if entry.name.startswith(".tmp-") and entry.is_file(follow_symlinks=False):
            os.unlink(entry.path)


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Byte offset and record of each line of a finished file."""
    offset = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            yield offset, _record(path, number, raw)
            offset += len(raw)


def _record(path: Path, number: int, raw: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InputError(f"Line {number} of {path.name} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise InputError(f"Line {number} of {path.name} is not a JSON object.")
    return value


class Appender:
    """A file of JSON lines that only grows. Several threads may append.

    Opening it drops a last line that was half written when its process was killed; a line that is
    broken before the last is an error, since it was whole once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: list[dict[str, Any]] = []
        """What the file held when it was opened."""
        self.dropped_bytes = self._recover()
        self._file = path.open("ab", buffering=0)
        self._lock = threading.Lock()
        self._synced = time.monotonic()

    def _recover(self) -> int:
        if not self.path.exists():
            return 0
        raw = self.path.read_bytes()
        sound = raw.rfind(b"\n") + 1
        lines = raw[:sound].splitlines(keepends=True)
        for number, each in enumerate(lines, 1):
            try:
                self.records.append(_record(self.path, number, each))
            except InputError:
                if number < len(lines):
                    raise
                sound -= len(each)
        if sound < len(raw):
            with self.path.open("r+b") as file:
                file.truncate(sound)
                os.fsync(file.fileno())
        return len(raw) - sound

    def append(self, value: dict[str, Any]) -> None:
        """Write one record with one system call; on disk within a second."""
        data = line(value)
        with self._lock:
            written = self._file.write(data)
            while written is not None and written < len(data):  # a disk that is nearly full
                data = data[written:]
                written = self._file.write(data)
            now = time.monotonic()
            if now - self._synced >= _SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = now

    def close(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder; a second process is refused at once.

    The lock is the kernel's, so it ends with its process, however that ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunLocked(
                f"Another process is working in the run folder {folder.name}. Wait for it to end, "
                f"or choose another folder."
            ) from None
        yield
    finally:
        os.close(handle)
