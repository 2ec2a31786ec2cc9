"""Λ-shaped attention: a local window at true distances, and the first tokens at a bounded one.

What: two (or three) exact calls over disjoint keys, each with its own rotation, merged by
log-sum-exp: the engine of LM-Infinite and StreamingLLM, which differ in the distance of the sinks.
The window of a chunk without padding is read as a few rectangles (see `band`), without a mask.
Source: LM-Infinite (Han et al. 2024), section 4; StreamingLLM (Xiao et al. 2024), section 3.2.
Differs from both released codes: no pass over what is not visible, no loop over heads, any chunking
gives the same result, padding is never a sink.
Cost: O(T * (window + sinks) * D) a chunk. Shapes: as `Call`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from unspool.attention.band import Part as Rectangle
from unspool.attention.band import Tile, add_tiles, attend_tiles, join, near_tiles
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
_MANY_QUERIES = 16


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
        parts = self.parts(call)
        return parts[0][0] if len(parts) == 1 else merge(parts)[0]

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
        beyond = call.start + call.q.shape[2] > self.window
        sinks: list[Part] = []
        if beyond and store.sink_k is not None and store.sink_v is not None:
            sinks = self.far(call, rotation, store.sink_k, store.sink_v)
        if self._is_band(call, local.positions):
            before = len(local) - call.q.shape[2]
            tiles = near_tiles(call.q.shape[2], before, self.window)
            return attend_band(q, local.k, local.v, tiles, sinks, scale=call.scale)
        spec = self._local_spec(call, local.positions, len(local))
        near = attend(q, local.k, local.v, spec=spec, scale=call.scale, return_lse=True)
        return [near, *sinks]

    def _is_band(self, call: Call, positions: Tensor | None) -> bool:
        """Several queries in a row whose window is geometry alone."""
        if call.positions is not None or positions is not None:
            return False
        if call.phase == "train" or call.q.requires_grad:
            return False  # rectangles are computed in place
        return call.spec.window is None and 1 < call.q.shape[2] <= self.window

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


def attend_band(
    q: Tensor, k: Tensor, v: Tensor, tiles: list[Tile], others: list[Part], *, scale: float
) -> list[Part]:
    """Parts of the attention over tiles (which every query has a pair in) and over `others`.

    On a CPU half precision is faster as products written out, relative to what the kernel gives for
    the triangle of new tokens and for `others`.
    """
    written: list[Tile] = []
    kernel = tiles
    if q.device.type == "cpu" and q.dtype.itemsize < 4 and q.shape[2] >= _MANY_QUERIES:
        kernel = [tile for tile in tiles if tile.shape == "lower"]
        written = [tile for tile in tiles if tile.shape != "lower"]
    near = join(attend_tiles(q, k, v, kernel, scale=scale), q)
    if not written:
        return [near, *others]
    out, lse = merge([near, *others])
    added = add_tiles(q, k, v, written, out, lse, scale=scale)
    if added is None:  # an exponential overflowed
        whole = Rectangle(slice(0, q.shape[2]), out, lse)
        added = join([whole, *attend_tiles(q, k, v, written, scale=scale)], q)
    return [added]


def sink_spec(call: Call, window: int, sinks: int, up_to: int | None = None) -> Spec:
    """Sinks at least `window` back (and nearer than `up_to`), for every query of a call."""
    import torch

    if call.positions is None and up_to is None and call.start >= window + sinks:
        return Spec(causal=False)  # every query is past them all
    slots = torch.arange(sinks, device=call.q.device)[None].expand(call.q.shape[0], -1)
    return Spec(beyond=window, window=up_to, q_positions=call.where(), k_positions=slots)
