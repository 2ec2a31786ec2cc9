"""HiP attention on tensors: reading, writing and packed rows through one call.

What: searches the best blocks of keys for every block of queries and attends over them, the first
keys and the newest ones.
Source: Lee et al. (2024), "HiP Attention" (arXiv 2406.09827); variant "multistage" is that of
InfiniteHiP (arXiv 2502.08910).
Differs from the released code: as `search`, `stages` and `sparse` say; the settings are those of
the released v1.1 and are arguments, none is read from the environment.
Cost: O(T log S) products to search and O(T * (k_tokens + window + sink)) to attend.
Shapes: q [B, Hq, T, D], k [B, Hkv, S, D], v [B, Hkv, S, Dv], Hq a multiple of Hkv.
"""

from __future__ import annotations

import itertools
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from unspool.attention.blocks import BlockMask
from unspool.attention.hip.layout import BlockLayout
from unspool.attention.hip.search import Chooser, Representative, TreeSearch
from unspool.attention.hip.sparse import Blocks
from unspool.attention.hip.stages import STAGES, Stage, StagedSearch
from unspool.attention.hip.union import block_mask
from unspool.attention.hip.union import share_heads as union_of_heads
from unspool.caches.chosen import Choice
from unspool.errors import ConfigError

Variant = Literal["tree", "multistage"]


class HipResult(NamedTuple):
    """What `hip_attention` gives when it is asked for the mask."""

    out: Tensor
    """[B, Hq, T, Dv]."""
    mask: BlockMask
    """What was met. Its first query block lacks `lead` rows at its front."""
    choice: Choice | None
    """Of a single query: pass it as `last` with the next one; None: every key was met."""
    lead: int = 0


def hip_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    k_tokens: int = 512,
    block_q: int = 64,
    block_k: int = 2,
    window: int = 256,
    sink: int = 16,
    stride: int = 2,
    representative: Representative = "center",
    refresh: int = 8,
    variant: Variant = "tree",
    share_heads: bool = False,
    causal: bool = True,
    scale: float | None = None,
    softcap: float | int | None = None,
    cu_seqlens: Tensor | None = None,
    last: Choice | None = None,
    return_mask: bool = False,
    backend: str = "auto",
) -> Tensor | HipResult:
    """Attention of every query over the blocks of keys that a search finds for it.

    Args:
        q: [B, Hq, T, D], the last T of S positions. A single query with more keys is one that is
            written: it searches alone.
        k: [B, Hkv, S, D].
        v: [B, Hkv, S, Dv].
        k_tokens: Keys that the search keeps for each block of queries.
        block_q: Queries a block.
        block_k: Keys a block ("multistage" has blocks of 8).
        window: Newest keys that are always met.
        sink: First keys that are always met.
        stride: Every how many-th query of a block takes part in its search.
        representative: Which block stands for a group: first, center or last.
        refresh: Written tokens that share a choice.
        variant: "tree", or the stages of InfiniteHiP ("multistage").
        share_heads: Query heads that share keys meet what any of them chose.
        causal: False: every query may meet every key, and there is no window.
        scale: Factor on the scores; None: D ** -0.5.
        softcap: As `Spec.softcap`.
        cu_seqlens: [documents + 1] boundaries of documents in one packed row; none sees another.
        last: The choice of the query before, from `HipResult.choice`.
        return_mask: Also return what was met.
        backend: Of the attention: "auto", "gathered" or a back-end of `attend`.

    Returns:
        [B, Hq, T, Dv], or a `HipResult`.

    Raises:
        ConfigError: Settings out of range, or shapes that do not fit together.
    """
    if refresh < 1:
        raise ConfigError(f"hip_attention needs refresh >= 1, got refresh={refresh}.")
    layout, chooser = pattern(
        variant, k_tokens=k_tokens, block_q=block_q, block_k=block_k, window=window, sink=sink,
        stride=stride, representative=representative, refresh=(refresh,),
    )  # fmt: skip
    blocks = Blocks(layout, chooser, share=share_heads, softcap=softcap, backend=backend)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if cu_seqlens is not None:
        if return_mask or last is not None:
            raise ConfigError("A packed row has no mask to return and no choice to go on from.")
        return _packed(blocks, q, k, v, scale, cu_seqlens, causal)
    choice = None
    if q.shape[2] == 1 and k.shape[2] > 1 and causal:
        out, choice = blocks.write(q, k, v, scale, last)
    else:
        out = blocks.read(q, k, v, scale, causal=causal)
    if not return_mask:
        return out
    one = q.shape[2] == 1
    frame = layout.frame(q.shape[2], k.shape[2], causal=causal, block_q=1 if one else None)
    if choice is None:
        chosen = blocks.choose(q, k, frame, scale)
    else:
        found = choice.trail[-1][:, :, None]
        chosen = union_of_heads(found, k.shape[1]) if share_heads else found
        frame.near[:] = choice.near // layout.block_k
    return HipResult(out, block_mask(chosen, frame), choice, frame.lead)


