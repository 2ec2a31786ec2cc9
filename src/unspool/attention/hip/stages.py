"""Pruning in stages: chunks of keys that shrink from stage to stage, each kept by its best key.

What: the range is cut into chunks; the best key of each is found by going down a binary tree of its
keys, the best chunks are kept and cut into smaller ones for the next stage.
Source: Lee et al. (2025), "InfiniteHiP" (arXiv 2502.08910), sections 3.1 and 3.2; sizes as in the
released v1.2.
Differs from the released code: of equal scores the lower chunk wins; a stage that would keep every
chunk is passed over; positions are the model's own and keys stay on the device (the paper's other
two parts, other positions and offloading, are not built).
Cost: 2 keys a chunk in each of log2(chunk) steps, for R / chunk chunks in the first stage and
kept / chunk in the others. Shapes: as `search`; a chunk's start is a key block of the last stage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unspool.attention.hip.layout import Frame
from unspool.attention.hip.search import UNUSED, take_rows
from unspool.errors import ConfigError

if TYPE_CHECKING:
    from unspool.attention.call import Call
    from unspool.attention.hip.search import Chooser

_BYTES = 64 << 20
_LAST = torch.iinfo(torch.int64).max


@dataclass(frozen=True, slots=True)
class Stage:
    """One round of pruning."""

    chunk: int
    """Keys a chunk."""
    keep: int
    """Keys, in whole chunks, that are kept."""
    stride: int = 1
    """Every how many-th query takes part, counted from the last of a block."""
    refresh: int = 8
    """Written tokens after which the stage is done anew."""


STAGES = (
    Stage(chunk=256, keep=32768, stride=4, refresh=32),
    Stage(chunk=32, keep=8192, stride=4, refresh=16),
    Stage(chunk=8, keep=2048, stride=1, refresh=8),
)


@dataclass(frozen=True, slots=True)
class StagedSearch:
    """The stages as a chooser. Its key blocks are chunks of the last stage."""

    stages: tuple[Stage, ...] = STAGES

    def __post_init__(self) -> None:
        for coarse, fine in zip(self.stages, self.stages[1:], strict=False):
            if coarse.chunk % fine.chunk or coarse.keep < fine.keep:
                raise ConfigError(
                    f"Each stage needs chunks that divide those before it and keeps no more, got "
                    f"chunk={coarse.chunk}, keep={coarse.keep} before chunk={fine.chunk}, "
                    f"keep={fine.keep}."
                )
        for stage in self.stages:
            if stage.chunk < 1 or stage.chunk & (stage.chunk - 1) or stage.keep % stage.chunk:
                raise ConfigError(
                    f"A stage needs a chunk that is a power of two and divides what it keeps, got "
                    f"chunk={stage.chunk}, keep={stage.keep}."
                )
        if not self.stages:
            raise ConfigError("A search in stages needs at least one, got none.")

    @property
    def refresh(self) -> tuple[int, ...]:
        return tuple(stage.refresh for stage in self.stages)

    def __call__(
        self, q: Tensor, k: Tensor, frame: Frame, scale: float, given: Sequence[Tensor] = ()
    ) -> list[Tensor]:
        if frame.layout.block_k != self.stages[-1].chunk:
            raise ConfigError(
                f"The blocks of this layout have {frame.layout.block_k} keys, and the last stage "
                f"leaves chunks of {self.stages[-1].chunk}."
            )
        with torch.no_grad():
            return self._run(q.detach(), k.detach(), frame, given)

    def of_call(self, call: Call) -> Chooser:
        return self

    def _run(self, q: Tensor, k: Tensor, frame: Frame, given: Sequence[Tensor]) -> list[Tensor]:
        unit = frame.layout.block_k
        low, high = frame.low * unit, frame.near.to(q.device) * unit
        left = list(given)
        chunks = self._first(q, frame, low) if not left else left[-1].long()
        done = []
        for number in range(len(left), len(self.stages)):
            stage = self.stages[number]
            if number:
                chunks = _cut(chunks, self.stages[number - 1].chunk, stage.chunk, high)
            chunks = _prune(q, k, frame, stage, chunks, high)
            done.append(chunks)
        last = done[-1]
        return [*done[:-1], torch.where(last == UNUSED, UNUSED, last // unit).int()]

    def _first(self, q: Tensor, frame: Frame, low: int) -> Tensor:
        """Starts (keys) of the chunks of the first stage: [B, Hq, NQ, C], -1 unused."""
        size, unit = self.stages[0].chunk, frame.layout.block_k
        widest = max(0, int(frame.near.max()) * unit - low) if frame.num_blocks else 0
        starts = low + torch.arange(-(-widest // size), device=q.device) * size
        high = frame.near.to(q.device)[:, None] * unit
        starts = starts.expand(frame.num_blocks, -1).masked_fill(starts >= high, UNUSED)
        return starts.expand(*q.shape[:2], -1, -1)


def _cut(chunks: Tensor, size: int, smaller: int, high: Tensor) -> Tensor:
    """Each chunk as smaller ones; those behind the range are unused."""
    parts = torch.arange(size // smaller, device=chunks.device) * smaller
    starts = torch.where(chunks == UNUSED, UNUSED, chunks)[..., None] + parts
    starts = starts.masked_fill((chunks == UNUSED)[..., None], UNUSED).flatten(-2)
    return starts.masked_fill(starts >= high[:, None], UNUSED)


def _prune(
    q: Tensor, k: Tensor, frame: Frame, stage: Stage, chunks: Tensor, high: Tensor
) -> Tensor:
    """The best chunks of a stage, ascending, -1 behind them."""
    wanted = stage.keep // stage.chunk
    if chunks.shape[-1] <= wanted:
        return _ascending(chunks)
    every = torch.arange(0, frame.block_q, stage.stride)
    at = frame.last[:, None] - every
    rows = torch.where(at >= frame.first[:, None], at, frame.last[:, None]) - frame.start
    rows = rows.to(q.device)
    heads = q.shape[0] * q.shape[1]
    row = heads * chunks.shape[-1] * 2 * (q.shape[-1] + rows.shape[1]) * q.element_size()
    step = max(1, _BYTES // row)
    kept = []
    for begin in range(0, frame.num_blocks, step):
        piece = slice(begin, begin + step)
        some = chunks[:, :, piece]
        scores = _best_key(q[:, :, rows[piece]], k, some, stage.chunk, high[piece])
        order = scores.sort(dim=-1, descending=True, stable=True).indices[..., :wanted]
        kept.append(_ascending(some.gather(-1, order)))
    return torch.cat(kept, dim=2)


def _best_key(sampled: Tensor, k: Tensor, chunks: Tensor, size: int, high: Tensor) -> Tensor:
    """Score of the key that a descent by halves ends at: [B, Hq, NQ, C]."""
    start = chunks.clamp(min=0)
    limit = (high[:, None] - 1).clamp(min=0)
    best = _scores(sampled, k, torch.minimum(start, limit))
    for step in range(int(math.log2(size))):
        half = size >> (step + 1)
        right = start + half
        other = _scores(sampled, k, torch.minimum(right, limit))
        better = (other > best) & (right <= limit)
        start = torch.where(better, right, start)
        best = torch.where(better, other, best)
    return best.masked_fill(chunks == UNUSED, float("-inf"))


def _scores(sampled: Tensor, k: Tensor, keys: Tensor) -> Tensor:
    """Largest product of each key with the sampled queries."""
    best: Tensor = (take_rows(k, keys) @ sampled.transpose(-1, -2)).amax(-1)
    return best


def _ascending(chunks: Tensor) -> Tensor:
    ordered = chunks.masked_fill(chunks == UNUSED, _LAST).sort(dim=-1).values
    return ordered.masked_fill(ordered == _LAST, UNUSED)
