"""Rows of numbers on disk, one file a column, written in order and gone on with after a stop.

What: a folder with `plan.json` (what the rows are, written first), one raw little-endian file a
column, `progress.json` (rows that are safe) and, last, `done.json` with a checksum of every column.
Source: this project's rule that any interrupted command is finished by running it again.
Differs from memory maps that are filled in place: files grow in order, so what a killed run left
behind the safe rows is cut off, and a finished folder has the same bytes as one never interrupted.
Cost: one flush to disk every two seconds; reading is a memory map.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from unspool import _native
from unspool.errors import ConfigError, InputError, PathNotFound, RunConflict, RunLocked
from unspool.index._files import canonical, storage, write_atomic

PLAN, PROGRESS, DONE = "plan.json", "progress.json", "done.json"
_FORMAT = 1
_EVERY = 2.0
"""Seconds between two flushes to disk."""
_CHUNK = 1 << 24


@dataclass(frozen=True, slots=True)
class Column:
    """Numbers of one kind: a numpy type and, for several a row, how many."""

    dtype: str
    width: int = 1

    @property
    def row_bytes(self) -> int:
        return int(np.dtype(self.dtype).itemsize) * self.width


class Rows:
    """A folder that rows are being added to. Made by `writing`."""

    def __init__(self, folder: Path, columns: Mapping[str, Column], files: dict[str, Any]) -> None:
        self.folder, self.columns, self._files = folder, columns, files
        self.done = 0
        """Rows that are there."""
        self.finished = False
        self._safe = time.monotonic()

    def add(self, **arrays: NDArray[Any]) -> None:
        """Append the same number of rows to every column."""
        counts = {name: len(array) for name, array in arrays.items()}
        if set(counts) != set(self.columns) or len(set(counts.values())) != 1:
            raise ConfigError(f"Rows need {sorted(self.columns)} of one length, got {counts}.")
        for name, column in self.columns.items():
            array = np.ascontiguousarray(arrays[name], dtype=column.dtype)
            data = memoryview(array.tobytes())
            while len(data):
                data = data[self._files[name].write(data) or 0 :]
        self.done += next(iter(counts.values()))
        if time.monotonic() - self._safe >= _EVERY:
            self.flush()

    def flush(self) -> None:
        """Make every row so far safe."""
        for file in self._files.values():
            os.fsync(file.fileno())
        write_atomic(self.folder / PROGRESS, [canonical({"rows": self.done})])
        self._safe = time.monotonic()

    def finish(self, **facts: Any) -> None:
        """Say that all rows are there; `facts` go into `done.json`."""
        self.flush()
        sums = {name: _checksum(_file(self.folder, name)) for name in self.columns}
        write_atomic(
            self.folder / DONE, [canonical({"rows": self.done, "checksums": sums, **facts})]
        )
        (self.folder / PROGRESS).unlink(missing_ok=True)
        self.finished = True


@contextmanager
def writing(folder: Path, plan: Mapping[str, Any], columns: Mapping[str, Column]) -> Iterator[Rows]:
    """Open a folder for rows, at the place where an earlier run stopped.

    Args:
        folder: Made if it is not there.
        plan: What decides the rows, JSON values; a run with another plan is refused.
        columns: What a row holds.

    Raises:
        RunConflict: The folder holds rows of another plan; the message names what differs.
        RunLocked: Another process is working in the folder.
        InputError: The folder holds other files.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{str(folder)!r} is a file, and a folder is needed.")
    full = orjson.loads(
        canonical(
            {
                "format": _FORMAT,
                "columns": {n: [c.dtype, c.width] for n, c in columns.items()},
                **plan,
            }
        )
    )
    with storage(folder), ExitStack() as stack:
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(_locked(folder))
        if (folder / PLAN).exists():
            _same(_json(folder / PLAN), full, folder)
        elif any(not p.name.startswith(".") for p in folder.iterdir()):
            raise InputError(
                f"{folder.name} holds other files. Choose a new folder, or an empty one."
            )
        else:
            write_atomic(folder / PLAN, [canonical(full)])
        if (folder / DONE).exists():
            rows = Rows(folder, columns, {})
            rows.done, rows.finished = int(_json(folder / DONE)["rows"]), True
            yield rows
            return
        safe = int(_json(folder / PROGRESS)["rows"]) if (folder / PROGRESS).exists() else 0
        files = {}
        for name, column in columns.items():
            path = _file(folder, name)
            files[name] = stack.enter_context(path.open("ab", buffering=0))
            os.truncate(path, safe * column.row_bytes)
        rows = Rows(folder, columns, files)
        rows.done = safe
        try:
            yield rows
        except BaseException:
            if not rows.finished:
                rows.flush()
            raise


def reading(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Plan and facts of a finished folder, and its columns as read-only memory maps.

    Raises:
        PathNotFound: There is no such folder.
        InputError: It holds something else, was never finished, or does not hold what was written.
    """
    if not folder.is_dir():
        raise PathNotFound(f"There is no folder {str(folder)!r}. Check the path.")
    if not (folder / PLAN).is_file():
        raise InputError(f"{folder.name} holds no {kind}.")
    plan = _json(folder / PLAN)
    if plan.get("kind") != kind or plan.get("format") != _FORMAT:
        raise InputError(
            f"{folder.name} holds {plan.get('kind')} (format {plan.get('format')}), and {kind} "
            f"(format {_FORMAT}) is needed."
        )
    if not (folder / DONE).is_file():
        raise InputError(f"{folder.name} was never finished: run the command that made it again.")
    done = _json(folder / DONE)
    arrays = {}
    for name, (dtype, width) in plan["columns"].items():
        path = _file(folder, name)
        expected = done["rows"] * Column(dtype, width).row_bytes
        if not path.is_file() or path.stat().st_size != expected:
            raise InputError(f"{path.name} in {folder.name} is not {expected:,} bytes long.")
        if _checksum(path) != done["checksums"][name]:
            raise InputError(
                f"{path.name} in {folder.name} does not hold what was written. Make it again in an "
                f"empty folder."
            )
        shape = (done["rows"], width) if width > 1 else (done["rows"],)
        empty = np.empty(shape, dtype)
        arrays[name] = np.memmap(path, dtype, "r", shape=shape) if expected else empty
    return {**plan, **done}, arrays


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.bin"


def _json(path: Path) -> dict[str, Any]:
    try:
        value = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise InputError(f"{path.name} in {path.parent.name} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise InputError(f"{path.name} in {path.parent.name} is not a JSON object.")
    return value


def _same(had: dict[str, Any], asked: dict[str, Any], folder: Path) -> None:
    differs = sorted(k for k in had.keys() | asked.keys() if had.get(k) != asked.get(k))
    if differs:
        differs = [k for k in differs if k != "columns"] or differs  # they follow from the rest
        said = "; ".join(f"{k} was {had.get(k)}, now {asked.get(k)}" for k in differs)
        raise RunConflict(
            f"{folder.name} was begun with something else ({said}). Run the same command as "
            f"before, or choose another folder."
        )


def _checksum(path: Path) -> int:
    found = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found = _native.crc32c(chunk, found)
    return found


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunLocked(
                f"Another process is working in {folder.name}. Wait for it to end, or choose "
                f"another folder."
            ) from None
        yield
    finally:
        os.close(handle)
