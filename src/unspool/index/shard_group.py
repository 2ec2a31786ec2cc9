"""Some shards of an index, opened where they are to be searched, and asked by name.

What: one process of a cluster holds a run of consecutive shards by mmap and answers the questions
of the native engine, and of its documents, about them.
Source: infini-gram's advice for several machines: counts add, so shards need no merge.
Departures: none; what a question means is said in the engine's own interface.
Cost: that of the engine; each answer is copied once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unspool.errors import UnspoolError
from unspool.index._deadline import set_deadline

NATIVE = frozenset(
    (
        *("count", "ranges", "next", "prob", "longest_suffix", "infgram", "infgram_prob"),
        *("count_batch", "ranges_batch", "next_batch", "prob_batch", "longest_suffix_batch"),
        *("infgram_batch", "infgram_prob_batch", "longest_matches", "locate", "extract"),
        *("document_length", "document_lengths", "section", "warm", "verify", "info"),
    )
)
HOLDINGS = frozenset(
    ("places_of", "describe", "length", "offset", "read", "symbols", "span", "in_context")
)


class ShardGroup:
    """The shards [first, last) of all that lie in some directories."""

    def __init__(
        self, folders: Sequence[str], first: int, last: int, tier: str, load: str = "mmap"
    ) -> None:
        """Open them.

        Args:
            folders: Directories of the index, as every node sees them.
            first: Number of the first shard, counted over all directories.
            last: One more than that of the last.
            tier: `fm` or `sa`.
            load: `mmap` or `ram`.
        """
        from unspool.index.manifest import read_manifest
        from unspool.index.open import open_manifests

        parts, paths, at = [], [], 0
        for folder in map(Path, folders):
            manifest = read_manifest(folder)
            here = range(max(first, at), min(last, at + len(manifest.shards)))
            kept = tuple(manifest.shards[number - at] for number in here)
            at += len(manifest.shards)
            if kept:
                paths.append(folder)
                parts.append(replace(manifest, shards=kept))
        self.index = open_manifests(paths, parts, load, tier)

    def answer(self, name: str, args: Sequence[Any], seconds: float | None = None) -> Any:
        """The answer to one question, shards counted from the first of the group."""
        target: Any = None
        if name in NATIVE:
            target = self.index._native
        elif name in HOLDINGS:
            target = self.index._holdings
        if target is None:
            raise ValueError(f"A shard group answers no question {name!r}.")
        set_deadline(seconds)
        try:
            return getattr(target, name)(*args)
        finally:
            set_deadline(None)

    def reply(self, name: str, args: Sequence[Any], seconds: float | None = None) -> dict[str, Any]:
        """The same as plain data: an error of ours becomes its name and its message."""
        try:
            return {"result": self.answer(name, args, seconds)}
        except UnspoolError as error:
            return {"error": type(error).__name__, "message": str(error)}
