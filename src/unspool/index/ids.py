"""Check that no two documents of a build have the same id.

The 64-bit digests of all ids are compared; ids are read only where two digests agree. A large
corpus is done in several passes over parts of the digests.
Cost: 8 bytes a document of one pass (at most 64 MiB), and reading the digests once a pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
import zstandard
from numpy.typing import NDArray

from unspool.errors import DuplicateDocument, IndexCorrupt
from unspool.index.ingest import PieceRecord, read_piece
from unspool.index.layout import Piece
from unspool.index.settings import BuildSettings
from unspool.index.source import Listing, Stream

_PASS = 1 << 23


def check_unique(
    spool: Path, pieces: Sequence[Piece], source: Listing | Stream, settings: BuildSettings
) -> None:
    """Raise DuplicateDocument, naming both places, if an id occurs twice."""
    total = sum(piece.documents for piece in pieces)
    passes = max(1, -(-total // _PASS))
    for number in range(passes):
        suspects = _repeated(spool, pieces, number, passes)
        if len(suspects):
            _compare(spool, pieces, suspects, source, settings)


def _repeated(spool: Path, pieces: Sequence[Piece], number: int, passes: int) -> NDArray[np.uint64]:
    """Digests that occur more than once, of those that belong to this pass."""
    parts = []
    for piece in pieces:
        digests = _record(spool, piece).digests
        parts.append(digests[digests % np.uint64(passes) == number] if passes > 1 else digests)
    values, counts = np.unique(np.concatenate(parts), return_counts=True)
    return values[counts > 1]


def _compare(
    spool: Path,
    pieces: Sequence[Piece],
    suspects: NDArray[np.uint64],
    source: Listing | Stream,
    settings: BuildSettings,
) -> None:
    seen: dict[str, tuple[int, int]] = {}
    task_start: dict[int, int] = {}
    for piece in pieces:
        task = int(piece.name.partition("-")[0])
        start = task_start.get(task, 0)
        task_start[task] = start + piece.documents
        record = _record(spool, piece)
        where = np.flatnonzero(np.isin(record.digests, suspects))
        if not len(where):
            continue
        names = _ids(record)
        for place in where.tolist():
            name = names[place]
            if name in seen:
                first = source.locate(*seen[name], settings)
                second = source.locate(task, start + place, settings)
                raise DuplicateDocument(
                    f"Two documents have the id {name!r}: {first} and {second}. Ids must be "
                    "unique: leave one out, or choose another --id-field."
                )
            seen[name] = (task, start + place)


def _ids(record: PieceRecord) -> list[str]:
    names: list[str] = []
    unpack = zstandard.ZstdDecompressor().decompress
    start = 0
    for size in record.docs.sizes.tolist():
        lines = unpack(record.docs.data[start : start + size]).splitlines()
        names += [orjson.loads(line)[0] for line in lines]
        start += size
    return names


def _record(spool: Path, piece: Piece) -> PieceRecord:
    record = read_piece(spool / piece.name)
    if record is None:
        raise IndexCorrupt(f"{piece.name} vanished from the spool. Run the same build again.")
    return record
