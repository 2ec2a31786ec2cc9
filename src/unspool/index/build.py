"""Build an exact search index of texts, or finish one that was interrupted.

What: files or documents are read into a spool, joined into shards under a memory budget, and each
shard is indexed by the native engine in a process of its own.
Source: "Infini-gram" (arXiv 2401.17377), section 3, and "Infini-gram mini" (2506.12229), section 3.
Departures: shards are built apart and their counts add, so there is no merge step and no limit on
the length of a repeat; the plan is on disk before any work, so a build can be killed at any moment
and continued to the same bytes.
Cost: the text once more on disk while building; memory as given.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from unspool.errors import ConfigError
from unspool.index._run import processors
from unspool.index.builder import Builder, BuildProgress
from unspool.index.settings import (
    MIB,
    PIECE_SIZE,
    BuildReport,
    BuildSettings,
    Engine,
    Tier,
    parse_memory,
    parse_size,
)

MAX_DOCUMENT = 1 << 30
"""Default for the largest document, in bytes."""

MEMORY_A_WORKER = 512 * MIB
"""Fewer workers than processors are the default where they would have less than this each: every
query pays for every shard, and little memory makes small shards."""


def build_index(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    documents: Iterable[Any] | None = None,
    tier: Tier = "fm",
    alphabet: str = "bytes",
    memory: int | str = "8GiB",
    workers: int | None = None,
    engine: Engine = "local",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    text_field: str = "text",
    id_field: str = "id",
    sa_sample: int = 32,
    isa_sample: int = 64,
    shard_size: int | str | None = None,
    store_text: Literal["zstd"] | None = None,
    encoding_errors: Literal["strict", "replace"] = "strict",
    max_document: int | str = MAX_DOCUMENT,
    normalise: str | None = None,
    allow_lossy: bool = False,
    piece_size: int | str = PIECE_SIZE,
    progress: BuildProgress | None = None,
) -> BuildReport:
    """Build an index, or continue one that was interrupted; the result is the same bytes.

    Args:
        paths: Files and folders (txt, md, html, jsonl, parquet, gz and zst of them), or `-`.
        out: The directory of the index: new, empty, or one that this build was begun in.
        documents: Instead of paths, an iterable of Document, `(id, text)` or `(id, bytes)`, with an
            optional third item of metadata. Bytes may have any of the 256 values. To continue an
            interrupted build, give the same documents again.
        tier: `fm`, about 0.4 of the text; `sa`, about 5 times the text and faster; or both.
        alphabet: `bytes`, or `tokenizer:NAME` with a tokenizer.json, its folder or a known name.
        memory: Most bytes that all processes may hold together; at least 256 MiB.
        workers: Processes; default: one a processor, if each has 512 MiB of the memory.
        engine: `local` processes, or a `ray` or `slurm` cluster (extra `cluster`).
        include: Patterns of the files that a walk of a folder reads, whatever their extension.
        exclude: Patterns of the files and folders that it leaves out.
        text_field: The field of a record that holds its text.
        id_field: The field of a record that holds its id.
        sa_sample: fm tier: smaller finds places faster and takes more space.
        isa_sample: fm tier: smaller quotes text faster and takes more space.
        shard_size: Most bytes of text a shard; without it, memory and workers of the first run
            decide.
        store_text: `zstd` keeps the text too, so that quoting it is faster.
        encoding_errors: `replace` takes bytes that are not UTF-8 as U+FFFD and counts them.
        max_document: Largest document in bytes; a larger one is an error before it fills memory.
        normalise: nfc, lower and space, joined by `|`: done to the texts and to every str query.
        allow_lossy: Take documents that their tokens do not spell, and count them.
        piece_size: Bytes after which a shard may be cut.
        progress: Called with what is being done and how far it is.

    Raises:
        BuildConflict: `out` holds an index of other input or settings; the message says which.
        BudgetError: The memory budget is too small, with one that would do.
        IndexLocked: Another process is building there.
        StorageError: The disk is full or cannot be written.
        InputError: Something in the input cannot be read.
    """
    started = time.monotonic()
    if out is None:
        raise ConfigError("Say where the index should be: out=DIR.")
    settings = BuildSettings(
        tier=tier,
        alphabet=alphabet,
        text_field=text_field,
        id_field=id_field,
        sa_sample=sa_sample,
        isa_sample=isa_sample,
        store_text=store_text,
        encoding_errors=encoding_errors,
        normalise=normalise,
        allow_lossy=allow_lossy,
        shard_size=None if shard_size is None else parse_size(shard_size, "shard_size"),
        piece_size=parse_size(piece_size, "piece_size"),
    )
    if engine not in ("local", "ray", "slurm"):
        raise ConfigError(f"There is no engine {engine!r}: choose local, ray or slurm.")
    if workers is not None and workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers}.")
    if (paths is None) == (documents is None):
        raise ConfigError("Give either paths or documents.")
    budget = parse_memory(memory)
    builder = Builder(
        out=Path(out),
        settings=settings,
        memory=budget,
        workers=workers or max(1, min(processors(), budget // MEMORY_A_WORKER)),
        engine=engine,
        max_document=parse_size(max_document, "max_document"),
        progress=progress or (lambda stage, done, total: None),
        started=started,
    )
    walk = {"include": include, "exclude": exclude}
    return builder.build(paths, documents, walk)
