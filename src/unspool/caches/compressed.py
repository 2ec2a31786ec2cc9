"""A store that is dense while a prompt is read and compressed by stages once it is complete.

What: keeps every token and the last queries until `finish_prefill`, runs its stages in order
(eviction, thinner keys, fewer bits), frees what they replaced, and grows full-width after that.
Source: this project's own contract; each stage names its paper.
Differs from cache compressors that hook attention modules: the queries are those that the model
really used, the end of the prompt is told and not guessed, and memory really falls, layer by layer,
while the last chunk of the prompt passes.
Cost: a dense store's until the prompt ends (and `window` queries), then what the stages leave.
Shapes: k [B, Hkv, S, D], v [B, Hkv, S, Dv], queries [B, Hq, W, D].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unspool.caches import packed_state
from unspool.caches.base import KV, Store, StoreReport, held_bytes
from unspool.caches.dense import real_tokens
from unspool.caches.growing import Growing
from unspool.caches.quantise import PackedKV
from unspool.caches.stages import Stage
from unspool.errors import ConfigError


class CompressedStore(Store):
    """Dense, then compressed, then growing behind what is left."""

    is_croppable = True

    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.stages = tuple(stages)
        self.window = max((stage.window for stage in self.stages), default=0)
        self.front: tuple[KV | PackedKV, ...] = ()
        """What the stages left, but for the newest tokens."""
        self.kept = Growing()
        """Everything while the prompt is read; then its newest tokens and what follows."""
        self.rotated = True
        self.queries: Tensor | None = None
        """[B, Hq, W, D] of the last W columns; freed when the prompt is complete."""
        self.boundary: int | None = None
        """Columns of the prompt, once it was compressed."""
        self.prompt: Tensor | None = None
        """[B, 2] tokens of the prompt: real ones, and those that some head kept."""

    # ---- reading

    def append(self, chunk: KV) -> None:
        if not chunk.rotated and self.window:
            raise ConfigError(
                "SnapKV and ThinK compare keys with queries, so both have to be rotated before "
                "they are stored. Use them without a method that rotates late."
            )
        self.rotated = chunk.rotated
        slack = max(64, len(self.kept) // 8)
        self.kept.append(chunk.k, chunk.v, chunk.positions, slack=slack)

    def observe(self, queries: Tensor) -> None:
        if self.boundary is not None or not self.window:
            return
        new = queries[:, :, -self.window :]
        if self.queries is not None and new.shape[2] < self.window:
            old = self.queries[:, :, -(self.window - new.shape[2]) :]
            new = torch.cat((old, new), dim=2)
        self.queries = new.clone() if new.shape[2] < queries.shape[2] else new

    def segments(self) -> Sequence[KV]:
        front = [part if isinstance(part, KV) else part.open() for part in self.front]
        if self.kept.k is not None and self.kept.v is not None and len(self.kept):
            kept = self.kept
            front.append(KV(self.kept.k, self.kept.v, kept.positions, kept.start, self.rotated))
        return front

    # ---- compressing

    def finish_prefill(self) -> None:
        if self.boundary is not None or not self.seen:
            return
        (whole,) = self.segments()
        queries = self._last_queries(whole)
        parts: list[Any] = [whole]
        for stage in self.stages:
            parts = list(stage(parts, queries[:, :, -stage.window or queries.shape[2] :]))
        self.boundary = self.seen
        self.prompt = _count(whole, parts)
        self.queries = None
        if len(parts) == 1 and parts[0] is whole:
            return
        last = parts[-1]
        grows = isinstance(last, KV) and last.channels is None
        self.front = tuple(_own(part) for part in (parts[:-1] if grows else parts))
        self.kept = Growing()
        self.kept.start = self.seen
        if grows:
            # Right-aligned: the tokens that follow get the columns that follow.
            self.kept.start = self.seen - len(last)
            self.kept.append(last.k, last.v, last.positions, slack=0)

    def _last_queries(self, whole: KV) -> Tensor:
        queries = self.queries
        if queries is None:
            return whole.k.new_zeros(*whole.k.shape[:2], 0, whole.k.shape[3])
        if whole.positions is None:
            return queries
        padded = (whole.positions[:, -queries.shape[2] :] < 0)[:, None, :, None]
        return queries.masked_fill(padded, 0)

    # ---- the rest of the contract

    def crop(self, tokens_to_remove: int) -> None:
        count = abs(int(tokens_to_remove))
        if self.boundary is not None and count > self.seen - self.boundary:
            raise ConfigError(
                f"{count} tokens cannot be given back: the first {self.boundary:,} were compressed "
                f"when the prompt ended, and {self.seen - self.boundary} follow. Read the shorter "
                f"prompt anew."
            )
        self.kept.drop_back(count)
        self.seen -= count
        if self.queries is not None and count:
            self.queries = self.queries[:, :, : max(0, self.queries.shape[2] - count)]

    def report(self) -> StoreReport:
        if self.boundary is None or self.prompt is None:
            real = held = real_tokens(self.kept.positions, len(self.kept))
        else:
            later = self.seen - self.boundary
            positions = self.kept.positions
            new = real_tokens(None if positions is None else positions[:, -later:], later)
            real, held = (int(x) + (new if later else 0) for x in self.prompt[0])
        return StoreReport(seen=real, attended=held, stored=0, bytes_device=self.bytes())

    def bytes(self) -> int:
        """Bytes of everything held, each storage once."""
        front = [x for part in self.front for x in packed_state.tensors(part)]
        return held_bytes([*front, *self.kept.tensors(), self.queries])

    def state(self) -> dict[str, Tensor]:
        named = {"seen": torch.tensor(self.seen), "rotated": torch.tensor(self.rotated)}
        named.update({f"kept.{name}": x for name, x in self.kept.state().items()})
        if self.queries is not None:
            named["queries"] = self.queries
        if self.boundary is not None and self.prompt is not None:
            named["boundary"] = torch.tensor(self.boundary)
            named["prompt"] = self.prompt
        for number, part in enumerate(self.front):
            for name, x in packed_state.save(part).items():
                named[f"front.{number}.{name}"] = x
        return named

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.seen, self.rotated = int(state["seen"]), bool(state["rotated"])
        self.kept.load_state(_under(state, "kept."))
        self.queries, self.prompt = state.get("queries"), state.get("prompt")
        self.boundary = int(state["boundary"]) if "boundary" in state else None
        fronts = sorted({int(n.split(".")[1]) for n in state if n.startswith("front.")})
        self.front = tuple(packed_state.load(_under(state, f"front.{i}.")) for i in fronts)
        for part in self.segments():
            self.lazy_initialization(part.k, part.v)

    def _arguments(self) -> tuple[Any, ...]:
        return (self.stages,)

    def _tensors(self) -> dict[str, Tensor | None]:
        return {"queries": self.queries, "prompt": self.prompt}

    def _map(self, change: Any) -> None:
        super()._map(change)
        self.kept.map(change)
        self.front = tuple(packed_state.change(part, change) for part in self.front)


def _under(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): x for n, x in state.items() if n.startswith(prefix)}


def _own(part: KV | PackedKV) -> KV | PackedKV:
    """The segment without a view into memory that is to be freed, and without its bookkeeping."""
    if isinstance(part, PackedKV):
        return packed_state.change(part, _compact)
    return packed_state.change(replace(part, origins=None), _compact)


def _compact(x: Tensor) -> Tensor:
    held = x.untyped_storage().nbytes()
    return x if held <= x.numel() * x.element_size() else x.contiguous().clone()


def _count(whole: KV, parts: Sequence[KV | PackedKV]) -> Tensor:
    """[B, 2]: real tokens of the prompt, and those of them that some head kept."""
    batch, columns = whole.k.shape[0], len(whole)
    device = whole.k.device
    real = torch.ones(batch, columns, dtype=torch.bool, device=device)
    if whole.positions is not None:
        real = whole.positions >= 0
    kept = torch.zeros_like(real)
    column = 0
    for part in parts:
        origins = part.origins if isinstance(part, KV) else part.rest.origins
        if origins is not None:
            kept.scatter_(1, origins.flatten(1).long(), True)
        else:
            kept[:, column : column + len(part)] = True
        column += len(part)
    return torch.stack((real.sum(1), (kept & real).sum(1)), dim=1)
