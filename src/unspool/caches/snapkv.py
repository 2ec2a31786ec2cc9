"""SnapKV: of a prompt that was read, keep the tokens that its last queries look at.

What: a stage after the prefill that keeps, in every key-value head, the newest `window` tokens and
of the older ones those with most attention from the window's queries, smoothed over neighbours.
Source: Li et al. (2024), "SnapKV: LLM Knows What You Are Looking for Before Generation", section 4.
Differs from the released code: heads that share keys vote together (their mean), so grouped heads
keep their saving; padding gets no vote and no place; probabilities come from the exact
log-sum-exp in blocks, never as one matrix.
Cost: O(window * S) once; `keep` tokens a head after that. Shapes: k, v [B, Hkv, S, D], queries
[B, Hq, W, D] of the last W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from unspool.attention.kernel import attend, mass
from unspool.attention.spec import Spec
from unspool.caches.base import KV
from unspool.caches.stages import Compression
from unspool.errors import ConfigError

if TYPE_CHECKING:
    from unspool._facts import ModelFacts


@dataclass(frozen=True, kw_only=True)
class SnapKV(Compression):
    """Evict, once the prompt was read, what its last queries do not look at."""

    name: ClassVar[str] = "snapkv"
    recalls: ClassVar[str] = "what the end of the prompt asked for"
    costs: ClassVar[str] = "`keep` tokens a layer after the prompt; all of them while reading it"
    needs_rotated: ClassVar[bool] = True

    keep: int = 1024
    """Tokens that each head keeps of the prompt, the window included."""
    window: int = 32
    """Newest tokens: always kept, and their queries vote."""
    kernel: int = 5
    """Neighbours over which votes are averaged; odd."""

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ConfigError(f"snapkv needs window >= 1, got window={self.window}.")
        if self.keep <= self.window:
            raise ConfigError(
                f"snapkv needs keep > window, got keep={self.keep} and window={self.window}."
            )
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ConfigError(f"snapkv needs an odd kernel >= 1, got kernel={self.kernel}.")

    def compress(self, facts: ModelFacts, layer: int) -> SnapKVStage:
        return SnapKVStage(self.keep, self.window, self.kernel)

    def kept_tokens(self, facts: ModelFacts) -> int | None:
        return self.keep

    def exact_within(self, facts: ModelFacts) -> int | None:
        return self.keep


@dataclass(frozen=True, slots=True)
class SnapKVStage:
    """What SnapKV does to one layer."""

    keep: int
    window: int
    kernel: int

    def __call__(self, kept: Sequence[KV], queries: Tensor) -> Sequence[KV]:
        (whole,) = kept
        if len(whole) <= self.keep or len(whole) <= queries.shape[2]:
            return kept
        return [evict(whole, votes(whole, queries, self.kernel), self.keep)]


def votes(kv: KV, queries: Tensor, kernel: int) -> Tensor:
    """Attention that each older key receives from the window, smoothed.

    Returns:
        [B, Hkv, S - W], summed over the window's queries and averaged over the query heads of a
        group.
    """
    window = queries.shape[2]
    spec = Spec()
    if kv.positions is not None:
        spec = Spec(q_positions=kv.positions[:, -window:], k_positions=kv.positions)
    _, lse = attend(queries, kv.k, kv.v, spec=spec, return_lse=True)
    received = mass(queries, kv.k, lse, spec=spec)[..., :-window]
    batch, num_kv_heads = kv.k.shape[:2]
    received = received.reshape(batch, num_kv_heads, -1, received.shape[-1]).mean(2)
    return F.avg_pool1d(received, kernel, stride=1, padding=kernel // 2)


def evict(kv: KV, scores: Tensor, keep: int) -> KV:
    """The `keep` tokens of each head with the highest scores, in order; what has no score, the
    newest tokens, always stays.

    Args:
        kv: All tokens, in one segment.
        scores: [B, Hkv, S - W], not negative.
        keep: Tokens of each head, at least W.
    """
    older, whole = scores.shape[-1], len(kv)
    if kv.positions is not None:
        # Padding comes last, in an order that is the same for all heads.
        last = -1.0 - torch.arange(older, device=scores.device, dtype=scores.dtype)
        scores = torch.where((kv.positions[:, None, :older] < 0), last, scores)
    best = scores.topk(keep - (whole - older), dim=-1).indices.sort(-1).values
    newest = torch.arange(older, whole, device=best.device).expand(*best.shape[:2], -1)
    index = torch.cat((best, newest), dim=-1)
    positions = None
    if kv.positions is not None:
        positions = kv.positions.gather(1, index[:, 0])
    return KV(
        k=_take(kv.k, index),
        v=_take(kv.v, index),
        positions=positions,
        start=kv.start,
        rotated=kv.rotated,
        origins=index.to(torch.int32),
    )


def _take(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(2, index[..., None].expand(-1, -1, -1, x.shape[-1]))
