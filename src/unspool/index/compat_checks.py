"""What is wrong with a call of the compatible engine, in the form that its scripts expect: a dict
with `error`, or None."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unspool import _native

Error = dict[str, Any] | None


class Check:
    """Checks the arguments of calls against one open index."""

    def __init__(
        self,
        native: _native.Index,
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
