"""Search for the best blocks of keys by halving groups of them: HiP's tree, in plain PyTorch.

What: the range is cut into as many groups as blocks are kept; every round splits each group in two,
looks at one block of each half, and keeps the better half of the halves, until groups are blocks.
Source: Lee et al. (2024), "HiP Attention", section 3.1 and algorithm 1.
Differs from the paper: the block that stands for a half is its first, centre or last one (the paper
takes the first, the released v1.1 the centre); of equal scores the lower block wins; all blocks of
queries and heads are searched together, in pieces that fit 64 MiB.
Cost: 2n blocks looked at in each of ceil(log2(R / n)) rounds, for R blocks and n kept, times
block_k * block_q / stride products of D. Shapes: q [B, Hq, T, D], k [B, Hkv, S, D], NQ query
blocks, P sampled queries a block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor

from unspool.attention.hip.layout import Frame
from unspool.errors import ConfigError

if TYPE_CHECKING:
    from unspool.attention.call import Call

Representative = Literal["first", "center", "last"]
UNUSED = -1
_BYTES = 64 << 20


@runtime_checkable
class Chooser(Protocol):
    """Picks the blocks of keys that each block of queries meets beside sinks and window."""

    @property
    def refresh(self) -> tuple[int, ...]:
        """Written tokens after which each stage of the choice is made anew, coarsest first."""

    def __call__(
        self, q: Tensor, k: Tensor, frame: Frame, scale: float, given: Sequence[Tensor] = ()
    ) -> list[Tensor]:
        """What the stages leave, from the first that is not `given` on; the last is the choice:
        int32 [B, Hq, NQ, n] key blocks, ascending, -1 behind them."""

    def of_call(self, call: Call) -> Chooser:
        """The chooser for a call (a layer, a seed)."""


@dataclass(frozen=True, slots=True)
class TreeSearch:
    """The search of HiP as a chooser."""

    representative: Representative = "center"
    refresh: tuple[int, ...] = (8,)
    backend: str = "auto"

    def __call__(
        self, q: Tensor, k: Tensor, frame: Frame, scale: float, given: Sequence[Tensor] = ()
    ) -> list[Tensor]:
        return [tree_search(q, k, frame, representative=self.representative, backend=self.backend)]

    def of_call(self, call: Call) -> Chooser:
        return self


def tree_search(
    q: Tensor,
    k: Tensor,
    frame: Frame,
    *,
    representative: Representative = "center",
    backend: str = "auto",
) -> Tensor:
    """The blocks that the tree finds.

    Args:
        q: [B, Hq, T, D].
        k: [B, Hkv, S, D].
        frame: Of these queries and keys.
        representative: Which block stands for a group.
        backend: "auto", "torch" or "triton".

    Returns:
        int32 [B, Hq, NQ, n]: key blocks of the searched range, ascending, -1 behind them. A range
        of at most n blocks is kept whole.

    Raises:
        ConfigError: An unknown representative or back-end, or one that can't take the call.
    """
    if representative not in get_args(Representative):
        raise ConfigError(f"representative must be first, center or last, got {representative!r}.")
    if backend not in ("auto", "torch", "triton"):
        raise ConfigError(f"The search has backends auto, torch and triton, got {backend!r}.")
    kept = frame.layout.num_kept
    if not kept:
        return q.new_empty(*q.shape[:2], frame.num_blocks, 0, dtype=torch.int32)
    if backend != "torch":
        from unspool.attention.hip.kernel import triton_search, why_not_triton

        reason = why_not_triton(q, k, frame)
        if reason is None and (q.is_cuda or backend == "triton"):
            return triton_search(q, k, frame, representative)
        if backend == "triton":
            raise ConfigError(f"backend='triton' can't run here: {reason}.")
    with torch.no_grad():
        return _search(q.detach(), k.detach(), frame, representative)


def _search(q: Tensor, k: Tensor, frame: Frame, representative: Representative) -> Tensor:
    kept, size = frame.layout.num_kept, frame.layout.block_k
    heads = q.shape[0] * q.shape[1]
    row = heads * 2 * kept * size * (q.shape[-1] + frame.block_q) * q.element_size()
    step = max(1, _BYTES // row)
    parts = []
    for begin in range(0, frame.num_blocks, step):
        part = frame.rows(slice(begin, begin + step))
        sampled = q[:, :, part.samples().to(q.device)]
        parts.append(_tree(sampled, k, part, representative))
    return torch.cat(parts, dim=2)


def _tree(sampled: Tensor, k: Tensor, frame: Frame, representative: Representative) -> Tensor:
    kept = frame.layout.num_kept
    searched = frame.searched
    bounds = (searched[:, None] * torch.arange(kept + 1) // kept).to(k.device)
    shape = (*sampled.shape[:3], kept)
    start = bounds[:, :-1].expand(shape)
    size = bounds.diff(dim=-1).expand(shape)
    for _ in range(rounds(int(searched.max()), kept)):
        left = size // 2
        starts = torch.stack((start, start + left), dim=-1).flatten(-2)
        sizes = torch.stack((left, size - left), dim=-1).flatten(-2)
        at = stands_for(starts, sizes, representative) + frame.low
        score = block_scores(sampled, k, at, frame.layout.block_k)
        score = score.masked_fill(sizes == 0, float("-inf"))
        best = score.sort(dim=-1, descending=True, stable=True).indices[..., :kept]
        best = best.sort(dim=-1).values
        start, size = starts.gather(-1, best), sizes.gather(-1, best)
    return pack(start + frame.low, size > 0)


def rounds(searched: int, kept: int) -> int:
    """Rounds that cut `searched` blocks in `kept` groups down to single blocks."""
    return math.ceil(math.log2(max(1, -(-searched // kept)))) if kept else 0


def stands_for(start: Tensor, size: Tensor, representative: Representative) -> Tensor:
    """The block of each group that is looked at."""
    if representative == "first":
        return start
    if representative == "center":
        return start + size // 2
    return start + (size - 1).clamp(min=0)


def block_scores(sampled: Tensor, k: Tensor, blocks: Tensor, block_k: int) -> Tensor:
    """Largest product of a block's keys with the sampled queries.

    Args:
        sampled: [B, Hq, NQ, P, D].
        k: [B, Hkv, S, D].
        blocks: [B, Hq, NQ, C] key blocks, all of them whole.
        block_k: Keys a block.

    Returns:
        [B, Hq, NQ, C], unscaled.
    """
    keys = blocks[..., None] * block_k + torch.arange(block_k, device=k.device)
    picked = take_rows(k, keys.flatten(-2))
    products = picked @ sampled.transpose(-1, -2)
    best: Tensor = products.amax(-1).unflatten(-1, (-1, block_k)).amax(-1)
    return best


def take_rows(x: Tensor, at: Tensor) -> Tensor:
    """Rows of x [B, Hkv, S, D] by index [B, Hq, ..., C], heads in groups: [B, Hq, ..., C, D].

    Rows that lie evenly in memory (a slice of a growing buffer) are read where they are.
    """
    batch, num_kv_heads, num_keys, width = x.shape
    by_batch, by_head, by_row, by_channel = x.stride()
    even = by_channel == 1 and by_row == width and not (by_batch % width or by_head % width)
    if even and not x.requires_grad and num_keys:
        last = (batch - 1) * by_batch + (num_kv_heads - 1) * by_head + (num_keys - 1) * by_row
        flat = x.as_strided((last // width + 1, width), (width, 1), x.storage_offset())
        rows = (by_batch // width, by_head // width)
    else:
        flat, rows = x.reshape(-1, width), (num_kv_heads * num_keys, num_keys)
    groups = at.shape[1] // num_kv_heads
    head = torch.arange(at.shape[1], device=x.device) // groups
    base = torch.arange(batch, device=x.device)[:, None] * rows[0] + head * rows[1]
    index = at + base.view(*base.shape, *(1,) * (at.ndim - 2))
    return flat.index_select(0, index.flatten()).view(*at.shape, width)


def pack(blocks: Tensor, used: Tensor) -> Tensor:
    """Used blocks ascending, -1 behind them, as int32."""
    last = torch.iinfo(torch.int32).max
    ordered = blocks.int().masked_fill(~used, last).sort(dim=-1).values
    return ordered.masked_fill(ordered == last, UNUSED)
