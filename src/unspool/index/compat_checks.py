"""What the compatible engine is given: the index to open, ids in a file, and calls to check.

What is wrong with a call is told in the form that scripts expect: a dict with `error`, else None.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unspool.index.engine import Index
from unspool.index.manifest import MANIFEST
from unspool.index.open import open_index
from unspool.index.remote import Native
from unspool.index.v4 import open_v4

Error = dict[str, Any] | None


class Check:
    """Checks the arguments of calls against one open index."""

    def __init__(
        self,
        native: Native,
        width: int,
        document_starts: Callable[[int], NDArray[np.int64]],
    ) -> None:
        self._native = native
        self._width = width
        self._starts = document_starts
        self._most = (1 << 8 * width) - 1

    def ids(self, ids: Any) -> Error:
        sound = isinstance(ids, list | tuple) and all(
            isinstance(i, int) and 0 <= i <= self._most for i in ids
        )
        return (
            None if sound else {"error": f"ids must be a list of integers from 0 to {self._most}"}
        )

    def cnf(self, cnf: Sequence[Sequence[Any]]) -> Error:
        sound = bool(cnf) and all(
            clause and all(term and self.ids(term) is None for term in clause) for clause in cnf
        )
        return None if sound else {"error": "cnf must be a non-empty, triply nested list of ids"}

    def rank(self, s: int, rank: int) -> Error:
        if error := self._shard(s):
            return error
        info = self._native.info(s)
        rows = info["symbols"] + info["documents"]
        return None if 0 <= rank < rows else {"error": f"rank must be in [0, {rows})"}

    def pointer(self, s: int, ptr: int) -> Error:
        if error := self._shard(s):
            return error
        size = (int(self._starts(s)[-1]) - 1) * self._width
        sound = 0 <= ptr < size and ptr % self._width == 0
        return None if sound else {"error": f"ptr must be a multiple of {self._width} below {size}"}

    def document(self, doc_ix: int) -> Error:
        shards = range(self._native.num_shards)
        total = sum(self._native.info(s)["documents"] for s in shards)
        return None if 0 <= doc_ix < total else {"error": f"doc_ix must be in [0, {total})"}

    def _shard(self, s: int) -> Error:
        most = self._native.num_shards
        return None if 0 <= s < most else {"error": f"s must be in [0, {most})"}


def open_for_scripts(given: str | Sequence[str] | Index, width: int, ram: bool) -> Index:
    """What `index_dir` names: a v4 directory, indexes built here, or one that is open already."""
    if isinstance(given, Index):
        return given
    folders = [given] if isinstance(given, str) else list(given)
    if len(folders) == 1 and not os.path.exists(os.path.join(folders[0], MANIFEST)):
        return open_v4(folders[0], width=width)
    return open_index([Path(f) for f in folders], load="ram" if ram else "mmap")


def read_ids(path: str | None) -> set[int]:
    """The ids of a file, one a line; none without a file."""
    return set(map(int, Path(path).read_text().split())) if path else set()
