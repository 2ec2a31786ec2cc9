"""Write an index out as an infini-gram v4 directory, which the released engine opens.

Order of the suffix array: suffixes compare by the little-endian bytes of their tokens, so by the
low byte first; a suffix that is the beginning of another comes first. Each document stands BEHIND
a separator of all ones.
Cost: memory for one shard at a time, about 20 bytes a token.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from unspool import _native
from unspool.errors import ConfigError, Unsupported
from unspool.index._files import storage, write_atomic
from unspool.index.alphabet import TOKENIZER_FILE
from unspool.index.engine import Index
from unspool.index.v4 import pointer_bytes

_WRITTEN = 1 << 22


def write_v4(index: Index, out: str | os.PathLike[str]) -> None:
    """Write an index as an infini-gram v4 directory: `u8` if of bytes, `u16` or `u32` if of tokens.

    Args:
        index: What to write; its shards stay as they are.
        out: A new or empty directory.

    Raises:
        Unsupported: A document holds the separator (byte 255), which v4 cannot tell from one.
    """
    folder = Path(out)
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty: give a new directory.")
        first = 0
        for shard, (documents, width) in enumerate(index.shards()):
            _write_shard(index, folder, shard, range(first, first + documents), width)
            first += documents
        tokenizer = index.tokenizer_json()
        if tokenizer is not None:
            write_atomic(folder / TOKENIZER_FILE, [tokenizer])


def _write_shard(index: Index, folder: Path, shard: int, documents: range, width: int) -> None:
    kind = f"<u{width}"
    separator = (1 << 8 * width) - 1
    parts: list[NDArray[np.uint32]] = []
    offsets, lines, line_offsets = [], [], []
    at = line_at = 0
    mark = np.array([separator], dtype=np.uint32)
    for number in documents:
        symbols = index.symbols(number)
        identifier, meta = index.describe(number)
        if len(symbols) and int(symbols.max()) >= separator:
            raise Unsupported(
                f"Document {identifier!r} holds the symbol {separator}, which infini-gram v4 keeps "
                "for the separator."
            )
        parts += [mark, symbols]
        offsets.append(at * width)
        at += 1 + len(symbols)
        line = orjson.dumps({"path": identifier, "linenum": 0, "metadata": meta}) + b"\n"
        lines.append(line)
        line_offsets.append(line_at)
        line_at += len(line)
    text = np.concatenate(parts)
    write_atomic(folder / f"tokenized.{shard}", [text.astype(kind).tobytes()])
    write_atomic(folder / f"table.{shard}", _table(text, width))
    write_atomic(folder / f"offset.{shard}", [np.array(offsets, dtype="<u8").tobytes()])
    write_atomic(folder / f"metadata.{shard}", lines)
    write_atomic(folder / f"metaoff.{shard}", [np.array(line_offsets, dtype="<u8").tobytes()])


def _table(text: NDArray[np.uint32], width: int) -> list[bytes]:
    """The suffix array as byte offsets of as few bytes as their number needs."""
    # Reading the bytes of a token backwards gives a number whose order is that of the bytes.
    ordered = text.astype(f"<u{width}").astype(f">u{width}").view(f"<u{width}").astype(np.uint32)
    order = _native.suffix_array(np.ascontiguousarray(ordered))
    size = pointer_bytes(len(text) * width)
    blocks = []
    for start in range(0, len(order), _WRITTEN):
        pointers = (order[start : start + _WRITTEN] * width).astype("<u8")
        blocks.append(pointers.view(np.uint8).reshape(-1, 8)[:, :size].tobytes())
    return blocks
