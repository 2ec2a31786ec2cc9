"""A window of the newest tokens behind a few of the first ones: the store of Λ-shaped attention.

What: the first `sinks` tokens of each sequence, raw, and the newest `window` tokens, rotated by
their distance from a base that moves along; optionally everything between, raw.
Source: LM-Infinite, section 4; StreamingLLM, section 3.2.
Differs from the released code: the cache is really cut, chunk by chunk, and a written token neither
rotates nor copies what is kept; angles stay small however long the text is.
Cost: memory (sinks + window + 128) tokens. Shapes: as `KV`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unspool.caches.base import KV, Store, StoreReport, held_bytes
from unspool.caches.growing import Growing
from unspool.positions.rotation import Rotation

_SLACK = 128


class WindowStore(Store):
    """Sinks, a local window, and the middle if it is asked for."""

    needs_rotated = False

    def __init__(self, window: int, sinks: int, keep_middle: bool = False) -> None:
        """An empty store.

        Args:
            window: Tokens that a query meets at their true distance, itself included.
            sinks: First tokens of each sequence that are never evicted.
            keep_middle: Keep every token raw as well (for the top-k branch).
        """
        super().__init__()
        self.window = window
        self.sinks = sinks
        self.keep_middle = keep_middle
        self.local = Growing()
        self.everything = Growing()
        self.base = 0
        """Column that the local keys' rotation counts from."""
        self.sink_k: Tensor | None = None
        self.sink_v: Tensor | None = None
        self.sink_positions: Tensor | None = None
        """[B, sinks], -1 while the slot is empty."""
        self.sinks_turned: Tensor | None = None
        """The sinks as a query past them all meets them; made when first needed."""
        self._chunk: KV | None = None
        self._attended = 0

    def append(self, chunk: KV) -> None:
        self._chunk = chunk
        if self.sinks:
            self._take_sinks(chunk)
        if self.keep_middle:
            slack = max(_SLACK, len(self.everything) // 8)
            self.everything.append(chunk.k, chunk.v, chunk.positions, slack=slack)

    def take(self, rotation: Rotation) -> None:
        """Rotate the chunk that was appended, and put it behind the local window."""
        chunk, self._chunk = self._chunk, None
        if chunk is None:
            return
        k = rotation(chunk.k, self.from_base(chunk.start, chunk.positions))
        self.local.append(k, chunk.v, chunk.positions, slack=_SLACK)

    def from_base(self, start: int, positions: Tensor | None) -> Tensor | int:
        """Where tokens are, counted from the base that the local keys are rotated from."""
        return start - self.base if positions is None else positions - self.base

    def anchor(self, rotation: Rotation) -> None:
        """Move the base up to the local window when angles would grow past a few windows."""
        distance = self.local.start - self.base
        if distance >= 4 * self.window and self.local.k is not None:
            self.local.k.copy_(rotation.shift(self.local.k, -distance))
            self.base = self.local.start

    def segments(self) -> Sequence[KV]:
        local = self.local
        if local.k is None or local.v is None:
            return ()
        kept = KV(local.k, local.v, local.positions, local.start, rotated=True)
        if self.sink_k is None or self.sink_v is None:
            return (kept,)
        return (KV(self.sink_k, self.sink_v, self.sink_positions, rotated=False), kept)

    def settle(self) -> None:
        self._attended = self._count_attended()
        self.local.drop_front(max(0, len(self.local) - (self.window - 1)))

    def finish_prefill(self) -> None:
        if len(self.local) and self.local.bytes > self.local.bytes_used:
            self.local.fit()  # the room for chunks is not needed for single tokens

    def report(self) -> StoreReport:
        seen = self.seen - (0 if self.padding is None else int(self.padding[0]))
        tensors = [*self.local.tensors(), self.sink_k, self.sink_v, *self.everything.tensors()]
        tensors.append(self.sinks_turned)
        return StoreReport(
            seen=seen,
            attended=self._attended,
            stored=seen - self._attended if self.keep_middle else 0,
            bytes_device=held_bytes(tensors),
        )

    def state(self) -> dict[str, Tensor]:
        named = super().state()
        named.update({f"local.{n}": x for n, x in self.local.state().items()})
        if self.keep_middle:
            named.update({f"everything.{n}": x for n, x in self.everything.state().items()})
        named["base"] = torch.tensor(self.base)
        named["attended"] = torch.tensor(self._attended)
        return named

    def load_state(self, state: dict[str, Tensor]) -> None:
        for name in ("local", "everything"):
            prefix = f"{name}."
            own = {n.removeprefix(prefix): x for n, x in state.items() if n.startswith(prefix)}
            if own:
                getattr(self, name).load_state(own)
        self.sinks_turned = None
        self.base = int(state["base"])
        self._attended = int(state["attended"])
        super().load_state(state)
        if self.local.k is not None and self.local.v is not None:
            self.lazy_initialization(self.local.k, self.local.v)

    def _count_attended(self) -> int:
        near = self.local.positions
        if near is None:
            local = min(len(self.local), self.window)
            first = self.local.start + len(self.local) - local
            return local + min(self.sinks, first)
        newest = int(near[0].max())
        if newest < 0:
            return 0
        local = int(((near[0] >= 0) & (near[0] > newest - self.window)).sum())
        return local + min(self.sinks, max(0, newest + 1 - self.window))

    def _take_sinks(self, chunk: KV) -> None:
        """Put the first tokens of each sequence into their slots."""
        if self.sink_k is None or self.sink_v is None or self.sink_positions is None:
            shape = (chunk.k.shape[0], chunk.k.shape[1], self.sinks)
            self.sink_k = chunk.k.new_zeros(*shape, chunk.k.shape[-1])
            self.sink_v = chunk.v.new_zeros(*shape, chunk.v.shape[-1])
            self.sink_positions = torch.full(
                (shape[0], self.sinks), -1, dtype=torch.long, device=chunk.k.device
            )
        if chunk.positions is None:
            if self.padding is None and chunk.start >= self.sinks:
                return
            count = min(self.sinks - chunk.start, len(chunk))
            at = slice(chunk.start, chunk.start + count)
            self.sink_k[:, :, at] = chunk.k[:, :, :count]
            self.sink_v[:, :, at] = chunk.v[:, :, :count]
            self.sink_positions[:, at] = torch.arange(at.start, at.stop, device=chunk.k.device)
            return
        self.padding = chunk.start + len(chunk) - 1 - chunk.positions.amax(1)
        first = (chunk.positions >= 0) & (chunk.positions < self.sinks)
        rows, columns = first.nonzero(as_tuple=True)
        if rows.numel():
            slots = chunk.positions[rows, columns]
            self.sink_k[rows, :, slots] = chunk.k[rows, :, columns]
            self.sink_v[rows, :, slots] = chunk.v[rows, :, columns]
            self.sink_positions[rows, slots] = slots

    def _arguments(self) -> tuple[Any, ...]:
        return (self.window, self.sinks, self.keep_middle)

    def _tensors(self) -> dict[str, Tensor | None]:
        return {
            "sink_k": self.sink_k,
            "sink_v": self.sink_v,
            "sink_positions": self.sink_positions,
            "padding": self.padding,
        }

    def _map(self, change: Any) -> None:
        super()._map(change)
        self.sinks_turned = None
        self.local.map(change)
        self.everything.map(change)
