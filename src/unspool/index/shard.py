"""Build one shard from its pieces: gather what goes beside the symbols, call the native builder.

The file is written by the engine under a temporary name and renamed, so its presence is the
marker of the step. It carries the digest of what it was built from (`origin`); a file with another
digest, or one that does not verify, is built again.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from unspool import _native
from unspool.errors import IndexCorrupt, IndexFileError
from unspool.index._files import TEMPORARY, sync_folder
from unspool.index.ingest import PieceRecord, read_piece
from unspool.index.sections import framed, id_table, starts, token_offsets
from unspool.index.settings import BuildSettings

SPOOL = "spool"


def shard_name(number: int, tier: str) -> str:
    return f"shard-{number:05d}.{tier}"


def shard_origin(settings: BuildSettings, digests: Sequence[str]) -> bytes:
    """What identifies the content of a shard: its settings and the digest of each piece."""
    kept = ("alphabet", "sa_sample", "isa_sample", "store_text", "normalise", "tier")
    seed = repr([getattr(settings, name) for name in kept]) + "\n" + "\n".join(digests)
    return hashlib.blake2b(seed.encode(), digest_size=16).digest()


def build_shard(
    out: Path,
    number: int,
    pieces: Sequence[str],
    origin: bytes,
    settings: BuildSettings,
    width: int,
    progress: Callable[[str, str, float], None] | None = None,
) -> dict[str, Any]:
    """Build every tier of one shard unless it is there already, and say what it holds.

    Args:
        out: The directory of the index.
        number: Of the shard.
        pieces: Names of the pieces that it is made of.
        origin: Digest of what it is made of.
        settings: Of the build.
        width: Bytes of a symbol in the spool.
        progress: Called with the tier, what is being done of it, and how far that is.

    Returns:
        `symbols`, `documents`, and `files`: for each tier the name, bytes and header checksum.
    """
    files: dict[str, Any] = {}
    records: list[PieceRecord] | None = None
    held: dict[str, Any] = {}
    for tier in settings.tiers:
        path = out / shard_name(number, tier)
        carries_sections = tier == settings.tiers[0]
        if not _is_done(path, origin):
            if records is None:
                records = [_load(out / SPOOL / name) for name in pieces]
            # A name of its own, as every writer has: on a cluster a lost task may still be writing.
            temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(4)}-{path.name}")
            _native.build_shard(
                str(temporary),
                tier=tier,
                width=width,
                pieces=[
                    (str(out / SPOOL / f"{name}.bin"), 0, record.head["size"])
                    for name, record in zip(pieces, records, strict=True)
                ],
                lengths=np.concatenate([r.lengths for r in records]).astype(np.uint64),
                sa_sample=settings.sa_sample,
                isa_sample=settings.isa_sample,
                sections=_sections(records, origin, settings, full=carries_sections),
                progress=progress and partial(progress, tier),
            )
            os.replace(temporary, path)
            sync_folder(out)
        held = _native.Index([str(path)]).info(0)
        files[tier] = describe_file(path)
    return {"symbols": held["symbols"], "documents": held["documents"], "files": files}


def describe_file(path: Path) -> dict[str, Any]:
    """Name, size and the checksum of the first page, which itself covers the checksum tables."""
    with open(path, "rb") as file:
        # Less its own checksum: a CRC that takes that in too is the same number for any page.
        head = file.read(4092)
    return {"name": path.name, "bytes": path.stat().st_size, "crc": _native.crc32c(head)}


def _is_done(path: Path, origin: bytes) -> bool:
    if not path.exists():
        return False
    try:
        index = _native.Index([str(path)])
        return index.section(0, "origin") == origin and not index.verify(0)
    except (IndexFileError, KeyError, ValueError):
        return False


def _load(path: Path) -> PieceRecord:
    record = read_piece(path)
    if record is None:
        raise IndexCorrupt(
            f"{path.name} in the spool is missing or damaged. Run the same build again: it reads "
            "that part of the input once more."
        )
    return record


def _sections(
    records: Sequence[PieceRecord], origin: bytes, settings: BuildSettings, *, full: bool
) -> list[tuple[str, bytes]]:
    """The opaque sections of a shard; with two tiers only the first carries more than `origin`."""
    sections = [("origin", origin)]
    if not full:
        return sections
    sections.append(("docs", framed(r.docs for r in records)))
    sections.append(("ids", id_table(np.concatenate([r.digests for r in records]))))
    if settings.tokenised:
        lengths = np.concatenate([r.lengths for r in records])
        marks = np.concatenate([r.marks for r in records])
        sections.append(("toff", token_offsets(lengths, marks)))
    if settings.store_text:
        sections.append(("text", framed(r.text for r in records)))
        lengths = np.concatenate([r.text_lengths for r in records])
        sections.append(("textpos", starts(lengths).tobytes()))
    return sections
