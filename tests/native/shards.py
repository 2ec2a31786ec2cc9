"""Builds shards of the native engine from documents held in memory, for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from unspool import _native

DTYPES = {1: np.uint8, 2: np.dtype("<u2"), 4: np.dtype("<u4")}
TIERS = ["fm", "sa"]
WIDTHS = [1, 2, 4]


def pack(document: Sequence[int], width: int) -> bytes:
    return np.asarray(document, dtype=DTYPES[width]).tobytes()


def write_shard(
    out: Path, documents: Sequence[Sequence[int]], tier: str, width: int = 1, **settings: Any
) -> dict[str, Any]:
    """One shard file over these documents; the spool lies beside it."""
    spool = out.with_suffix(".spool")
    data = b"".join(pack(d, width) for d in documents)
    spool.write_bytes(data)
    return _native.build_shard(
        str(out),
        tier=tier,
        width=width,
        pieces=[(str(spool), 0, len(data))],
        lengths=np.array([len(d) for d in documents], dtype=np.uint64),
        **settings,
    )


def split(documents: Sequence[Sequence[int]], shards: int) -> list[list[Sequence[int]]]:
    """Consecutive groups of documents, as equal as whole documents allow."""
    marks = [len(documents) * i // shards for i in range(shards + 1)]
    return [list(documents[a:b]) for a, b in pairwise(marks)]


def build(
    folder: Path,
    documents: Sequence[Sequence[int]],
    tier: str,
    width: int = 1,
    shards: int = 1,
    ram: bool = False,
    **settings: Any,
) -> _native.Index:
    paths = []
    for i, group in enumerate(split(documents, shards)):
        path = folder / f"{tier}-{i}.idx"
        write_shard(path, group, tier, width, **settings)
        paths.append(str(path))
    return _native.Index(paths, ram)


def query(symbols: Sequence[int], width: int) -> Any:
    """The form that an index of this width takes: bytes for bytes, uint32 for ids."""
    return bytes(symbols) if width == 1 else np.array(list(symbols), dtype=np.uint32)


def hits(ix: _native.Index, symbols: Sequence[int], width: int = 1) -> list[tuple[int, int]]:
    """(document, start) of every occurrence over all shards, in position order."""
    found: list[tuple[int, int]] = []
    base = 0
    for shard, (lo, hi) in enumerate(ix.ranges(query(symbols, width))):
        rows = np.arange(lo, hi, dtype=np.uint64)
        documents, starts = ix.locate(shard, rows, len(symbols))
        found += [(base + int(d), int(s)) for d, s in zip(documents, starts, strict=True)]
        base += ix.info(shard)["documents"]
    return sorted(found)


def contents(ix: _native.Index, width: int = 1) -> list[list[int]]:
    """Every document, read back from the index."""
    documents = []
    for shard in range(ix.num_shards):
        for d in range(ix.info(shard)["documents"]):
            data = ix.extract(shard, d, 0, ix.document_length(shard, d))
            documents.append(np.frombuffer(data, dtype=DTYPES[width]).tolist())
    return documents


def following(answer: tuple[int, Any, Any]) -> tuple[int, dict[int, int]]:
    """`next` as (count, {symbol: count}), checked to be in ascending order."""
    total, symbols, counts = answer
    listed = [int(s) for s in symbols]
    assert listed == sorted(set(listed))
    return int(total), dict(zip(listed, (int(c) for c in counts), strict=True))
