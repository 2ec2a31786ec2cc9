"""InfLLM: every block of queries meets a local window, the first tokens, and the blocks of the past
that answer it best, looked up by a few representative tokens.

What: the past is kept in blocks of keys and values off the device. For each `exec_block` of queries
their mean, standing `local` - 1 tokens away, is compared with a vector a block; the `top_k` best
blocks, the first tokens and what has left the window are all met at that one distance, the window
at true distances, in one softmax.
Source: Xiao et al. (2024), "InfLLM: Training-Free Long-Context Extrapolation for LLMs with an
Efficient Context Memory", sections 3.1 and 3.2.
Differs from the released code: a key is never met twice (its complement mask counts from the end of
the input, not from the query); execution blocks start at multiples of `exec_block` in the text, so
the cutting into chunks of that multiple, padding and batches change nothing; any decoder, any
device, beams. Differs from the paper, as the code does: representative tokens are those that
received most attention (`score=logit` is the paper's mean product), and blocks on the device are
evicted by use (`policy=lru-s` is the paper's). In both, a later token of an execution block takes
part in the choice of blocks for an earlier one.
Cost: O(n * (init + top_k * block + local) * D) to read, and O(blocks * Hq * D) a look-up; scoring
multiplies queries and window keys once more. Memory of all tokens, off the device.
Shapes: as `Call`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from unspool.attention.band import (
    Part,
    Tile,
    add_tiles,
    attend_tiles,
    far_tiles,
    join,
    mass_tiles,
    near_tiles,
    sum_tiles,
)
from unspool.attention.call import Attend, Call
from unspool.caches.base import KV
from unspool.caches.blocks import Policy, check_place, room_for
from unspool.caches.lane import Lane, MemorySettings
from unspool.caches.memory import MemoryStore
from unspool.errors import BudgetError, ConfigError, UnspoolError
from unspool.methods import Method, Slot
from unspool.positions.rotation import Rotation

if TYPE_CHECKING:
    from torch import Tensor

    from unspool._facts import ModelFacts
    from unspool.caches.base import Store
    from unspool.caches.cache import UnspoolCache

_MANY_QUERIES = 16
Scoring = Literal["prob", "logit"]


@dataclass(frozen=True, kw_only=True)
class InfLLM(Method):
    """Looks up the past in blocks: recalls any part of a text of any length."""

    name: ClassVar[str] = "infllm"
    family: ClassVar[str] = "remap"
    slots: ClassVar[tuple[Slot, ...]] = ("store", "attend")
    recalls: ClassVar[str] = "any part of the text, a few blocks at a time"
    costs: ClassVar[str] = "constant time a token; memory grows with the text, off the device"
    system: ClassVar[str] = "infllm"

    local: int | None = None
    """Tokens met at their true distance; none: 4096, or half the trained window if that is less."""
    init: int | None = None
    """First tokens that are always met; none: 128, or 1/32 of the trained window if less."""
    block: int = 128
    """Tokens a block."""
    top_k: int | None = None
    """Blocks that a group of queries meets; none: 16, or what fits in the trained window."""
    representatives: int = 4
    """Tokens of a block that stand for it in a look-up, for each head."""
    exec_block: int | None = None
    """Queries that look up together; none: 512, or `local` if that is less."""
    resident_blocks: int | None = None
    """Blocks that stay on the device when all of them lie elsewhere; none: twice `top_k`."""
    policy: Policy = "lru"
    """Which of them goes: the one wanted longest ago, or the one with least attention (lru-s)."""
    decay: int | float = 0.1
    """What a block's attention is multiplied with at every look-up, for lru-s."""
    score: Scoring = "prob"
    """What makes a token representative: the attention it received, or its mean product."""
    index: Literal["exact", "faiss"] = "exact"
    """How block vectors are compared: in one product, or by faiss."""
    offload: str = "cpu"
    """Where blocks lie: cpu, none (on the device), or a folder (files mapped into memory)."""
    lookup_every: int = 1
    """Written tokens that share a look-up."""

    def __post_init__(self) -> None:
        least = {
            "local": 1, "init": 0, "block": 1, "top_k": 1, "representatives": 1, "exec_block": 1,
            "lookup_every": 1,
        }  # fmt: skip
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise ConfigError(f"infllm needs {name} >= {bound}, got {name}={value}.")
        if self.representatives > self.block:
            raise ConfigError(
                f"infllm: representatives={self.representatives} are more than the tokens of a "
                f"block, block={self.block}."
            )
        if not 0 <= self.decay <= 1:
            raise ConfigError(f"infllm needs 0 <= decay <= 1, got decay={self.decay}.")
        if self.local is not None:
            for name in ("block", "exec_block"):
                value = getattr(self, name)
                if value is not None and value > self.local:
                    raise ConfigError(
                        f"infllm needs {name} <= local, got {name}={value} and local={self.local}."
                    )
        if self.resident_blocks is not None and self.resident_blocks < (self.top_k or 1):
            raise ConfigError(
                f"infllm needs resident_blocks >= top_k, got resident_blocks="
                f"{self.resident_blocks} and top_k={self.top_k}."
            )
        check_place(self.offload)

    def resolve(self, facts: ModelFacts) -> InfLLM:
        window = facts.window
        local, init = self.local, self.init
        if local is None:
            local = max(self.block, 4096 if window is None else min(4096, window // 2))
        if init is None:
            init = 128 if window is None else min(128, window // 32)
        top_k = self.top_k
        if top_k is None:
            room = 16 if window is None else (window - local - init) // self.block
            top_k = max(1, min(16, self.resident_blocks or 16, room))
        method = replace(
            self,
            local=local,
            init=init,
            top_k=top_k,
            exec_block=self.exec_block or min(512, local),
            resident_blocks=self.resident_blocks or 2 * top_k,
        )
        if window is not None:
            method._check_window(window, facts.name)
        return method

    def _check_window(self, window: int, name: str) -> None:
        local, init, top_k = self.local or 0, self.init or 0, self.top_k or 0
        if top_k * self.block >= window:
            raise ConfigError(
                f"infllm: top_k={top_k} blocks of {self.block} are {top_k * self.block:,} tokens, "
                f"and {name} was trained on {window:,}. Take fewer or smaller blocks."
            )
        if local + top_k * self.block + init > window:
            warnings.warn(
                f"infllm: local={local}, init={init} and top_k={top_k} blocks of {self.block} are "
                f"{local + top_k * self.block + init:,} tokens to attend to, and {name} was "
                f"trained on {window:,}. It may answer worse than with fewer.",
                stacklevel=5,
            )

    def attend(self, facts: ModelFacts, layer: int) -> Attend:
        return BlockLookUp(settings=self._settings(), exec_block=self.exec_block or 1,
                           scoring=self.score)  # fmt: skip

    def store(self, facts: ModelFacts, layer: int) -> Store:
        return MemoryStore(self._settings())

    def capacity(self, facts: ModelFacts) -> int | None:
        return None

    def admit(self, facts: ModelFacts, *, tokens: int, rows: int) -> None:
        free = room_for(self.offload, facts.device)
        layers = len(facts.pick_layers(self.layers))
        needed = tokens * rows * layers * facts.bytes_per_token
        if free is not None and needed > free:
            where = {"cpu": "in memory", "none": f"on {facts.device}"}.get(
                self.offload, f"in {self.offload}"
            )
            raise BudgetError(
                f"infllm keeps {needed / 1e9:,.2f} GB for {tokens:,} tokens of {rows} sequences, "
                f"and {free / 1e9:,.2f} GB are free {where}. Take offload=FOLDER on a disk with "
                f"room, or load the model in half precision."
            )

    def kept_tokens(self, facts: ModelFacts) -> int | None:
        return None

    def exact_within(self, facts: ModelFacts) -> int | None:
        return self.local

    def prefill_chunk(self, facts: ModelFacts) -> int:
        size = self.exec_block or 512
        return size * max(1, 2048 // size)

    def _settings(self) -> MemorySettings:
        assert self.local is not None  # resolved
        assert self.init is not None
        assert self.top_k is not None
        return MemorySettings(
            local=self.local,
            init=self.init,
            block=self.block,
            top_k=self.top_k,
            representatives=self.representatives,
            resident_blocks=self.resident_blocks or 2 * self.top_k,
            policy=self.policy,
            decay=self.decay,
            index=self.index,
            offload=self.offload,
            lookup_every=self.lookup_every,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockLookUp:
    """The mechanism of a layer."""

    settings: MemorySettings
    exec_block: int
    scoring: Scoring = "prob"
    late: bool = True
    reads_segments: bool = False

    def __call__(self, call: Call) -> Tensor:
        rotation = call.rotate
        if not isinstance(rotation, Rotation):
            raise UnspoolError("infllm needs a rotary embedding.")
        if call.spec.mask is not None or call.spec.q_documents is not None:
            raise ConfigError(
                "infllm reads plain causal text: packed rows and masks of other shapes are "
                "refused. Use one text a row."
            )
        if call.spec.window is not None:
            raise ConfigError(
                f"infllm: layer {call.layer} attends to a sliding window of {call.spec.window}, "
                f"and has nothing to look up. Use layers=full."
            )
        if call.phase == "train":
            raise ConfigError("infllm is for reading, not for training: call model.eval().")
        store = call.store
        if store is None:  # no cache: the chunk is the whole text
            store = MemoryStore(self.settings)
            store.append(KV(call.k, call.v, call.positions, call.start, rotated=False))
        if not isinstance(store, MemoryStore):
            raise UnspoolError(f"infllm needs a MemoryStore, got {type(store).__name__}.")
        out = call.q.new_zeros(*call.q.shape[:3], call.v.shape[-1])
        for lane, rows, columns in store.pieces():
            whole = rows is None
            q, k, v = (x if whole else x[rows][:, :, columns] for x in (call.q, call.k, call.v))
            read = self._read(lane, q, k, v, rotation, call.scale, store)
            if rows is None:
                out = read
            else:
                at = columns if not isinstance(columns, slice) else _all(columns, rows)
                out[rows[:, None], :, at[None]] = read.transpose(1, 2)
        return out

    def _read(
        self,
        lane: Lane,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        rotation: Rotation,
        scale: float,
        store: MemoryStore,
    ) -> Tensor:
        """Tokens of a lane, one execution block after the other."""
        import torch

        outs = []
        start, total = 0, q.shape[2]
        while start < total:
            end = min(total, start + self.exec_block - lane.read % self.exec_block)
            at = slice(start, end)
            outs.append(self._block(lane, q[:, :, at], k[:, :, at], v[:, :, at], rotation, scale))
            lane.advance(store.shelf)
            start = end
        return outs[0] if len(outs) == 1 else torch.cat(outs, dim=2)

    def _block(
        self, lane: Lane, q: Tensor, k: Tensor, v: Tensor, rotation: Rotation, scale: float
    ) -> Tensor:
        queries, before, local = q.shape[2], len(lane.window), self.settings.local
        lane.push(k, v, rotation, q.shape[1])
        near_q = rotation(q, lane.read - queries - lane.base)
        near_k, near_v = lane.near()
        near = near_tiles(queries, before, local)
        written, kernel = _divide(near, q, self.scoring)
        parts = attend_tiles(near_q, near_k, near_v, kernel, scale=scale)
        rest: list[tuple[Tensor, Tensor, Tensor, list[Tile], Tensor | None]] = []
        far_q = None
        if before + queries > local:
            far_q = rotation.at_one(q, local - 1)
            if rotation.factor != 1.0:
                far_q = rotation.at_one(far_q, 0)  # the factor of the keys, which stay raw
            lane.look_up(far_q)
            far = far_tiles(queries, before, local)
            past = far[0].columns.stop if far and far[0].shape == "full" else 0
            far_k, far_v = lane.far(past)
            everyone = Tile(slice(0, queries), slice(0, far_k.shape[2]))
            if everyone.size and written and q.dtype.itemsize < 4:
                rest.append((far_q, far_k, far_v, [everyone], None))
            elif everyone.size:
                parts += attend_tiles(far_q, far_k, far_v, [everyone], scale=scale)
            if triangle := [tile for tile in far if tile.shape != "full"]:
                assert lane.window.k is not None
                parts += attend_tiles(far_q, lane.window.k, near_v, triangle, scale=scale)
        out, lse = join(parts, q)
        received = near_k.new_zeros(*q.shape[:2], near_k.shape[2], dtype=lse.dtype)
        if written:
            rest.append((near_q, near_k, near_v, written, received))
        for queries_, keys, values, tiles, gained in rest:
            added = add_tiles(queries_, keys, values, tiles, out, lse, scale=scale, received=gained)
            if added is None:  # an exponential overflowed
                parts = attend_tiles(queries_, keys, values, tiles, scale=scale)
                added = join([Part(slice(0, queries), out, lse), *parts], q)
                if gained is not None:
                    gained.copy_(mass_tiles(queries_, keys, added[1], tiles, scale=scale))
            out, lse = added
        if self.scoring == "prob":
            lane.score(received + mass_tiles(near_q, near_k, lse, kernel, scale=scale))
        else:
            lane.score(sum_tiles(near_q, near_k, near))
        if far_q is not None and lane.residents and self.settings.policy == "lru-s":
            self._credit(lane, far_q, lse, scale)
        return out

    def _credit(self, lane: Lane, far_q: Tensor, lse: Tensor, scale: float) -> None:
        """Tell the policy how much attention the blocks at hand received."""
        k, _ = lane.far(0)
        k = k[:, :, lane.num_init :]
        if k.shape[2]:
            tile = Tile(slice(0, far_q.shape[2]), slice(0, k.shape[2]))
            mass = mass_tiles(far_q, k, lse, [tile], scale=scale).sum(1)
            lane.credit(mass.unflatten(1, (-1, self.settings.block)).sum(-1))


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What one written token looked up."""

    position: int
    """Of the query in the text; the token written from it stands one further."""
    spans: dict[tuple[int, int], int]
    """Positions [start, end) of each block that was met, and in how many layers."""


def retrieved(cache: UnspoolCache, row: int = 0) -> list[Retrieved]:
    """For each token that was written last, the parts of the text that it looked up.

    Args:
        cache: Of an extended model with `infllm`.
        row: Of the batch.

    Returns:
        Oldest first: the end of what was read, then one entry a written token. Empty before
        anything was looked up.
    """
    found: dict[int, dict[tuple[int, int], int]] = {}
    for store in cache.stores:
        if not isinstance(store, MemoryStore):
            continue
        for look_up in store.look_ups(row):
            spans = found.setdefault(look_up.last, {})
            for block in look_up.blocks:
                span = store.span(block)
                spans[span] = spans.get(span, 0) + 1
    return [Retrieved(position, found[position]) for position in sorted(found)]


def _divide(near: list[Tile], q: Tensor, scoring: Scoring) -> tuple[list[Tile], list[Tile]]:
    """Tiles of the window that are attended by products written out, and by the kernel.

    On a CPU the kernel keeps no probabilities, and in half precision it is slower, so it takes what
    is new only: the others are taken relative to it.
    """
    many = q.device.type == "cpu" and q.shape[2] >= _MANY_QUERIES
    if not many or (scoring == "logit" and q.dtype.itemsize >= 4):
        return [], near
    new = [tile for tile in near if tile.shape == "lower"]
    return [tile for tile in near if tile not in new], new


def _all(columns: slice, like: Tensor) -> Tensor:
    import torch

    return torch.arange(columns.start, columns.stop, device=like.device)
