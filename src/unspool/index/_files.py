"""How a build touches the disk: atomic writes, a lock, checksummed records, errors that help.

A file appears under its own name only when it is whole: it is written under a temporary name in
the same folder, flushed, and renamed. What a killed build leaves behind are temporary names, which
the next build removes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from unspool import _native
from unspool.errors import IndexCorrupt, IndexLocked, StorageError

TEMPORARY = ".tmp-"
"""What every unfinished file's name begins with."""

LOCK = ".lock"
_MAGIC = b"unspool record 1\n"
_CAUSES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file may not grow any further (file size limit)",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "this user may not write there",
    errno.EPERM: "this user may not write there",
    errno.EIO: "the disk reported an error",
}


@contextmanager
def storage(folder: Path) -> Iterator[None]:
    """Turn the disk's refusals under `folder` into a StorageError that says what to do."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        cause = _CAUSES.get(error.errno or 0)
        if cause is None:
            raise
        raise StorageError(
            f"Cannot write in {folder}: {cause}. Nothing finished so far is lost: put that right "
            "and run the same command again."
        ) from error


def write_atomic(path: Path, parts: Sequence[bytes], *, sync: bool = True) -> None:
    """Write a file so that it is either there whole or not there at all."""
    # Its own name for every writer: on a cluster a lost one may still be writing the same file.
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(4)}-{path.name}")
    try:
        with open(temporary, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if sync:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def canonical(value: Any) -> bytes:
    """The one JSON form of a value, so that equal values are equal bytes."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"


def write_checked_json(path: Path, value: dict[str, Any]) -> None:
    """Write JSON with a checksum of itself under `checksum`."""
    write_atomic(path, [canonical({**value, "checksum": _native.crc32c(canonical(value))})])


def read_checked_json(path: Path) -> dict[str, Any]:
    """Read what write_checked_json wrote; any changed byte raises IndexCorrupt."""
    raw = path.read_bytes()
    try:
        value = orjson.loads(raw)
        checksum = value.pop("checksum")
        sound = isinstance(value, dict) and _native.crc32c(canonical(value)) == checksum
        sound = sound and canonical({**value, "checksum": checksum}) == raw
    except (orjson.JSONDecodeError, KeyError, AttributeError, TypeError):
        sound = False
    if not sound:
        raise IndexCorrupt(
            f"{path.name} does not hold what was written into it. Restore the file from a copy, "
            "or build the index again in an empty directory."
        )
    assert isinstance(value, dict)
    return value


def write_record(path: Path, head: dict[str, Any], parts: Sequence[bytes]) -> None:
    """Write a small JSON head and some blobs into one checksummed file (spool sidecars)."""
    line = orjson.dumps({**head, "sizes": [len(part) for part in parts]}) + b"\n"
    checksum = _native.crc32c(line)
    for part in parts:
        checksum = _native.crc32c(part, checksum)
    write_atomic(path, [_MAGIC, line, *parts, checksum.to_bytes(4, "little")], sync=False)


def read_record(path: Path) -> tuple[dict[str, Any], list[bytes]] | None:
    """What write_record wrote, or None if the file is missing or not whole."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    body = raw[len(_MAGIC) : -4]
    if not raw.startswith(_MAGIC) or _native.crc32c(body) != int.from_bytes(raw[-4:], "little"):
        return None
    line, _, rest = body.partition(b"\n")
    head = orjson.loads(line)
    parts, start = [], 0
    for size in head.pop("sizes"):
        parts.append(rest[start : start + size])
        start += size
    return head, parts


def remove_temporary(folder: Path) -> None:
    """Remove what a killed build left half written. Only the holder of the lock may call this."""
    if folder.is_dir():
        for entry in list(os.scandir(folder)):
            if entry.name.startswith(TEMPORARY) and entry.is_file(follow_symlinks=False):
                os.unlink(entry.path)


class Lock:
    """One builder a directory. Worker processes inherit the handle, so that the directory stays
    locked until the last process of a killed build is gone."""

    def __init__(self, folder: Path, patience: float = 2.0) -> None:
        self.path = folder / LOCK
        self.handle = -1
        deadline = time.monotonic() + patience
        while True:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                if time.monotonic() > deadline:
                    raise IndexLocked(
                        f"Another process is building in {folder}. Wait for it to end, or build "
                        "into another directory."
                    ) from None
                time.sleep(0.05)
                continue
            if self._is_current(handle):
                self.handle = handle
                return
            os.close(handle)  # the previous holder removed the file while we waited for it

    def _is_current(self, handle: int) -> bool:
        try:
            return os.path.samestat(os.fstat(handle), os.stat(self.path))
        except FileNotFoundError:
            return False

    def release(self, *, remove: bool) -> None:
        """Give the directory up; `remove` when nothing is left to build in it."""
        if remove:
            with contextlib.suppress(OSError):
                self.path.unlink()
        os.close(self.handle)
        self.handle = -1
