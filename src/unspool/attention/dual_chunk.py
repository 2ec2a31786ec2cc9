"""Dual chunk attention: distances fold back into the trained window, chunk by chunk.

What: a key at j always has position j mod s. A query at i has position i mod s for keys of its own
chunk, min(s + i mod s, c - 1) for those of the chunk before, c - 1 for older ones; causal, one
softmax over all three.
Source: An et al. (2024), "Training-Free Long-Context Scaling of Large Language Models"
(ChunkLlama), section 3.
Differs from the released code: any chunking of the input, padded batches, every architecture with a
rotary embedding; keys are rotated once, when they are stored.
Cost: O(n^2) as dense, three calls merged; memory as dense.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from unspool.attention.call import Attend, Call
from unspool.attention.kernel import attend, merge
from unspool.attention.spec import Spec
from unspool.caches.base import KV, Store
from unspool.caches.dense import DenseStore
from unspool.errors import ConfigError, UnspoolError
from unspool.methods import Method, Slot
from unspool.positions.rotation import Rotation

if TYPE_CHECKING:
    from unspool._facts import ModelFacts


@dataclass(frozen=True, kw_only=True)
class DualChunk(Method):
    """Everything in reach at trained distances; older chunks share one distance."""

    name: ClassVar[str] = "dual-chunk"
    family: ClassVar[str] = "remap"
    slots: ClassVar[tuple[Slot, ...]] = ("store", "attend")
    recalls: ClassVar[str] = "everything, without order among older chunks"
    costs: ClassVar[str] = "memory and time as the dense model"

    chunk: int | None = None
    """Chunk size s; none: three quarters of the trained window."""
    window: int | None = None
    """Trained window c; none: what the configuration says."""

    def resolve(self, facts: ModelFacts) -> DualChunk:
        window = self.window or facts.window
        if window is None:
            raise ConfigError(f"{facts.name} states no window; give one, as window=4096.")
        chunk = self.chunk or max(1, 3 * window // 4)
        if not 0 < chunk < window:
            raise ConfigError(
                f"dual-chunk needs 0 < chunk < window, got chunk={chunk} and window={window}."
            )
        return replace(self, chunk=chunk, window=window)

    def attend(self, facts: ModelFacts, layer: int) -> Attend:
        assert self.chunk is not None  # resolved
        assert self.window is not None
        return Folded(self.chunk, self.window)

    def store(self, facts: ModelFacts, layer: int) -> Store:
        assert self.chunk is not None  # resolved
        return FoldedStore(self.chunk)

    def capacity(self, facts: ModelFacts) -> int | None:
        return None


class FoldedStore(DenseStore):
    """Every key, rotated by its place in its chunk."""

    needs_rotated = False

    def __init__(self, chunk: int) -> None:
        super().__init__(rotated=True)
        self.chunk = chunk
        self.needs_rotated = False
        self._fresh: KV | None = None

    def append(self, chunk: KV) -> None:
        self._fresh = chunk

    def take(self, rotation: Rotation) -> None:
        """Rotate what was appended and keep it."""
        fresh, self._fresh = self._fresh, None
        if fresh is not None:
            k = rotation(fresh.k, fresh.where().clamp(min=0) % self.chunk)
            super().append(replace(fresh, k=k))

    def _arguments(self) -> tuple[int]:
        return (self.chunk,)


@dataclass(frozen=True, slots=True)
class Folded:
    """Own chunk, chunk before, older chunks: three calls, merged."""

    chunk: int
    window: int
    late: bool = True
    reads_segments: bool = False

    def __call__(self, call: Call) -> Tensor:
        rotation = call.rotate
        if not isinstance(rotation, Rotation):
            raise UnspoolError("Dual chunk attention needs a rotary embedding.")
        if call.spec.mask is not None or call.spec.q_documents is not None:
            raise ConfigError("Dual chunk attention reads plain causal text, one a row.")
        store = call.store
        if store is None:
            store = FoldedStore(self.chunk)
            store.append(KV(call.k, call.v, call.positions, call.start, rotated=False))
        if not isinstance(store, FoldedStore):
            raise UnspoolError(
                f"Dual chunk attention needs its own store, got {type(store).__name__}."
            )
        store.take(rotation)
        kept = store.segments()[0]
        if call.positions is not None:
            return self._padded(call, rotation, kept)
        outs = []
        first, total = call.start, call.start + call.q.shape[2]
        while first < total:  # one run of queries for every chunk that the call touches
            end = min(total, (first // self.chunk + 1) * self.chunk)
            rows = slice(first - call.start, end - call.start)
            outs.append(self._run(call, rotation, kept, rows, first, end))
            first = end
        return torch.cat(outs, dim=2)

    def _run(
        self, call: Call, rotation: Rotation, kept: KV, rows: slice, first: int, end: int
    ) -> Tensor:
        """Queries [first, end) of one chunk: three slices, no mask but causality in the last."""
        own = first // self.chunk * self.chunk
        before = max(0, own - self.chunk)
        where = torch.arange(first, end, device=call.q.device)
        q = call.q[:, :, rows]
        parts = []
        for begin, stop, at, spec in self._ranges(own, before, end, where):
            if stop > begin:
                k, v = kept.k[:, :, begin:stop], kept.v[:, :, begin:stop]
                parts.append(
                    attend(rotation(q, at), k, v, spec=spec, scale=call.scale, return_lse=True)
                )
        return merge(parts)[0]

    def _ranges(
        self, own: int, before: int, end: int, where: Tensor
    ) -> Sequence[tuple[int, int, Tensor, Spec]]:
        within = where % self.chunk
        everything = Spec(causal=False)
        return (
            (own, end, within, Spec()),
            (before, own, (self.chunk + within).clamp(max=self.window - 1), everything),
            (0, before, torch.full_like(where, self.window - 1), everything),
        )

    def _padded(self, call: Call, rotation: Rotation, kept: KV) -> Tensor:
        """Rows whose chunks begin at different columns: the same three parts by masks."""
        i, j = call.where(), kept.where()
        chunk_i, chunk_j = i.clamp(min=0) // self.chunk, j.clamp(min=0) // self.chunk
        apart = (chunk_i[:, :, None] - chunk_j[:, None, :])[:, None]
        within = i.clamp(min=0) % self.chunk
        folded = (
            (apart == 0, within),
            (apart == 1, (self.chunk + within).clamp(max=self.window - 1)),
            (apart > 1, torch.full_like(within, self.window - 1)),
        )
        parts = []
        for mask, at in folded:
            spec = Spec(q_positions=i, k_positions=j, mask=mask)
            q = rotation(call.q, at)
            parts.append(attend(q, kept.k, kept.v, spec=spec, scale=call.scale, return_lse=True))
        return merge(parts)[0]
