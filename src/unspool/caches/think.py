"""ThinK: keys of a prompt that was read keep only the channels that queries use.

What: a stage after the prefill that ranks the channels of each key head by the part they have in
the scores of the last queries, and stores older keys without the lowest.
Source: Xu et al. (2024), "ThinK: Thinner Key Cache by Query-Driven Pruning", sections 3.2 and 3.3,
eq. 4: the Frobenius norm of a channel's part of Q K^T is ||Q_j|| ||K_j||.
Differs from the released code: query heads that share keys rank together (the mean of their squared
norms), so grouped heads keep their saving; padding counts for nothing; the narrow keys are what is
stored and attended, while the released variants write zeros or widen them every step. Value pruning
(appendix) is left out.
Cost: floor(D * ratio) / (2 D) of the older tokens' memory is saved, less Hkv * d' index bytes of 8.
Shapes: k [B, Hkv, S, D] becomes [B, Hkv, S - recent, d'] and a full-width tail.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from unspool.caches.base import KV
from unspool.caches.stages import Compression, split
from unspool.errors import ConfigError

if TYPE_CHECKING:
    from unspool._facts import ModelFacts

log = logging.getLogger("unspool.caches")

Mode = Literal["narrow", "zero"]


@dataclass(frozen=True, kw_only=True)
class ThinK(Compression):
    """Store older keys without the channels that the last queries use least."""

    name: ClassVar[str] = "think"
    recalls: ClassVar[str] = "everything inside the window, with thinner keys"
    costs: ClassVar[str] = "ratio/2 less memory for the prompt's keys and values"
    needs_rotated: ClassVar[bool] = True
    system: ClassVar[str] = "think"
    place: ClassVar[int] = 1

    ratio: float = 0.4
    """Share of key channels that are dropped, rounded down to whole channels."""
    window: int = 32
    """Newest queries that decide."""
    recent: int = 32
    """Newest tokens of the prompt whose keys stay whole, as those written later do."""
    mode: Mode = "narrow"
    """zero: the same numbers with zeros in place, which saves nothing; for comparison."""

    def __post_init__(self) -> None:
        if not 0 <= self.ratio < 1:
            raise ConfigError(f"think needs 0 <= ratio < 1, got ratio={self.ratio}.")
        if self.window < 1 or self.recent < 0:
            raise ConfigError(
                f"think needs window >= 1 and recent >= 0, got window={self.window} and "
                f"recent={self.recent}."
            )

    def compress(self, facts: ModelFacts, layer: int) -> ThinKStage:
        return ThinKStage(self.ratio, self.window, self.recent, self.mode)


@dataclass(frozen=True, slots=True)
class ThinKStage:
    """What ThinK does to one layer."""

    ratio: float
    window: int
    recent: int
    mode: Mode = "narrow"

    def __call__(self, kept: Sequence[KV], queries: Tensor) -> Sequence[KV]:
        (whole,) = kept
        pruned = int(whole.k.shape[-1] * self.ratio)
        if pruned == 0:
            return kept
        if len(whole) < self.window + self.recent:
            _say_once(len(whole), self.window + self.recent)
            return kept
        scores = channel_scores(whole.k, queries)
        return drop_channels(whole, scores, pruned, recent=self.recent, mode=self.mode)


def channel_scores(k: Tensor, queries: Tensor) -> Tensor:
    """Squared Frobenius norm of each channel's part in the scores, up to a constant a row.

    Args:
        k: [B, Hkv, S, D], 0 at padding.
        queries: [B, Hq, W, D], 0 at padding.

    Returns:
        [B, Hkv, D], float32 or wider. Query heads of a group are averaged.
    """
    dtype = torch.promote_types(k.dtype, torch.float32)
    batch, num_kv_heads, _, head_dim = k.shape
    used = queries.to(dtype).square().sum(2).reshape(batch, num_kv_heads, -1, head_dim).mean(2)
    return used * k.to(dtype).square().sum(2)


def drop_channels(
    kv: KV, scores: Tensor, pruned: int, *, recent: int, mode: Mode = "narrow"
) -> list[KV]:
    """Older keys without the `pruned` channels of each head that score least.

    Args:
        kv: All tokens, in one segment.
        scores: [B, Hkv, D].
        pruned: Channels to drop.
        recent: Newest tokens that stay whole.
        mode: "narrow" stores what is left; "zero" writes zeros.

    Returns:
        The older tokens and, if there are any, the newest.
    """
    head_dim = kv.k.shape[-1]
    older, newer = split(kv, len(kv) - recent)
    channels = scores.topk(head_dim - pruned, dim=-1).indices.sort(-1).values
    index = channels[:, :, None].expand(-1, -1, len(older), -1)
    keys = older.k.gather(-1, index)
    if mode == "zero":
        filled = torch.zeros_like(older.k).scatter_(-1, index, keys)
        whole = torch.cat((filled, newer.k), dim=2)
        return [replace(kv, k=whole)]
    narrow = replace(older, k=keys, channels=channels)
    return [narrow, newer] if len(newer) else [narrow]


_said = False


def _say_once(tokens: int, needed: int) -> None:
    global _said
    if not _said:
        _said = True
        log.warning(
            "think leaves a prompt of %d tokens as it is: it takes %d (window + recent).",
            tokens,
            needed,
        )
