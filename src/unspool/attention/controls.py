"""Controls for sparse attention: random blocks of keys, and the best ones.

What: the pattern of HiP (first keys, newest keys, chosen blocks) with another chooser: one that
looks at nothing, and one that computes all of the attention first. What a search is worth lies
between the two.
Source: random blocks as in BigBird (Zaheer et al. 2020), section 2; the best blocks are the upper
bound that sparse attention papers call oracle top-k.
Differs from BigBird: every head, layer and block of queries draws its own blocks, one from each of
n equal parts of the range, so none is drawn twice.
Cost: random O(n) a block of queries; best O(T * S * D), as dense attention. Shapes: as
`hip.search`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from unspool.attention.hip.functional import pattern
from unspool.attention.hip.layout import BlockLayout, Frame
from unspool.attention.hip.method import ChosenBlocks
from unspool.attention.hip.search import UNUSED, Chooser, pack

if TYPE_CHECKING:
    from unspool.attention.call import Call

_BYTES = 64 << 20
_MASK = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class RandomChoice:
    """Blocks drawn by seed, layer, head and position: the same on every device and in any cut."""

    seed: int = 0
    layer: int = 0
    refresh: tuple[int, ...] = (8,)

    def __call__(
        self, q: Tensor, k: Tensor, frame: Frame, scale: float, given: Sequence[Tensor] = ()
    ) -> list[Tensor]:
        kept, device = frame.layout.num_kept, q.device
        searched = frame.searched.to(device)
        bounds = searched[:, None] * torch.arange(kept + 1, device=device) // max(1, kept)
        start, size = bounds[:, :-1], bounds.diff(dim=-1)
        heads = torch.arange(q.shape[1], device=device)[:, None, None]
        number = (frame.first.to(device) // frame.block_q)[:, None]
        part = torch.arange(kept, device=device)
        drawn = part + 0 * number
        for key in (number + 0 * part, heads, self.layer, self.seed):
            drawn = _mix(drawn + key)
        at = start + (drawn * size >> 32)
        found = pack((at + frame.low).expand(drawn.shape), (size > 0).expand(drawn.shape))
        return [found.expand(q.shape[0], -1, -1, -1)]

    def of_call(self, call: Call) -> Chooser:
        return replace(self, layer=call.layer)


def _mix(x: Tensor) -> Tensor:
    """A well-mixed 32-bit number for each non-negative integer (held in int64)."""
    x = x & _MASK
    x = ((x ^ (x >> 16)) * 0x045D9F3B) & _MASK
    x = ((x ^ (x >> 16)) * 0x045D9F3B) & _MASK
    return ((x ^ (x >> 16)) + 0x9E3779B9) & _MASK


@dataclass(frozen=True, slots=True)
class BestChoice:
    """The blocks that receive most attention from a block of queries, over all of their keys."""

    by: Literal["mass", "max"] = "mass"
    """Probability summed over the queries, or the largest product of a sampled query, which is
    what a search looks at."""
    refresh: tuple[int, ...] = (1,)

    def __call__(
        self, q: Tensor, k: Tensor, frame: Frame, scale: float, given: Sequence[Tensor] = ()
    ) -> list[Tensor]:
        with torch.no_grad():
            return [self._choose(q.detach(), k.detach(), frame, scale)]

    def _choose(self, q: Tensor, k: Tensor, frame: Frame, scale: float) -> Tensor:
        kept = frame.layout.num_kept
        per_block = q.shape[0] * q.shape[1] * frame.block_q * k.shape[2] * 4
        step = max(1, _BYTES // max(1, per_block))
        parts = []
        for begin in range(0, frame.num_blocks, step):
            part = frame.rows(slice(begin, begin + step))
            worth = block_worth(q, k, part, scale, self.by)
            wanted = min(kept, worth.shape[-1])
            order = worth.sort(dim=-1, descending=True, stable=True).indices[..., :wanted]
            found = pack(order, ~torch.isneginf(worth.gather(-1, order)))
            if wanted < kept:
                unused = found.new_full((*found.shape[:-1], kept - wanted), UNUSED)
                found = torch.cat((found, unused), dim=-1)
            parts.append(found)
        return torch.cat(parts, dim=2)

    def of_call(self, call: Call) -> Chooser:
        return self


def block_worth(
    q: Tensor, k: Tensor, frame: Frame, scale: float, by: Literal["mass", "max"]
) -> Tensor:
    """What each key block is worth to blocks of queries, -inf outside the searched range.

    Returns:
        [B, Hq, NQ, ceil(S / block_k)].
    """
    layout, device = frame.layout, q.device
    num_keys, groups = k.shape[2], q.shape[1] // k.shape[1]
    offsets = torch.arange(frame.block_q)
    at = torch.minimum(frame.first[:, None] + offsets, frame.last[:, None])
    again = (frame.first[:, None] + offsets > frame.last[:, None]).to(device)
    rows = frame.samples() if by == "max" else at - frame.start
    asked = q[:, :, rows.to(device)]  # [B, Hq, NQ, P, D]
    grouped = asked.unflatten(1, (k.shape[1], groups))
    scores = (grouped @ k[:, :, None, None].transpose(-1, -2)).flatten(1, 2)
    scores = scores.to(torch.promote_types(q.dtype, torch.float32))
    pad = -num_keys % layout.block_k
    if by == "max":
        worth = scores.amax(-2)
        worth = torch.nn.functional.pad(worth, (0, pad), value=float("-inf"))
        worth = worth.unflatten(-1, (-1, layout.block_k)).amax(-1)
    else:
        if frame.causal:
            ahead = torch.arange(num_keys, device=device) > at.to(device)[..., None]
            scores = scores.masked_fill(ahead, float("-inf"))
        p = torch.softmax(scores * scale, dim=-1).masked_fill(again[..., None], 0.0).sum(-2)
        worth = torch.nn.functional.pad(p, (0, pad)).unflatten(-1, (-1, layout.block_k)).sum(-1)
    block = torch.arange(worth.shape[-1], device=device)
    outside = (block < frame.low) | (block >= frame.near.to(device)[:, None])
    masked: Tensor = worth.masked_fill(outside, float("-inf"))
    return masked


@dataclass(frozen=True, kw_only=True)
class RandomBlocks(ChosenBlocks):
    """First, newest and randomly drawn keys: what a search has to beat at the same budget."""

    name: ClassVar[str] = "random-blocks"
    recalls: ClassVar[str] = "the first, the newest and random parts: a control"
    costs: ClassVar[str] = "memory grows with the text; constant time a token"

    seed: int = 0
    """Of the drawing."""

    def _pattern(self, *, say: bool) -> tuple[BlockLayout, Chooser]:
        layout, _ = _tree_layout(self, say)
        return layout, RandomChoice(self.seed, refresh=(self.refresh,))


@dataclass(frozen=True, kw_only=True)
class OracleTopK(ChosenBlocks):
    """First, newest and the most attended keys, found by computing all: the bound of any search."""

    name: ClassVar[str] = "oracle-top-k"
    recalls: ClassVar[str] = "the keys that receive most attention: a control"
    costs: ClassVar[str] = "more than dense attention"

    refresh: int = 1
    """Written tokens that share a choice."""
    by: Literal["mass", "max"] = "mass"
    """Most attention received, or largest product, which is what a search looks at."""

    def _pattern(self, *, say: bool) -> tuple[BlockLayout, Chooser]:
        layout, _ = _tree_layout(self, say)
        return layout, BestChoice(self.by, (self.refresh,))


def _tree_layout(method: ChosenBlocks, say: bool) -> tuple[BlockLayout, Chooser]:
    chosen, window, sink = method._sizes()
    return pattern(
        "tree", k_tokens=chosen, block_q=method.block_q, block_k=method.block_k, window=window,
        sink=sink, stride=2, representative="center", refresh=(method.refresh,), say=say,
    )  # fmt: skip


def picture(size: int = 160) -> Tensor:
    """What random blocks let queries meet, sized as the picture of HiP: bool [T, S]."""
    from unspool.attention.hip.union import block_mask

    layout = BlockLayout(k_tokens=32, block_q=16, block_k=2, window=24, sink=8)
    frame = layout.frame(size, size)
    chosen = RandomChoice()(torch.zeros(1, 1, size, 1), torch.zeros(1, 1, size, 1), frame, 1.0)[-1]
    seen = block_mask(chosen, frame).dense(size, size)[0, 0]
    return seen & torch.ones_like(seen).tril()
