"""Entries of benchmarks out of files: JSON lines, JSON arrays, CSV, Parquet and plain text.

A file is a benchmark and a record is an entry; a text file is a benchmark of one entry. Which
fields are looked at is the caller's to say; otherwise it is `text`, or if there is none, every
field that holds a text or a list of texts.
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import orjson

from unspool._optional import require
from unspool.corpus.records import plain
from unspool.corpus.sources import AnyPath, SourceFile, find_sources
from unspool.corpus.streams import open_stream, read_all
from unspool.corpus.utf8 import first_invalid
from unspool.errors import DuplicateDocument, EncodingError, InputError

_LARGEST = 1 << 30
_SHOWN = 12
_PATTERNS = tuple(
    f"*{kind}{packed}"
    for kind in (".jsonl", ".ndjson", ".jsonlines", ".json", ".csv", ".tsv", ".parquet", ".txt")
    for packed in ("", ".gz", ".zst")
)


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an entry: the texts it holds, which windows never cross."""

    name: str
    pieces: tuple[str, ...]

    @property
    def text(self) -> str:
        """The pieces, a line each: what byte offsets of the field are offsets in."""
        return "\n".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a benchmark."""

    id: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A named list of entries; `total` is how many there are where only a sample was taken."""

    name: str
    entries: tuple[Entry, ...]
    total: int


def read_benchmarks(
    paths: AnyPath | Iterable[AnyPath],
    *,
    fields: Sequence[str] = (),
    id_field: str = "id",
    sample: int | None = None,
    seed: int = 0,
) -> list[Benchmark]:
    """Read benchmarks, one a file.

    Args:
        paths: Files, or folders whose jsonl, json, csv, tsv, parquet and txt files are read.
        fields: Names of the fields to look at; `a.b` is field b of the object in a.
        id_field: Field with the id; entries without one are known by their number from 1.
        sample: Take at most so many entries of each benchmark, drawn at random, in their order.
        seed: Of the draw.

    Raises:
        InputError: A file or record cannot be used, or a named field is missing.
        DuplicateDocument: Two entries of a benchmark have the same id.
        PathNotFound: An argument does not exist.
    """
    sources = find_sources(paths, include=_PATTERNS)
    names = [
        "standard input" if name == "-" else name
        for name in short_names([source.path for source in sources])
    ]
    found = []
    for source, name in zip(sources, names, strict=True):
        records = list(_records(source))
        if not records:
            raise InputError(f"{source.path!r} holds no entries.")
        found.append(benchmark(name, records, fields=fields, id_field=id_field))
        if sample is not None and len(found[-1].entries) > sample:
            found[-1] = _drawn(found[-1], sample, seed)
    return found


def benchmark(
    name: str,
    records: Iterable[Mapping[str, Any]],
    *,
    fields: Sequence[str] = (),
    id_field: str = "id",
) -> Benchmark:
    """A benchmark out of records; arguments and errors are those of `read_benchmarks`."""
    entries: list[Entry] = []
    seen: dict[str, int] = {}
    for number, record in enumerate(records, 1):
        if not isinstance(record, Mapping):
            raise InputError(f"{name}, entry {number}: an entry must be an object of fields.")
        given = record.get(id_field)
        id = str(number) if given is None else str(given)
        if id in seen:
            raise DuplicateDocument(
                f"{name}: entries {seen[id]} and {number} have the same id {id!r}. Name another "
                f"field with id_field (--id-field)."
            )
        seen[id] = number
        entries.append(Entry(id, _fields(f"{name}, entry {number}", record, fields, id_field)))
    return Benchmark(name, tuple(entries), len(entries))


def short_names(paths: Sequence[str]) -> list[str]:
    """For each path the shortest end of it that tells it from the others.

    Raises:
        InputError: The same file or folder is there twice.
    """
    parts = [PurePath(Path(path).resolve()).parts if path != "-" else ("-",) for path in paths]
    for number, each in enumerate(parts):
        if each in parts[:number]:
            raise InputError(f"{paths[number]!r} was given twice.")
    names = []
    for each in parts:
        for size in range(1, len(each) + 1):
            name = "/".join(each[-size:])
            if sum(other[-size:] == each[-size:] for other in parts) == 1:
                break
        names.append(name)
    return names


