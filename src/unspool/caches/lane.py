"""The memory of sequences that are in step: a window, the first tokens, and blocks to look up.

What: `push` takes tokens in, `look_up` brings the blocks that answer a query to hand, `advance`
moves what left the window into the first tokens and into blocks.
Source: InfLLM (Xiao et al. 2024), sections 3.1 and 3.2.
Differs from the released code: sequences that are in step share every operation; window keys are
kept raw and rotated, so nothing is rotated again while the window moves; the blocks at hand stay in
their places while others come and go, since all of them are met at one distance.
Cost: a written token copies the blocks that were not wanted by the token before, and no others.
Shapes: b sequences; keys [b, Hkv, S, D]; scores [b, Hq, S]; block vectors [b, blocks, Hq * D].
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from unspool.caches.base import held_bytes
from unspool.caches.block_index import best_blocks, block_vectors, score_dtype
from unspool.caches.blocks import Block, Policy, Residents, Shelf, Slab, slabs_of
from unspool.caches.growing import Growing
from unspool.positions.rotation import Rotation

_TRACE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySettings:
    """What a block memory is made of; the names are those of `InfLLM`."""

    local: int
    init: int
    block: int
    top_k: int
    representatives: int
    resident_blocks: int
    policy: Policy
    decay: int | float
    index: Literal["exact", "faiss"]
    offload: str
    lookup_every: int


class LookUp(NamedTuple):
    """Blocks that queries `first` … `last` (positions in the text) met."""

    first: int
    last: int
    blocks: tuple[int, ...]


class Lane:
    """The memory of one layer for sequences `rows` of the batch, which have read equally far."""

    def __init__(self, settings: MemorySettings, rows: list[int]) -> None:
        self.settings = settings
        self.rows = rows
        self.read = 0
        """Tokens of each sequence."""
        self.base = 0
        """Position that the rotation of window keys counts from."""
        self.window = Growing()
        """Raw keys and values of every token that is neither a first one nor in a block."""
        self.turned = Growing()
        """Of the same tokens: rotated keys, and scores [b, Hq, S, 1]."""
        self.far_k: Tensor | None = None
        """Raw: [first tokens | slots of blocks | room for window tokens that are far by now]."""
        self.far_v: Tensor | None = None
        self.blocks: list[list[Block]] = [[] for _ in rows]
        self.vectors: Tensor | None = None
        """One a block, with room for more."""
        self.slots: list[list[int]] = [[] for _ in rows]
        """Block number in each slot."""
        self.residents: list[Residents] | None = None
        self.trace: list[deque[LookUp]] = [deque(maxlen=_TRACE) for _ in rows]
        self._turned_by: tuple[Tensor, float] | None = None
        self._age = 0
        self._known = 0

    @property
    def num_blocks(self) -> int:
        return len(self.blocks[0])

    @property
    def first(self) -> int:
        """Position of the oldest token of the window."""
        return self.read - len(self.window)

    @property
    def num_init(self) -> int:
        return self.first - self.num_blocks * self.settings.block

    # ---- reading

    def push(self, k: Tensor, v: Tensor, rotation: Rotation, num_heads: int) -> None:
        """Take new tokens into the window: k, v [b, Hkv, T, D], raw."""
        self._anchor(rotation)
        slack = max(256, k.shape[2])
        scores = k.new_zeros(k.shape[0], num_heads, k.shape[2], 1, dtype=score_dtype(k))
        self.turned.append(rotation(k, self.read - self.base), scores, None, slack=slack)
        self.window.append(k, v, None, slack=slack)
        self.read += k.shape[2]

    def near(self) -> tuple[Tensor, Tensor]:
        """Rotated keys and values of the window."""
        assert self.turned.k is not None
        assert self.window.v is not None
        return self.turned.k, self.window.v

    def far(self, prefix: int) -> tuple[Tensor, Tensor]:
        """Raw keys and values of the first tokens, the blocks at hand, and the first `prefix`
        tokens of the window, which every query is past."""
        assert self.window.k is not None
        assert self.window.v is not None
        far_k, far_v = self._far()
        held = self.num_init + len(self.slots[0]) * self.settings.block
        if prefix:
            far_k[:, :, held : held + prefix] = self.window.k[:, :, :prefix]
            far_v[:, :, held : held + prefix] = self.window.v[:, :, :prefix]
        return far_k[:, :, : held + prefix], far_v[:, :, : held + prefix]

    def score(self, received: Tensor) -> None:
        """Add to the scores [b, Hq, S] of the window's tokens."""
        assert self.turned.v is not None
        self.turned.v[..., 0] += received

    def advance(self, shelf: Shelf) -> None:
        """Move what is past the window: first tokens first, then whole blocks."""
        settings = self.settings
        over = len(self.window) - settings.local
        if over <= 0:
            return
        missing = min(settings.init - self.num_init, over) if not self.num_blocks else 0
        if missing > 0:
            far_k, far_v = self._far()
            at = slice(self.num_init, self.num_init + missing)
            assert self.window.k is not None
            assert self.window.v is not None
            far_k[:, :, at] = self.window.k[:, :, :missing]
            far_v[:, :, at] = self.window.v[:, :, :missing]
            self._drop(missing)
        count = (len(self.window) - settings.local) // settings.block
        if count > 0 and self.num_init == settings.init:
            self._cut(count, shelf)

    # ---- looking up

    def look_up(self, q: Tensor) -> None:
        """Bring the blocks to hand that answer queries q [b, Hq, T, D], which stand at the distance
        that blocks are met at, best."""
        if not self.num_blocks:
            return
        queries, settings = q.shape[2], self.settings
        fresh = queries > 1 or self._known != self.num_blocks or self._age >= settings.lookup_every
        if fresh:
            for row, wanted in enumerate(self._best(q)):
                self._bring(row, wanted)
            self._age, self._known = 0, self.num_blocks
        self._age += 1
        self._remember(queries)

    def credit(self, mass: Tensor) -> None:
        """Attention [b, slots] that the blocks at hand received, for the policy `lru-s`."""
        for row, residents in enumerate(self.residents or ()):
            residents.credit(dict(zip(self.slots[row], mass[row].tolist(), strict=True)))

    def _best(self, q: Tensor) -> list[list[int]]:
        assert self.vectors is not None
        count, top_k = self.num_blocks, self.settings.top_k
        if count <= top_k:
            return [list(range(count))] * len(self.rows)
        return best_blocks(q, self.vectors[:, :count], top_k, self.settings.index)

    def _bring(self, row: int, wanted: list[int]) -> None:
        """Put the wanted blocks of one sequence into slots; those that are there stay."""
        slots = self.slots[row]
        chosen = set(wanted)
        there = set(slots)
        new = [block for block in wanted if block not in there]
        free = [slot for slot, block in enumerate(slots) if block not in chosen]
        free += range(len(slots), len(wanted))
        slots += [-1] * (len(wanted) - len(slots))
        load = self._loader(row)
        copies = self.residents[row].fetch(wanted, load) if self.residents else {}
        far_k, far_v = self._far()
        for block, slot in zip(new, free, strict=True):
            k, v = copies.get(block) or load(block)
            start = self.settings.init + slot * self.settings.block
            at = slice(start, start + self.settings.block)
            far_k[row, :, at], far_v[row, :, at] = k, v
            slots[slot] = block

    def _loader(self, row: int) -> Callable[[int], tuple[Tensor, Tensor]]:
        blocks = self.blocks[row]
        assert self.far_k is not None
        device = self.far_k.device
        elsewhere = self.residents is not None

        def bring(x: Tensor) -> Tensor:
            return x.to(device, non_blocking=True, copy=True)

        def load(number: int) -> tuple[Tensor, Tensor]:
            block = blocks[number]
            if not elsewhere:
                return block.k, block.v
            return bring(block.k), bring(block.v)

        return load

    def _remember(self, queries: int) -> None:
        for slots, trace in zip(self.slots, self.trace, strict=True):
            blocks = tuple(sorted(slots))
            if trace and trace[-1].blocks == blocks:
                blocks = trace[-1].blocks  # one tuple for many tokens
            if trace and queries > 1 and trace[-1].last > trace[-1].first:
                trace.pop()  # of what is read in one go, only the end is kept
            trace.append(LookUp(self.read - queries, self.read - 1, blocks))

    # ---- moving

    def _cut(self, count: int, shelf: Shelf) -> None:
        size = self.settings.block
        assert self.window.k is not None
        assert self.window.v is not None
        assert self.turned.v is not None
        k, v = (x[:, :, : count * size] for x in (self.window.k, self.window.v))
        scores = self.turned.v[:, :, : count * size, 0]
        self._append_vectors(block_vectors(k, scores, size, self.settings.representatives))
        self._meet_shelf(shelf, k)
        for row, blocks in enumerate(self.blocks):
            blocks += shelf.put(_split(k[row], size), _split(v[row], size))
        self._drop(count * size)

    def _meet_shelf(self, shelf: Shelf, k: Tensor) -> None:
        """Keep copies on the device if the shelf is elsewhere."""
        here = "cpu" if k.device.type == "cpu" else "none"
        if self.residents is None and shelf.place not in ("none", here):
            options = (self.settings.resident_blocks, self.settings.policy, self.settings.decay)
            self.residents = [Residents(*options) for _ in self.rows]

    def _append_vectors(self, new: Tensor) -> None:
        held = self.num_blocks
        if self.vectors is None or held + new.shape[1] > self.vectors.shape[1]:
            room = held + new.shape[1] + max(8, held // 4)
            grown = new.new_empty(new.shape[0], room, new.shape[2])
            if self.vectors is not None:
                grown[:, :held] = self.vectors[:, :held]
            self.vectors = grown
        self.vectors[:, held : held + new.shape[1]] = new

    def _drop(self, count: int) -> None:
        self.window.drop_front(count)
        self.turned.drop_front(count)

    def _far(self) -> tuple[Tensor, Tensor]:
        if self.far_k is None or self.far_v is None:
            settings = self.settings
            room = settings.init + (settings.top_k + 1) * settings.block
            k, v = self.window.k, self.window.v
            assert k is not None
            assert v is not None
            self.far_k = k.new_empty(*k.shape[:2], room, k.shape[3])
            self.far_v = v.new_empty(*v.shape[:2], room, v.shape[3])
        return self.far_k, self.far_v

    def _anchor(self, rotation: Rotation) -> None:
        """Keep angles small, and window keys under the frequencies in force."""
        now = (rotation.inv_freq, rotation.factor)
        before = self._turned_by
        self._turned_by = now
        changed = before is not None and not (
            before[0] is now[0] or (torch.equal(before[0], now[0]) and before[1] == now[1])
        )
        if changed or self.first - self.base >= 4 * self.settings.local:
            self.base = self.first
            if self.turned.k is not None and self.window.k is not None:
                self.turned.k.copy_(rotation(self.window.k, 0))

    # ---- batches, copies, files

    def take(self, sources: Sequence[int], rows: list[int]) -> Lane:
        """A lane whose sequence i is this one's `sources[i]`; blocks are shared."""
        other = copy.copy(self)
        other.rows = rows
        device = self.window.k.device if self.window.k is not None else None
        index = torch.tensor(sources, dtype=torch.long, device=device)
        other.window, other.turned = copy.copy(self.window), copy.copy(self.turned)
        for buffer in (other.window, other.turned):
            buffer.map(lambda x: x.index_select(0, index))
        other.far_k, other.far_v, other.vectors = (
            None if x is None else x.index_select(0, index)
            for x in (self.far_k, self.far_v, self.vectors)
        )
        other.blocks = [list(self.blocks[i]) for i in sources]
        other.slots = [list(self.slots[i]) for i in sources]
        other.trace = [self.trace[i].copy() for i in sources]
        if self.residents is not None:
            other.residents = [self.residents[i].copy() for i in sources]
        return other

    def tensors(self) -> list[Tensor | None]:
        """What is on the device, beside residents and blocks."""
        return [
            *self.window.tensors(), *self.turned.tensors(), self.far_k, self.far_v, self.vectors
        ]  # fmt: skip

    def resident_bytes(self) -> int:
        held = [x for r in self.residents or () for pair in r.held.values() for x in pair]
        return held_bytes(held)

    def state(self) -> dict[str, Tensor]:
        """Everything as named tensors."""
        slabs = slabs_of(block for blocks in self.blocks for block in blocks)
        number = {id(slab): i for i, slab in enumerate(slabs)}
        table = [[(number[id(b.slab)], b.number) for b in blocks] for blocks in self.blocks]
        out = {
            "rows": torch.tensor(self.rows),
            "counts": torch.tensor([self.read, self.base, self._age, self._known]),
            "slots": torch.tensor(self.slots, dtype=torch.long),
            "table": torch.tensor(table, dtype=torch.long),
        }
        for name in ("window", "turned"):
            buffer: Growing = getattr(self, name)
            out.update({f"{name}.{key}": x for key, x in buffer.state().items()})
        for name in ("far_k", "far_v", "vectors"):
            value = getattr(self, name)
            if value is not None:
                out[name] = value[:, : self.num_blocks] if name == "vectors" else value
        if self._turned_by is not None:
            out["inv_freq"], factor = self._turned_by
            out["factor"] = torch.tensor(factor, dtype=torch.float64)
        for i, slab in enumerate(slabs):
            out[f"slab{i}.k"], out[f"slab{i}.v"] = slab.k[: slab.used], slab.v[: slab.used]
        return out

    @classmethod
    def from_state(cls, settings: MemorySettings, shelf: Shelf, state: dict[str, Tensor]) -> Lane:
        """Take back what `state` gave."""
        lane = cls(settings, state["rows"].tolist())
        lane.read, lane.base, lane._age, lane._known = state["counts"].tolist()
        for name in ("window", "turned"):
            prefix = f"{name}."
            own = {n.removeprefix(prefix): x for n, x in state.items() if n.startswith(prefix)}
            getattr(lane, name).load_state(own)
        lane.far_k, lane.far_v = state.get("far_k"), state.get("far_v")
        lane.vectors = state.get("vectors")
        if "factor" in state:
            lane._turned_by = (state["inv_freq"], float(state["factor"]))
        slabs: list[Slab] = []
        while f"slab{len(slabs)}.k" in state:
            k, v = (state[f"slab{len(slabs)}.{part}"] for part in "kv")
            slab = shelf.room(k, v, k.shape[0])
            slab.k.copy_(k)
            slab.v.copy_(v)
            slab.used = k.shape[0]
            slabs.append(slab)
        lane.blocks = [[Block(slabs[s], i) for s, i in row] for row in state["table"].tolist()]
        lane.slots = state["slots"].tolist()
        if slabs and lane.window.k is not None:
            lane._meet_shelf(shelf, lane.window.k)
        return lane


def _split(x: Tensor, size: int) -> Tensor:
    """[Hkv, n * size, D] as n blocks [n, Hkv, size, D]."""
    blocks: Tensor = x.unflatten(1, (-1, size))
    return blocks.transpose(0, 1)
