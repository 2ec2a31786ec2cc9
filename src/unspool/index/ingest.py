"""Read a part of a corpus into the spool: pieces of symbols, each with what is known about it.

A piece is `NAME.bin` (symbols of whole documents, no separators, little-endian) and `NAME.rec`
(written after it: lengths, ids, metadata, offsets). A task is a run of source files; its pieces
are numbered, and the last one says so. A task that was interrupted finds its finished pieces,
skips the records in them, and writes the rest: the pieces depend on the files and settings alone.
Cost: one piece and one document in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import zstandard
from numpy.typing import NDArray

from unspool import _native
from unspool.errors import BuildConflict, InputError
from unspool.index._files import read_record, write_atomic, write_record
from unspool.index.alphabet import Tokens
from unspool.index.normalise import normalise
from unspool.index.sections import TOKEN_STRIDE, Frames, FrameWriter, id_digest
from unspool.index.settings import BuildSettings

_BATCH = 1 << 20
"""Bytes of text given to a tokenizer at once."""


class Item(NamedTuple):
    """One document on its way in."""

    id: str
    data: bytes
    meta: Mapping[str, Any]


class Encoded(NamedTuple):
    """One document in symbols."""

    item: Item
    symbols: bytes
    length: int
    marks: NDArray[np.uint64]
    lossy: bool


@dataclass(slots=True)
class _Piece:
    """What has been collected of one piece."""

    settings: BuildSettings
    data: list[bytes] = field(default_factory=list)
    data_bytes: int = 0
    bytes_text: int = 0
    lossy: int = 0
    lengths: list[int] = field(default_factory=list)
    digests: list[int] = field(default_factory=list)
    marks: list[NDArray[np.uint64]] = field(default_factory=list)
    docs: FrameWriter = field(default_factory=FrameWriter)
    text: FrameWriter = field(default_factory=FrameWriter)
    text_lengths: list[int] = field(default_factory=list)

    def add(self, document: Encoded) -> None:
        item = document.item
        self.data.append(document.symbols)
        self.data_bytes += len(document.symbols)
        self.bytes_text += len(item.data)
        self.lossy += document.lossy
        self.lengths.append(document.length)
        self.digests.append(id_digest(item.id))
        self.docs.add_line(_line(item))
        if self.settings.tokenised:
            self.marks.append(document.marks)
        if self.settings.store_text:
            self.text.add_bytes(item.data)
            self.text_lengths.append(len(item.data))

    def write(
        self, path: Path, *, last: bool, raw: bool, notes: Mapping[str, int]
    ) -> dict[str, Any]:
        lengths = np.array(self.lengths, dtype="<u8")
        docs = self.docs.finish(lines=True)
        text = self.text.finish(lines=False)
        pack = zstandard.ZstdCompressor(level=1).compress
        crc = 0
        identity = hashlib.blake2b(digest_size=16)
        for part in self.data:
            crc = _native.crc32c(part, crc)
            identity.update(part)
        identity.update(lengths.tobytes())
        identity.update(docs.data)
        head = {
            "symbols": int(lengths.sum()),
            "documents": len(lengths),
            "bytes_text": self.bytes_text,
            "lossy": self.lossy,
            "values": f"{_values(self.data) if raw else 0:x}",
            "last": last,
            "notes": dict(notes),
            "size": self.data_bytes,
            "crc": crc,
            "digest": identity.hexdigest(),
        }
        write_atomic(path.with_suffix(".bin"), self.data, sync=False)
        parts = [
            pack(lengths.tobytes()),
            np.array(self.digests, dtype="<u8").tobytes(),
            pack(np.concatenate(self.marks or [np.empty(0, np.uint64)]).astype("<u8").tobytes()),
            pack(np.array(self.text_lengths, dtype="<u8").tobytes()),
        ]
        for frames in (docs, text):
            parts += [frames.data, frames.sizes.astype("<u8").tobytes()]
            parts += [frames.items.astype("<u8").tobytes()]
        write_record(path.with_suffix(".rec"), head, parts)
        return head


class PieceRecord(NamedTuple):
    """The sidecar of a finished piece, unpacked."""

    head: dict[str, Any]
    lengths: NDArray[np.uint64]
    digests: NDArray[np.uint64]
    marks: NDArray[np.uint64]
    text_lengths: NDArray[np.uint64]
    docs: Frames
    text: Frames


def read_piece(path: Path) -> PieceRecord | None:
    """The sidecar of a piece, or None if it is missing or damaged."""
    record = read_record(path.with_suffix(".rec"))
    if record is None:
        return None
    head, parts = record
    unpack = zstandard.ZstdDecompressor().decompress

    def numbers(raw: bytes) -> NDArray[np.uint64]:
        return np.frombuffer(raw, dtype="<u8")

    return PieceRecord(
        head,
        numbers(unpack(parts[0])),
        numbers(parts[1]),
        numbers(unpack(parts[2])),
        numbers(unpack(parts[3])),
        Frames(parts[4], numbers(parts[5]), numbers(parts[6])),
        Frames(parts[7], numbers(parts[8]), numbers(parts[9])),
    )


def data_is_sound(path: Path, head: Mapping[str, Any]) -> bool:
    """Whether the symbols of a piece are all there and unchanged."""
    crc, size = 0, 0
    try:
        with open(path.with_suffix(".bin"), "rb") as file:
            while block := file.read(1 << 22):
                crc = _native.crc32c(block, crc)
                size += len(block)
    except FileNotFoundError:
        return False
    return bool(size == head["size"] and crc == head["crc"])


def ingest(
    name: str,
    items: Iterable[Item],
    spool: Path,
    settings: BuildSettings,
    tokens: Tokens | None,
    *,
    check_size: Callable[[int, str], None],
    progress: Callable[[int], None],
    notes: Callable[[], dict[str, int]],
    reread: bool = False,
) -> list[dict[str, Any]]:
    """Bring one task to its end and return the heads of its pieces.

    Args:
        name: Of the task; pieces are `NAME-0000`, `NAME-0001`, ….
        items: The documents of the task, from the first on.
        check_size: Called with the symbols and the id of each document; raises if it is too large.
        progress: Called with the bytes of text read since the last call.
        notes: What the reader has changed so far; kept with the last piece.
        reread: The documents come from a program, not from files whose digest was checked: read
            them all, compare finished pieces with what was written, and expect bytes of any value.

    Raises:
        BuildConflict: With `reread`, if the documents are not those of the first run.
    """
    heads: list[dict[str, Any]] = []
    while (head := _finished(spool / f"{name}-{len(heads):04d}")) is not None:
        heads.append(head)
        if head["last"] and not reread:
            progress(sum(h["bytes_text"] for h in heads))
            return heads
    if reread:
        heads = []
    skip = sum(head["documents"] for head in heads)
    progress(sum(head["bytes_text"] for head in heads))
    iterator = iter(items)
    skipped = sum(1 for _ in islice(iterator, skip))
    if skipped < skip:
        raise InputError(f"The input has {skipped:,} documents where {skip:,} were read before.")

    piece = _Piece(settings)

    def close(last: bool) -> None:
        path = spool / f"{name}-{len(heads):04d}"
        earlier = read_record(path.with_suffix(".rec")) if reread else None
        raw = reread and tokens is None
        head = piece.write(path, last=last, raw=raw, notes=notes() if last else {})
        if earlier is not None and earlier[0]["digest"] != head["digest"]:
            raise BuildConflict(
                f"The documents given now are not those this index was begun with: they differ "
                f"among documents {sum(h['documents'] for h in heads):,} and on. Give the same "
                "documents in the same order, or build in an empty directory."
            )
        heads.append(head)

    size = settings.piece_size
    for document in encode(iterator, settings, tokens):
        check_size(document.length, document.item.id)
        incoming = len(document.symbols)
        # A large document gets a piece of its own, so that no shard must hold more than it needs.
        if piece.lengths and piece.data_bytes + incoming > size and 2 * incoming >= size:
            close(last=False)
            piece = _Piece(settings)
        piece.add(document)
        progress(len(document.item.data))
        if piece.data_bytes >= size:
            close(last=False)
            piece = _Piece(settings)
    close(last=True)
    return heads


def encode(
    items: Iterator[Item], settings: BuildSettings, tokens: Tokens | None
) -> Iterator[Encoded]:
    """Normalise each document and turn it into symbols."""
    nothing = np.empty(0, dtype=np.uint64)
    if tokens is None:
        for item in items:
            item = _normalised(item, settings)
            yield Encoded(item, item.data, len(item.data), nothing, False)
        return
    batch: list[Item] = []
    batch_bytes = 0
    for item in items:
        batch.append(_normalised(item, settings))
        batch_bytes += len(item.data)
        if batch_bytes >= _BATCH:
            yield from _tokenised(batch, settings, tokens)
            batch, batch_bytes = [], 0
    yield from _tokenised(batch, settings, tokens)


def _tokenised(batch: list[Item], settings: BuildSettings, tokens: Tokens) -> Iterator[Encoded]:
    texts = [_text(item) for item in batch]
    for item, ids in zip(batch, tokens.encode_many(texts), strict=True):
        spelled = tokens.spell_document(ids)
        lossy = spelled != item.data
        if lossy and not settings.allow_lossy:
            raise InputError(
                f"The tokens of document {item.id!r} do not spell its text: the tokenizer changes "
                f"it {_first_difference(item.data, spelled)}. Choose a byte-level tokenizer, index "
                "bytes, or allow it with --allow-lossy (counted in the report)."
            )
        ends = np.cumsum(tokens.byte_lengths[ids], dtype=np.uint64)
        marks = ends[TOKEN_STRIDE - 1 : -1 : TOKEN_STRIDE] - np.uint64(tokens.lead(ids))
        symbols = ids.astype(f"<u{tokens.width}").tobytes()
        yield Encoded(item._replace(data=spelled), symbols, len(ids), marks, lossy)


def _normalised(item: Item, settings: BuildSettings) -> Item:
    if not settings.normalise:
        return item
    return item._replace(data=normalise(_text(item), settings.normalisers).encode())


def _text(item: Item) -> str:
    try:
        return item.data.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"Document {item.id!r} is not UTF-8 at byte {error.start:,}; tokenizers and "
            "normalisation need text. Index it with the bytes alphabet, unchanged."
        ) from error


def _first_difference(text: bytes, spelled: bytes) -> str:
    at = next(
        (i for i, (a, b) in enumerate(zip(text, spelled, strict=False)) if a != b),
        min(len(text), len(spelled)),
    )
    around = slice(max(0, at - 8), at + 8)
    return f"at byte {at:,} ({text[around]!r} becomes {spelled[around]!r})"


def _line(item: Item) -> bytes:
    value: list[Any] = [item.id, dict(item.meta)] if item.meta else [item.id]
    try:
        return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError as error:
        raise InputError(
            f"The id or metadata of document {item.id!r} cannot be kept as JSON: {error}."
        ) from error


def _values(parts: list[bytes]) -> int:
    """How many distinct byte values occur, as a bit mask."""
    seen = np.zeros(256, dtype=bool)
    for part in parts:
        for start in range(0, len(part), _BATCH):
            block = np.frombuffer(part, np.uint8, min(_BATCH, len(part) - start), start)
            seen[block] = True
    return int.from_bytes(np.packbits(seen, bitorder="little").tobytes(), "little")


def _finished(path: Path) -> dict[str, Any] | None:
    record = read_record(path.with_suffix(".rec"))
    return record[0] if record and data_is_sound(path, record[0]) else None
