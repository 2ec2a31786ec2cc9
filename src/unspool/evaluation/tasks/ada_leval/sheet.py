"""The first sheet of an .xlsx file, as rows by column name, with the standard library.

Source: ECMA-376 part 1, sections 18.3 (cells) and 18.4 (shared strings);
section 22.9.2.19 (`_xHHHH_` escapes).
Differs: values only; dates, formulas and styles are left as their stored text.
Cost: linear in the sheet; at most 1 GiB unpacked.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from unspool.errors import InputError

_NS = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4})_")
_MOST = 1 << 30


def read_sheet(path: Path) -> Iterator[dict[str, Any]]:
    """The rows below the first, by the names in the first.

    Raises:
        InputError: The file is no .xlsx file, or its first sheet has no row.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            sheets = sorted(n for n in names if re.fullmatch(r"xl/worksheets/sheet\d+\.xml", n))
            if not sheets:
                raise InputError(f"{path} has no sheet.")
            shared = (
                [_text(item) for item in _parse(archive, "xl/sharedStrings.xml").iter(f"{_NS}si")]
                if "xl/sharedStrings.xml" in names
                else []
            )
            rows = list(_cells(_parse(archive, sheets[0]), shared))
    except (zipfile.BadZipFile, ElementTree.ParseError, KeyError, IndexError) as error:
        raise InputError(f"{path} is not a readable .xlsx file: {error}.") from error
    if not rows:
        raise InputError(f"{path} has an empty sheet.")
    header = {column: str(value) for column, value in rows[0].items()}
    for row in rows[1:]:
        yield {name: row.get(column) for column, name in header.items()}


def _parse(archive: zipfile.ZipFile, name: str) -> ElementTree.Element:
    if archive.getinfo(name).file_size > _MOST:
        raise InputError(f"{archive.filename}: {name} is larger than 1 GiB unpacked.")
    data = archive.read(name)
    if b"<!DOCTYPE" in data[:4096] or b"<!ENTITY" in data:
        raise InputError(f"{archive.filename}: {name} declares entities, as no sheet does.")
    return ElementTree.fromstring(data)


def _cells(sheet: ElementTree.Element, shared: list[str]) -> Iterator[dict[str, Any]]:
    """Each row, from column letters to values."""
    for row in sheet.iter(f"{_NS}row"):
        found: dict[str, Any] = {}
        for number, cell in enumerate(row.iter(f"{_NS}c")):
            column = re.sub(r"\d", "", cell.get("r", "")) or str(number)
            found[column] = _value(cell, shared)
        yield found


def _value(cell: ElementTree.Element, shared: list[str]) -> Any:
    kind = cell.get("t", "n")
    if kind == "inlineStr":
        inline = cell.find(f"{_NS}is")
        return _text(inline) if inline is not None else None
    stored = cell.find(f"{_NS}v")
    if stored is None or stored.text is None:
        return None
    if kind == "s":
        return shared[int(stored.text)]
    if kind in ("str", "e"):
        return _unescape(stored.text)
    if kind == "b":
        return stored.text == "1"
    number = float(stored.text)
    return int(number) if number.is_integer() else number


def _text(item: ElementTree.Element) -> str:
    """The text of a string item: its runs, without phonetic hints."""
    texts = [item.find(f"{_NS}t"), *(run.find(f"{_NS}t") for run in item.findall(f"{_NS}r"))]
    return _unescape("".join(t.text or "" for t in texts if t is not None))


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda m: chr(int(m[1], 16)), text)
