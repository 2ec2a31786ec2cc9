"""JSON records on disk: read whole, or appended one by one so that a killed run continues."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import orjson

from unspool.errors import InputError, PathNotFound
from unspool.index._files import storage


class Append(Protocol):
    """Write one record behind the others."""

    def __call__(self, record: dict[str, Any]) -> None: ...


def read_records(path: Path) -> list[dict[str, Any]]:
    """Every record of a JSON array or of JSON lines.

    Raises:
        PathNotFound: There is no such file.
        InputError: It is not JSON, or a record is not an object; the message says where.
    """
    if not path.is_file():
        raise PathNotFound(f"There is no file {str(path)!r}. Check the path.")
    raw = path.read_bytes()
    if raw.lstrip()[:1] == b"[":
        found = _parse(raw, f"{path.name}")
        if not isinstance(found, list):
            raise InputError(f"{path.name} is not a list of JSON objects.")
        named = [(f"Record {n} of {path.name}", each) for n, each in enumerate(found, 1)]
    else:
        lines = [(n, each) for n, each in enumerate(raw.split(b"\n"), 1) if each.strip()]
        named = [
            (f"Line {n} of {path.name}", _parse(each, f"Line {n} of {path.name}"))
            for n, each in lines
        ]
    for where, each in named:
        if not isinstance(each, dict):
            raise InputError(f"{where} is not a JSON object.")
    return [each for _, each in named]


def _parse(raw: bytes, where: str) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InputError(f"{where} is not JSON: {error}.") from error


@contextmanager
def appending(path: Path) -> Iterator[tuple[list[dict[str, Any]], Append]]:
    """The records that a file holds, and what appends to it; each is on disk when it returns.

    A last line without its line end was being written when its process was killed: it is dropped.
    """
    with storage(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            raw = path.read_bytes()
            whole = raw.rfind(b"\n") + 1
            if whole < len(raw):
                os.truncate(path, whole)
    held = read_records(path) if path.exists() else []
    with storage(path.parent), path.open("ab", buffering=0) as file:

        def append(record: dict[str, Any]) -> None:
            data = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SORT_KEYS)
            while data:
                data = data[file.write(data) or 0 :]
            os.fsync(file.fileno())

        yield held, append