def pattern(
    variant: Variant,
    *,
    k_tokens: int,
    block_q: int,
    block_k: int,
    window: int,
    sink: int,
    stride: int,
    representative: Representative,
    refresh: tuple[int, ...],
    say: bool = True,
) -> tuple[BlockLayout, Chooser]:
    """Sizes in whole blocks (`say` warns where that changed one), and the search of a variant."""
    if variant not in ("tree", "multistage"):
        raise ConfigError(f"variant must be tree or multistage, got {variant!r}.")
    if variant == "multistage":
        block_k = STAGES[-1].chunk
    layout = BlockLayout(
        k_tokens=k_tokens, block_q=block_q, block_k=block_k, window=window, sink=sink, stride=stride
    ).rounded(say=say)
    if variant == "tree":
        return layout, TreeSearch(representative, refresh)
    return layout, StagedSearch(scaled_stages(layout.k_tokens, refresh))


def scaled_stages(k_tokens: int, refresh: tuple[int, ...]) -> tuple[Stage, ...]:
    """The stages of the released code, which end in 2,048 keys, for another number of keys; of one
    `refresh` the coarser stages take twice and four times as many."""
    final = STAGES[-1].keep
    steps = refresh if len(refresh) == len(STAGES) else (refresh[-1] * 4, refresh[-1] * 2, *refresh)
    stages = []
    for stage, age in zip(STAGES, steps, strict=True):
        keep = -(-stage.keep * k_tokens // (final * stage.chunk)) * stage.chunk
        stages.append(Stage(stage.chunk, keep, stage.stride, age))
    return tuple(stages)


def _packed(
    blocks: Blocks,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    cu_seqlens: Tensor,
    causal: bool,
) -> Tensor:
    """Each document alone; rows behind the last boundary give 0."""
    if q.shape[2] != k.shape[2] or cu_seqlens.ndim != 1:
        raise ConfigError(
            f"Packed rows need as many keys as queries and cu_seqlens [documents + 1], got "
            f"{q.shape[2]} queries, {k.shape[2]} keys and {tuple(cu_seqlens.shape)}."
        )
    edges = cu_seqlens.tolist()
    if edges[0] != 0 or edges != sorted(edges) or edges[-1] > q.shape[2]:
        raise ConfigError(
            f"cu_seqlens must go up from 0 to at most {q.shape[2]}, got {edges[0]} … {edges[-1]}."
        )
    parts = [
        blocks.read(q[:, :, a:b], k[:, :, a:b], v[:, :, a:b], scale, causal=causal)
        for a, b in itertools.pairwise(edges)
        if b > a
    ]
    rest = q.shape[2] - edges[-1]
    if rest:
        parts.append(q.new_zeros(*q.shape[:2], rest, v.shape[-1]))
    return torch.cat(parts, dim=2)