def _drawn(given: Benchmark, size: int, seed: int) -> Benchmark:
    draw = random.Random(seed)
    # random() is the one method whose sequence Python promises to keep for a seed.
    order = sorted(range(len(given.entries)), key=lambda _: draw.random())
    chosen = sorted(order[:size])
    return Benchmark(given.name, tuple(given.entries[n] for n in chosen), given.total)


def _fields(
    place: str, record: Mapping[str, Any], wanted: Sequence[str], id_field: str
) -> tuple[Field, ...]:
    if not wanted:
        if isinstance(record.get("text"), str):
            return (Field("text", (record["text"],)),)
        found = [
            Field(name, pieces)
            for name, value in record.items()
            if name != id_field and (pieces := _pieces(value)) is not None
        ]
        if not found:
            raise InputError(f"{place}: no field holds text. {_names(record)}")
        return tuple(found)
    chosen = []
    for name in wanted:
        value = _value(record, name)
        if value is _MISSING:
            raise InputError(f"{place}: there is no field {name!r}. {_names(record)}")
        pieces = () if value is None else _pieces(value)
        if pieces is None:
            raise InputError(f"{place}: the field {name!r} must be a text or a list of texts.")
        chosen.append(Field(name, pieces))
    return tuple(chosen)


_MISSING = object()


def _value(record: Any, name: str) -> Any:
    """A field by its name, or by the names of the objects on the way to it."""
    if name in record:
        return record[name]
    head, dot, rest = name.partition(".")
    if dot and isinstance(record.get(head), Mapping):
        return _value(record[head], rest)
    return _MISSING


def _pieces(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return tuple(value)
    return None


def _names(record: Mapping[str, Any]) -> str:
    shown = ", ".join(repr(name) for name in list(record)[:_SHOWN]) or "none"
    more = f" and {len(record) - _SHOWN} more" if len(record) > _SHOWN else ""
    return f"Fields found: {shown}{more}. Choose with fields (--fields)."


def _records(source: SourceFile) -> Iterator[dict[str, Any]]:
    suffix = PurePath(source.path.removesuffix(f".{source.compression}")).suffix.lower()
    with open_stream(source, lambda _: None) as read:
        data = read_all(read, _LARGEST, source.path)
    if suffix in (".parquet", ".pq"):
        yield from _parquet(source.path, data)
        return
    data = data.removeprefix(b"\xef\xbb\xbf")
    bad = first_invalid(data)
    if bad is not None:
        raise EncodingError(f"{source.path!r} is not valid UTF-8 at byte {bad:,}. Convert it.")
    if suffix in (".jsonl", ".ndjson", ".jsonlines") or (source.path == "-" and data[:1] == b"{"):
        for number, line in enumerate(data.split(b"\n"), 1):
            if line.strip():
                yield _object(f"{source.path}:{number}", _json(f"{source.path}:{number}", line))
    elif suffix == ".json":
        value = _json(source.path, data)
        if not isinstance(value, list):
            raise InputError(f"{source.path}: a .json benchmark must be an array of entries.")
        for number, record in enumerate(value, 1):
            yield _object(f"{source.path}, entry {number}", record)
    elif suffix in (".csv", ".tsv"):
        yield from _table(source.path, data.decode(), "," if suffix == ".csv" else "\t")
    else:
        yield {"id": source.id, "text": data.decode()}


def _json(place: str, data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InputError(f"{place}: not valid JSON: {error}.") from None


def _object(place: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{place}: an entry must be a JSON object.")
    return value


def _table(path: str, text: str, delimiter: str) -> Iterator[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise InputError(
                    f"{path}:{reader.line_num}: this row has not as many cells as the header."
                )
            yield dict(row)
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not a sound table: {error}.") from error


def _parquet(path: str, data: bytes) -> Iterator[dict[str, Any]]:
    arrow = require("pyarrow", extra="parquet", purpose="reading Parquet files")
    module = require("pyarrow.parquet", extra="parquet", purpose="reading Parquet files")
    try:
        for row in module.read_table(arrow.BufferReader(data)).to_pylist():
            yield {str(key): plain(value) for key, value in row.items()}
    except (arrow.ArrowException, OSError) as error:
        raise InputError(f"{path!r} is not a sound Parquet file: {error}") from error
