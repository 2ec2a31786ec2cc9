"""Read the directories that infini-gram 2.x writes (its format version 4).

What: per shard `tokenized.N` (documents, each behind one separator token of all ones), `table.N` (a
suffix array of byte offsets), `offset.N` (where each document's separator stands), and optionally
`metadata.N` with `metaoff.N`.
Source: liujch1998/infini-gram 2.6.0, the files themselves.
Departures: files are known by their exact names in the directory, never by a substring of the whole
path; nothing in them is trusted; the token width follows from the sizes. Version 5 (every document
reversed) has the same file names and cannot be told apart by them: its directories are not to be
opened, and the compatible engine refuses `version=5` by name.
Cost: nothing is rebuilt; finding a document by id reads the metadata once.
"""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from unspool import _native
from unspool.errors import ConfigError, IndexCorrupt, IndexIncomplete, PathNotFound
from unspool.index.alphabet import TOKENIZER_FILE, Tokens
from unspool.index.core import Core
from unspool.index.engine import Index
from unspool.index.holdings import Holdings, ShardHoldings
from unspool.index.results import IndexInfo

_LONGEST_LINE = 1 << 26


def open_v4(
    directory: str | os.PathLike[str], *, width: int | None = None, tokenizer: Tokens | None = None
) -> Index:
    """Open an infini-gram v4 directory.

    Args:
        directory: With `tokenized.0`, `table.0`, `offset.0` and so on; a `tokenizer.json` beside
            them lets it be asked in text.
        width: Bytes a token: 1, 2 or 4; default: what the file sizes say.
        tokenizer: In place of the `tokenizer.json`.

    Raises:
        IndexIncomplete: Files are missing, as after an interrupted build.
        IndexCorrupt: Sizes do not fit together.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise PathNotFound(f"There is no directory {folder}.")
    count = _count_shards(folder)
    widths = {_token_width(folder, number) for number in range(count)} - {None}
    if width is None:
        if len(widths) > 1:
            raise IndexCorrupt(f"The shards in {folder} have tokens of {sorted(widths, key=str)}.")
        width = next(iter(widths)) if widths else 1
    if width not in (1, 2, 4):
        raise ConfigError(f"A token takes 1, 2 or 4 bytes, got {width}.")
    files = [tuple(str(folder / f"{n}.{s}") for n in _PARTS) for s in range(count)]
    native = _native.Index.open_v4(files, width)  # type: ignore[arg-type]  # _PARTS has three names
    if tokenizer is None and width > 1 and (folder / TOKENIZER_FILE).is_file():
        tokenizer = Tokens.from_bytes((folder / TOKENIZER_FILE).read_bytes())
    held = [native.info(shard) for shard in range(count)]
    first, shards = 0, []
    for number, each in enumerate(held):
        shards.append(ShardHoldings(each["documents"], V4Table(folder, number, each["documents"])))
        first += each["documents"]
    symbols = sum(each["symbols"] for each in held)
    alphabet = "bytes" if width == 1 else "tokens"
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    info = IndexInfo(
        documents=first,
        symbols=symbols,
        bytes_text=symbols * width,
        bytes_index=size,
        alphabet=alphabet,
        tier="sa",
        tiers=("sa",),
        shards=count,
        settings={"format": "infini-gram v4"},
        notes=(),
        seconds=None,
        peak_bytes=None,
    )
    core = Core(native, Holdings(native, shards, tokenizer, width), info, ())
    return Index(core, lambda: [e for s in range(count) for e in native.verify(s)])


_PARTS = ("tokenized", "table", "offset")


def _count_shards(folder: Path) -> int:
    """Shards are numbered from 0; a gap or a missing part is an unfinished index."""
    numbers = sorted(
        int(path.suffix[1:])
        for path in folder.glob("tokenized.*")
        if path.suffix[1:].isdigit() and path.is_file()
    )
    if not numbers:
        raise IndexIncomplete(f"{folder} holds no tokenized.0: it is no infini-gram index.")
    for number in range(numbers[-1] + 1):
        for part in _PARTS:
            if not (folder / f"{part}.{number}").is_file():
                raise IndexIncomplete(
                    f"{folder} has no {part}.{number}: the infini-gram index was never finished. "
                    "Build it again."
                )
    return len(numbers)


def pointer_bytes(text_bytes: int) -> int:
    """Bytes of an entry of `table.N` for a text of so many bytes."""
    return max(1, math.ceil(math.log2(text_bytes) / 8)) if text_bytes > 1 else 1


def _token_width(folder: Path, number: int) -> int | None:
    """The width for which the table has one pointer a token; None for an empty shard."""
    text = (folder / f"tokenized.{number}").stat().st_size
    table = (folder / f"table.{number}").stat().st_size
    if text == 0:
        return None
    for width in (1, 2, 4):
        if text % width == 0 and table == text // width * pointer_bytes(text):
            return width
    raise IndexCorrupt(
        f"table.{number} in {folder} has {table:,} bytes, which fits no token width for a text of "
        f"{text:,} bytes. The index is unfinished or damaged."
    )


class V4Table:
    """Ids and metadata of the documents of one shard.

    With metadata an id is `PATH:LINENUM`, both as infini-gram wrote them; without, `SHARD:NUMBER`.
    """

    def __init__(self, folder: Path, shard: int, documents: int) -> None:
        self._shard, self._documents = shard, documents
        self._lines: BinaryIO | None = None
        self._offsets: BinaryIO | None = None
        self._numbers: dict[str, int] | None = None
        lines, offsets = folder / f"metadata.{shard}", folder / f"metaoff.{shard}"
        if lines.is_file() and offsets.is_file():
            if offsets.stat().st_size != 8 * documents:
                raise IndexCorrupt(
                    f"{offsets.name} in {folder} has {offsets.stat().st_size:,} bytes for "
                    f"{documents:,} documents."
                )
            self._lines, self._offsets = open(lines, "rb"), open(offsets, "rb")  # noqa: SIM115 - held open with the index
            self._size = lines.stat().st_size

    def raw(self, document: int) -> bytes:
        """The line of metadata of a document, or nothing."""
        if self._lines is None or self._offsets is None:
            return b""
        found = os.pread(self._offsets.fileno(), 16, 8 * document)
        (start,) = struct.unpack_from("<Q", found)
        end = struct.unpack_from("<Q", found, 8)[0] if len(found) == 16 else self._size
        if not 0 <= end - start <= _LONGEST_LINE or end > self._size:
            raise IndexCorrupt(
                f"metaoff.{self._shard} has no sound line for document {document:,}."
            )
        return os.pread(self._lines.fileno(), end - start, start)

    def describe(self, document: int) -> tuple[str, dict[str, Any]]:
        """The id and metadata of a document."""
        raw = self.raw(document)
        if not raw:
            return f"{self._shard}:{document}", {}
        try:
            value = orjson.loads(raw)
            meta = value["metadata"]
            return f"{value['path']}:{value['linenum']}", meta if isinstance(meta, dict) else {}
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise IndexCorrupt(
                f"metadata.{self._shard} has no sound line for document {document:,}."
            ) from error

    def find(self, identifier: str) -> int | None:
        """The document with this id."""
        if self._numbers is None:
            self._numbers = {self.describe(d)[0]: d for d in range(self._documents)}
        return self._numbers.get(identifier)

    def __del__(self) -> None:
        for file in (self._lines, self._offsets):
            if file is not None:
                file.close()
