"""Records out of JSON lines, JSON arrays and Parquet: one text, one id and the rest as metadata.

Source: RFC 8259 (JSON), the JSON Lines convention, the Apache Parquet format.
Differs from JSON Lines: empty lines are passed over and counted, and a byte order mark at the
    start of the file is not part of the first record.
Cost: JSON lines 200 to 400 MB/s; memory is one line, one array, or one batch of a row group.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Iterator
from datetime import date, datetime, time
from typing import Any, NamedTuple

import orjson

from unspool._optional import require
from unspool.corpus.sources import ReadReport, SourceFile
from unspool.corpus.streams import Read, read_all, too_long
from unspool.corpus.utf8 import first_invalid, repair
from unspool.errors import EncodingError, InputError

_BLOCK = 1 << 20
_BOM = b"\xef\xbb\xbf"
_NAMES_SHOWN = 12


class Raw(NamedTuple):
    """A record before it has an id of its own: `id` is None where there is no such field."""

    line: int
    id: str | None
    text: str
    meta: dict[str, Any]


class Fields(NamedTuple):
    """Which fields hold the text and the id, and what to do with bytes that are not UTF-8."""

    text: str
    id: str
    replace: bool


def jsonl(
    source: SourceFile, read: Read, fields: Fields, limit: int, report: ReadReport
) -> Iterator[Raw]:
    """One record a line."""
    for number, offset, line in _lines(source, read, limit):
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            if not line.strip():
                report.blank_lines += 1
                continue
            record = _second_try(source, number, offset, line, error, fields, report)
        yield _raw(f"{source.path}:{number}", number, record, fields)


def array(
    source: SourceFile, read: Read, fields: Fields, limit: int, report: ReadReport
) -> Iterator[Raw]:
    """The records of one JSON array, which is read whole."""
    data = read_all(read, limit, source.path).removeprefix(_BOM)
    try:
        records = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        records = _second_try(source, 0, 0, data, error, fields, report)
    if not isinstance(records, list):
        raise InputError(
            f"{source.path}: a .json file must hold an array of records, and this one holds "
            f"{_kind(records)}. One record a line goes into a .jsonl file."
        )
    for number, record in enumerate(records, 1):
        yield _raw(f"{source.path}, record {number}", number, record, fields)


def parquet(
    source: SourceFile, read: Read, fields: Fields, limit: int, report: ReadReport
) -> Iterator[Raw]:
    """The rows of a Parquet file, a batch at a time; a compressed one goes through a temporary
    file, because Parquet is read from its end."""
    arrow = require("pyarrow", extra="parquet", purpose="reading Parquet files")
    module = require("pyarrow.parquet", extra="parquet", purpose="reading Parquet files")
    with tempfile.TemporaryFile() as copy:
        where: Any = source.path
        if source.compression or source.size < 0:
            while block := read(_BLOCK):
                copy.write(block)
            copy.seek(0)
            where = copy
        try:
            with module.ParquetFile(where, memory_map=False) as file:
                names = file.schema_arrow.names
                if fields.text not in names:
                    raise InputError(_no_field(source.path, fields.text, names))
                number = 0
                for batch in file.iter_batches(batch_size=256):
                    for row in batch.to_pylist():
                        number += 1
                        row = {key: plain(value) for key, value in row.items()}
                        yield _raw(f"{source.path}, row {number}", number, row, fields)
        except (arrow.ArrowException, OSError) as error:
            raise InputError(f"{source.path!r} is not a sound Parquet file: {error}") from error


def plain(value: Any) -> Any:
    """A value as JSON can hold it: times in ISO 8601, bytes in base64, other things as str."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value)


def _lines(source: SourceFile, read: Read, limit: int) -> Iterator[tuple[int, int, bytes]]:
    """Line number from 1, byte offset of the line, and its bytes without the line feed."""
    number, offset = 1, 0
    parts: list[bytes] = []
    held = 0
    block = read(_BLOCK)
    if block.startswith(_BOM):
        block, offset = block[len(_BOM) :], len(_BOM)
    while block:
        lines = block.split(b"\n")
        parts.append(lines[0])
        held += len(lines[0])
        if held > limit:
            raise too_long(f"The record at {source.path}:{number}", limit)
        if len(lines) > 1:
            lines[0] = b"".join(parts)
            parts = [lines.pop()]
            held = len(parts[0])
            for line in lines:
                yield number, offset, line
                number += 1
                offset += len(line) + 1
        block = read(_BLOCK)
    last = b"".join(parts)
    if last:
        yield number, offset, last


def _second_try(
    source: SourceFile,
    number: int,
    offset: int,
    data: bytes,
    error: orjson.JSONDecodeError,
    fields: Fields,
    report: ReadReport,
) -> Any:
    """Say why a record could not be parsed; with `replace`, mend what is not Unicode first."""
    place = f"{source.path}:{number}" if number else source.path
    bad = first_invalid(data)
    if bad is not None and not fields.replace:
        raise EncodingError(
            f"{place}: byte {offset + bad:,} of the file is not valid UTF-8 "
            f"(0x{data[bad]:02x}). Convert the file, or use encoding_errors='replace' "
            "(--encoding-errors replace)."
        )
    if fields.replace:
        mended = repair(data)
        try:
            # The standard parser lets lone surrogates such as \ud800 through; they are replaced.
            record = json.loads(mended.data, parse_constant=_no_constant)
        except ValueError:
            pass
        else:
            report.replaced += mended.sequences
            report.replaced_bytes += mended.replaced_bytes
            return _mend_surrogates(record, report)
    raise InputError(f"{place}: not valid JSON: {error}.") from None


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _mend_surrogates(value: Any, report: ReadReport) -> Any:
    if isinstance(value, str):
        mended = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        report.replaced += mended.count("\ufffd") - value.count("\ufffd")
        return mended
    if isinstance(value, dict):
        return {
            _mend_surrogates(key, report): _mend_surrogates(item, report)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_mend_surrogates(item, report) for item in value]
    return value


def _raw(place: str, number: int, record: Any, fields: Fields) -> Raw:
    if not isinstance(record, dict):
        raise InputError(f"{place}: a record must be a JSON object, and this is {_kind(record)}.")
    if fields.text not in record:
        raise InputError(_no_field(place, fields.text, list(record)))
    text = record.pop(fields.text)
    if not isinstance(text, str):
        raise InputError(f"{place}: the field {fields.text!r} must be text and is {_kind(text)}.")
    id = record.pop(fields.id, None)
    if id is not None and not isinstance(id, str):
        if isinstance(id, bool) or not isinstance(id, int):
            raise InputError(
                f"{place}: the id field {fields.id!r} must be text or a whole number and is "
                f"{_kind(id)}."
            )
        id = str(id)
    return Raw(number, id, text, record)


def _no_field(place: str, name: str, found: list[str]) -> str:
    shown = ", ".join(repr(field) for field in found[:_NAMES_SHOWN]) or "none"
    more = f" and {len(found) - _NAMES_SHOWN} more" if len(found) > _NAMES_SHOWN else ""
    return (
        f"{place}: there is no field {name!r}. Fields found: {shown}{more}. "
        "Name the field that holds the text with text_field (--text-field)."
    )


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "an array", str: "text", bool: "true or false"}
    return "null" if value is None else kinds.get(type(value), "a number")
