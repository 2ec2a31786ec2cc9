"""Λ-shaped attention: a local window at true distances, and the first tokens at a bounded one.

What: two (or three) exact calls over disjoint keys, each with its own rotation, merged by
log-sum-exp: the engine of LM-Infinite and StreamingLLM, which differ in the distance of the sinks.
Source: LM-Infinite (Han et al. 2024), section 4; StreamingLLM (Xiao et al. 2024), section 3.2.
Differs from both released codes: no pass over what is not visible, no loop over heads, any chunking
gives the same result, padding is never a sink.
Cost: O(T * (window + sinks) * D) a chunk. Shapes: as `Call`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from unspool.attention.call import Call
from unspool.attention.kernel import attend, merge
from unspool.attention.one import attend_one, why_not_one
from unspool.attention.spec import Spec
from unspool.caches.window import WindowStore
from unspool.errors import ConfigError, UnspoolError
from unspool.positions.rotation import Rotation

if TYPE_CHECKING:
    from torch import Tensor

Part = tuple["Tensor", "Tensor"]


@runtime_checkable
class FarSinks(Protocol):
    """The sinks beyond the window of a query."""

    @property
    def distance(self) -> int:
        """Position of a query past all of them, when sinks are turned as `sinks` turns them."""

    def sinks(self, rotation: Rotation, k: Tensor) -> Tensor:
        """The sinks' keys [B, Hkv, sinks, D], turned once for all later queries."""

    def __call__(self, call: Call, rotation: Rotation, k: Tensor, v: Tensor) -> list[Part]:
        """Parts over the sinks (raw keys, values) beyond the window, for any queries."""


@dataclass(frozen=True, slots=True)
class SinkWindow:
    """The local window and the sinks; `far` says how a query meets the sinks."""

    window: int
    """Keys at distance 0 … window - 1 are met at that distance."""
    sinks: int
    far: FarSinks
    """How a query meets the sinks beyond its window."""
    late: bool = True
    reads_segments: bool = False

    def __call__(self, call: Call) -> Tensor:
        store = call.store
        if isinstance(store, WindowStore) and self._settled(call, store):
            return self._one(call, store)
        return merge(self.parts(call))[0]

    def _settled(self, call: Call, store: WindowStore) -> bool:
        """One query a sequence, no padding, and either all sinks are beyond the window or none."""
        if store.padded or call.spec.window is not None or not call.spec.plain:
            return False
        if not isinstance(call.rotate, Rotation) or why_not_one(call.q, call.k) is not None:
            return False
        return call.start < self.window or call.start >= self.far.distance + self.sinks

    def _one(self, call: Call, store: WindowStore) -> Tensor:
        """A written token: one softmax over local keys and sinks, nothing rotated again."""
        rotation = call.rotate
        assert isinstance(rotation, Rotation)  # `_settled` looked
        store.anchor(rotation)
        store.take(rotation)
        local = store.local
        assert local.k is not None  # just appended
        assert local.v is not None
        q = rotation(call.q, call.start - store.base)
        parts = [(q, local.k, local.v)]
        if call.start >= self.window and store.sink_k is not None and store.sink_v is not None:
            if store.sinks_turned is None:
                store.sinks_turned = self.far.sinks(rotation, store.sink_k)
            far = rotation.at_one(call.q, self.far.distance)
            parts.append((far, store.sinks_turned, store.sink_v))
        return attend_one(parts, call.scale)

    def parts(self, call: Call) -> list[Part]:
        """Disjoint parts of the attention, for mechanisms that add one of their own."""
        rotation = call.rotate
        if not isinstance(rotation, Rotation):
            raise UnspoolError("Λ attention needs a rotary embedding.")
        if call.spec.mask is not None or call.spec.q_documents is not None:
            raise ConfigError(
                "Λ attention reads plain causal text: packed rows and masks of other shapes are "
                "refused. Use one text a row."
            )
        if isinstance(call.store, WindowStore):
            return self._cached(call, rotation, call.store)
        if call.store is not None:
            raise UnspoolError(f"Λ attention needs a WindowStore, got {type(call.store).__name__}.")
        return self._uncached(call, rotation)

    def _cached(self, call: Call, rotation: Rotation, store: WindowStore) -> list[Part]:
        store.anchor(rotation)
        store.take(rotation)
        local = store.local
        assert local.k is not None  # just appended
        assert local.v is not None
        q = rotation(call.q, store.from_base(call.start, call.positions))
        spec = self._local_spec(call, local.positions, len(local))
        parts = [
            attend(q, local.k, local.v, spec=spec, scale=call.scale, return_lse=True),
        ]
        beyond = call.start + call.q.shape[2] > self.window
        if beyond and store.sink_k is not None and store.sink_v is not None:
            parts += self.far(call, rotation, store.sink_k, store.sink_v)
        return parts

    def _uncached(self, call: Call, rotation: Rotation) -> list[Part]:
        """Without a cache the chunk is the whole text."""
        store = WindowStore(self.window, self.sinks)
        from unspool.caches.base import KV

        store.append(KV(call.k, call.v, call.positions, call.start, rotated=False))
        return self._cached(call, rotation, store)

    def _local_spec(self, call: Call, positions: Tensor | None, held: int) -> Spec:
        if call.positions is not None or positions is not None:
            where = positions
            if where is None:
                where = call.where()
            return Spec(window=self.window, q_positions=call.where(), k_positions=where)
        return Spec(window=self.window if held > self.window else None)


def sink_spec(call: Call, window: int, sinks: int, up_to: int | None = None) -> Spec:
    """Sinks at least `window` back (and nearer than `up_to`), for every query of a call."""
    import torch

    decode = call.positions is None and call.q.shape[2] == 1
    if decode and up_to is None and call.start >= window + sinks:
        return Spec(causal=False)  # the one query of a decode step is past them all
    slots = torch.arange(sinks, device=call.q.device)[None].expand(call.q.shape[0], -1)
    return Spec(beyond=window, window=up_to, q_positions=call.where(), k_positions=slots)
