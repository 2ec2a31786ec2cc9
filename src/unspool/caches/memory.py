"""A block memory: the store of InfLLM, one lane for all sequences that have read equally far.

What: keeps every token of every sequence; hands each lane its tokens, padding left out, and joins
what the lanes say of themselves.
Source: InfLLM (Xiao et al. 2024), section 3; this project's contract of stores.
Differs from the released code: a batch is read together while its sequences are in step, and row by
row once padding sets them apart, so that a padded row gives what it gives alone; beams and forks
share their blocks.
Cost: memory of all tokens, on the device only (init + top_k * block + local) and a vector a block.
Shapes: as `KV`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from unspool.caches.base import KV, Store, StoreReport, held_bytes
from unspool.caches.blocks import Shelf, slabs_of
from unspool.caches.lane import Lane, LookUp, MemorySettings


class Piece(NamedTuple):
    """The part of a chunk that belongs to a lane."""

    lane: Lane
    rows: Tensor | None
    """Of the batch; None: all, in order."""
    columns: Tensor | slice
    """Those that are no padding."""


class MemoryStore(Store):
    """Every key and value of a layer, raw, most of them in blocks off the device."""

    needs_rotated = False

    def __init__(self, settings: MemorySettings) -> None:
        super().__init__()
        self.settings = settings
        self.shelf = Shelf(settings.offload)
        self.lanes: list[Lane] = []
        self._chunk: KV | None = None

    def append(self, chunk: KV) -> None:
        self._chunk = chunk

    def pieces(self) -> list[Piece]:
        """The chunk that was appended, lane by lane."""
        chunk, self._chunk = self._chunk, None
        if chunk is None:
            return []
        batch = chunk.k.shape[0]
        if not self.lanes:
            self.lanes = [Lane(self.settings, list(range(batch)))]
        real = None if chunk.positions is None else chunk.positions >= 0
        if real is not None and not bool(real.all()):
            return self._padded(real)
        everything = slice(0, len(chunk))
        if len(self.lanes) == 1:
            return [Piece(self.lanes[0], None, everything)]
        return [Piece(x, _index(x.rows, chunk.k), everything) for x in self.lanes]

    def segments(self) -> Sequence[KV]:
        """The windows, oldest first; what lies in blocks is reached by `look_up` only."""
        if len(self.lanes) != 1:
            return ()
        window = self.lanes[0].window
        if window.k is None or window.v is None:
            return ()
        return (KV(window.k, window.v, None, self.lanes[0].first, rotated=False),)

    def finish_prefill(self) -> None:
        for lane in self.lanes:
            lane.window.fit()  # the room for chunks is not needed for single tokens
            lane.turned.fit()

    def look_ups(self, row: int = 0) -> list[LookUp]:
        """Which blocks each written token of a sequence met (and the end of what was read), oldest
        first, at most the last 4,096."""
        for lane in self.lanes:
            if row in lane.rows:
                return list(lane.trace[lane.rows.index(row)])
        return []

    def span(self, block: int) -> tuple[int, int]:
        """Positions [start, end) of a block's tokens."""
        start = self.settings.init + block * self.settings.block
        return start, start + self.settings.block

    def counts(self) -> dict[str, int]:
        """Blocks of the first sequence, and how often a wanted block was on the device already."""
        residents = [r for lane in self.lanes for r in lane.residents or ()]
        first = next((lane for lane in self.lanes if 0 in lane.rows), None)
        return {
            "blocks": 0 if first is None else first.num_blocks,
            "hits": sum(r.hits for r in residents),
            "misses": sum(r.misses for r in residents),
        }

    def report(self) -> StoreReport:
        first = next((lane for lane in self.lanes if 0 in lane.rows), None)
        seen = attended = 0
        if first is not None:
            seen = first.read
            at_hand = first.num_init + len(first.slots[0]) * self.settings.block
            attended = at_hand + len(first.window)
        slabs = slabs_of(b for lane in self.lanes for blocks in lane.blocks for b in blocks)
        blocks = held_bytes([x for slab in slabs for x in (slab.k, slab.v)])
        near = held_bytes([x for lane in self.lanes for x in lane.tensors()])
        near += sum(lane.resident_bytes() for lane in self.lanes)
        place = self.settings.offload
        return StoreReport(
            seen=seen,
            attended=attended,
            stored=seen - attended,
            bytes_device=near + (blocks if place == "none" else 0),
            bytes_host=blocks if place == "cpu" else 0,
            bytes_disk=blocks if place not in ("none", "cpu") else 0,
        )

    # ---- batches, copies, files

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._take(beam_idx.tolist())

    def batch_select_indices(self, indices: Tensor) -> None:
        batch = sum(len(lane.rows) for lane in self.lanes)
        self._take(torch.arange(batch)[indices.cpu()].tolist())

    def batch_repeat_interleave(self, repeats: int) -> None:
        batch = sum(len(lane.rows) for lane in self.lanes)
        self._take([row for row in range(batch) for _ in range(repeats)])

    def copy(self) -> MemoryStore:
        other = MemoryStore(self.settings)
        other.seen = self.seen
        other.lanes = [lane.take(range(len(lane.rows)), list(lane.rows)) for lane in self.lanes]
        if self.is_initialized:
            other.dtype, other.device, other.is_initialized = self.dtype, self.device, True
        return other

    def state(self) -> dict[str, Tensor]:
        named = {"seen": torch.tensor(self.seen)}
        for number, lane in enumerate(self.lanes):
            named.update({f"lane{number}.{name}": x for name, x in lane.state().items()})
        return named

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.seen = int(state["seen"])
        self.lanes = []
        while True:
            prefix = f"lane{len(self.lanes)}."
            own = {n.removeprefix(prefix): x for n, x in state.items() if n.startswith(prefix)}
            if not own:
                break
            self.lanes.append(Lane.from_state(self.settings, self.shelf, own))
        window = self.lanes[0].window if self.lanes else None
        if window is not None and window.k is not None and window.v is not None:
            self.lazy_initialization(window.k, window.v)

    def _arguments(self) -> tuple[MemorySettings]:
        return (self.settings,)

    def _take(self, sources: list[int]) -> None:
        """Row i of the batch comes from row `sources[i]`."""
        lanes = []
        for lane in self.lanes:
            where = {row: i for i, row in enumerate(lane.rows)}
            rows = [row for row, source in enumerate(sources) if source in where]
            if rows:
                lanes.append(lane.take([where[sources[row]] for row in rows], rows))
        self.lanes = lanes

    def _padded(self, real: Tensor) -> list[Piece]:
        """Lanes whose rows have the same columns, made by splitting where they differ."""
        pieces: list[Piece] = []
        lanes: list[Lane] = []
        patterns = [tuple(row) for row in real.tolist()]
        for lane in self.lanes:
            groups: dict[tuple[bool, ...], list[int]] = {}
            for i, row in enumerate(lane.rows):
                groups.setdefault(patterns[row], []).append(i)
            for members in groups.values():
                rows = [lane.rows[i] for i in members]
                part = lane if len(groups) == 1 else lane.take(members, rows)
                lanes.append(part)
                columns = real[rows[0]].nonzero()[:, 0]
                if columns.numel():
                    pieces.append(Piece(part, _index(rows, real), columns))
        self.lanes = lanes
        return pieces


def _index(rows: list[int], like: Tensor) -> Tensor:
    return torch.tensor(rows, dtype=torch.long, device=like.device)
