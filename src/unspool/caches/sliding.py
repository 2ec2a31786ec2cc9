"""The newest tokens of a layer that was trained with a sliding window: all it ever attends to.

What: keys as the model rotates them and values of the last `window` - 1 tokens, and the chunk that
attends to them.
Source: the sliding layers of Mistral and Gemma models; transformers' `DynamicSlidingWindowLayer`.
Differs from transformers' layer: a written token neither copies nor concatenates what is kept, and
the store counts, saves and forks as every other one here does.
Cost: memory (window + 128) tokens between chunks. Shapes: as `KV`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unspool.caches.base import KV, Store, StoreReport, held_bytes
from unspool.caches.growing import Growing

_SLACK = 128


class SlidingStore(Store):
    """A rolling window of rotated keys, and nothing beyond it."""

    def __init__(self, window: int) -> None:
        """An empty store.

        Args:
            window: Tokens that a query meets, itself included.
        """
        super().__init__()
        self.window = window
        self.kept = Growing()
        self._attended = 0
        self._ragged = False
        """Whether padding lies between tokens, so that columns do not tell distances."""

    def append(self, chunk: KV) -> None:
        if chunk.positions is not None:
            self._count_padding(chunk.positions, chunk.start)
        self.kept.append(chunk.k, chunk.v, chunk.positions, slack=_SLACK)

    def segments(self) -> Sequence[KV]:
        if self.kept.k is None or self.kept.v is None:
            return ()
        return (KV(self.kept.k, self.kept.v, self.kept.positions, self.kept.start),)

    def settle(self) -> None:
        positions = self.kept.positions
        if positions is None:
            self._attended = min(len(self.kept), self.window)
        else:
            oldest = positions[0].max() - self.window
            self._attended = int(((positions[0] >= 0) & (positions[0] > oldest)).sum())
        self.kept.drop_front(self._past(positions))

    def finish_prefill(self) -> None:
        if len(self.kept) and self.kept.bytes > self.kept.bytes_used:
            self.kept.fit()  # the room for chunks is not needed for single tokens

    def report(self) -> StoreReport:
        seen = self.seen - (0 if self.padding is None else int(self.padding[0]))
        return StoreReport(
            seen=seen,
            attended=self._attended,
            stored=0,
            bytes_device=held_bytes(self.kept.tensors()),
        )

    def state(self) -> dict[str, Tensor]:
        named = super().state()
        named.update({f"kept.{name}": x for name, x in self.kept.state().items()})
        named["attended"] = torch.tensor(self._attended)
        named["ragged"] = torch.tensor(self._ragged)
        return named

    def load_state(self, state: dict[str, Tensor]) -> None:
        held = {n.removeprefix("kept."): x for n, x in state.items() if n.startswith("kept.")}
        self.kept.load_state(held)
        self._attended, self._ragged = int(state["attended"]), bool(state["ragged"])
        super().load_state(state)
        if self.kept.k is not None and self.kept.v is not None:
            self.lazy_initialization(self.kept.k, self.kept.v)

    def _count_padding(self, positions: Tensor, start: int) -> None:
        padded = positions < 0
        before = positions.new_zeros(len(positions)) if self.padding is None else self.padding
        real = (start - before)[:, None] + (~padded).cumsum(1)
        self._ragged = self._ragged or bool((padded & (real > 0)).any())
        self.padding = before + padded.sum(1)

    def _past(self, positions: Tensor | None) -> int:
        """Oldest columns that no later query of any sequence can meet."""
        if positions is None or not self._ragged:
            return max(0, len(self.kept) - (self.window - 1))
        newest = positions.amax(1, keepdim=True)
        needed = ((positions >= 0) & (positions > newest - (self.window - 1))).any(0)
        return int(needed.int().argmax()) if bool(needed.any()) else len(self.kept)

    def _arguments(self) -> tuple[Any, ...]:
        return (self.window,)

    def _tensors(self) -> dict[str, Tensor | None]:
        return {"padding": self.padding}

    def _map(self, change: Any) -> None:
        super()._map(change)
        self.kept.map(change)
