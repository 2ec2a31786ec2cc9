"""Write the documents of an index back: the index is the corpus, and this proves it.

Into a `.jsonl` file go records with `id`, `text` and the metadata under `meta`; a document that is
not UTF-8 has `bytes` in base64 in place of `text`. Into a directory goes one file a document, under
its id where that is a path that stays inside, else under an escaped name, which the report counts.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from unspool.errors import ConfigError
from unspool.index._files import TEMPORARY, storage, sync_folder, write_atomic

if TYPE_CHECKING:
    from unspool.index.engine import Index

_SAFE = re.compile(r"[\w .,()+=@#:-]+", re.ASCII)
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written."""

    documents: int
    bytes_text: int
    renamed: int
    """Files whose name is not the id, because the id is no safe path."""

    def to_json(self) -> dict[str, int]:
        return {
            "documents": self.documents,
            "bytes_text": self.bytes_text,
            "renamed": self.renamed,
        }


def write_documents(index: Index, out: str | os.PathLike[str]) -> ExportReport:
    """Write every document of an index to a `.jsonl` file or a directory that is new or empty."""
    target = Path(out)
    write = _write_records if target.suffix == ".jsonl" else _write_files
    with storage(target.parent):
        return write(index, target)


def _write_records(index: Index, target: Path) -> ExportReport:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(TEMPORARY + target.name)
    total = 0
    try:
        with open(temporary, "wb") as file:
            for number in range(len(index)):
                data = index.extract(number)
                total += len(data)
                file.write(_record(index, number, data))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(target.parent)
    return ExportReport(len(index), total, 0)


def _record(index: Index, number: int, data: bytes) -> bytes:
    identifier, meta = index.describe(number)
    record: dict[str, Any] = {"id": identifier}
    try:
        record["text"] = data.decode()
    except UnicodeDecodeError:
        record["bytes"] = base64.b64encode(data).decode()
    if meta:
        record["meta"] = meta
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _write_files(index: Index, target: Path) -> ExportReport:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} is not an empty directory: give a new one, or a .jsonl file.")
    target.mkdir(parents=True, exist_ok=True)
    total, renamed = 0, 0
    taken: set[str] = set()
    for number in range(len(index)):
        identifier, _ = index.describe(number)
        data = index.extract(number)
        total += len(data)
        name = _safe_name(identifier, lambda n: _clashes(n, taken))
        renamed += name != identifier
        taken.update(_prefixes(name))
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, [data], sync=False)
    sync_folder(target)
    return ExportReport(len(index), total, renamed)


def _safe_name(identifier: str, clashes: Callable[[str], bool]) -> str:
    parts = identifier.split("/")
    safe = all(
        _SAFE.fullmatch(part) and not part.startswith(".") and len(part) <= _LONGEST_NAME
        for part in parts
    )
    if safe and len(identifier) <= 1000 and not clashes(identifier):
        return identifier
    digest = hashlib.blake2b(identifier.encode("utf-8", "surrogatepass"), digest_size=8)
    readable = re.sub(r"[^\w.-]+", "_", identifier, flags=re.ASCII).strip("._")[:80]
    return f"{readable}~{digest.hexdigest()}"


def _prefixes(name: str) -> list[str]:
    """A name as a file, and each folder above it as a folder; case does not tell files apart
    everywhere."""
    parts = name.lower().split("/")
    return ["file " + name.lower(), *("/".join(parts[:i]) for i in range(1, len(parts)))]


def _clashes(name: str, taken: set[str]) -> bool:
    file, *folders = _prefixes(name)
    return file in taken or name.lower() in taken or any("file " + f in taken for f in folders)
