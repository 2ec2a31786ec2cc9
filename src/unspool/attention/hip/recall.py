"""How much of the true attention a choice of blocks holds, by layer and head.

What: runs a text through an extended model and, at the last blocks of queries, compares what was
chosen with all of the attention: the share of probability that falls on kept keys, beside that of
the best choice of the same size, and the share of the best blocks that were found.
Source: the recall that Lee et al. (2024), "HiP Attention", report for their masks (section 4).
Differs from the paper: measured for every layer and head, on the hidden states that the method
itself leads to.
Cost: dense attention over the blocks that are looked at. Shapes: as `search`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unspool.attention.hip.layout import BlockLayout, Frame
from unspool.attention.hip.search import UNUSED
from unspool.attention.hip.sparse import BlocksAttend
from unspool.attention.hip.union import block_mask
from unspool.errors import ConfigError, InputError

if TYPE_CHECKING:
    from unspool.attention.call import Call
    from unspool.extension import Extension


@dataclass(frozen=True, slots=True)
class LayerRecall:
    """Of one layer; a list has one number a query head."""

    layer: int
    held: list[float]
    """Probability on kept keys, averaged over queries."""
    best: list[float]
    """The same for the blocks that receive most, as many of them."""
    found: list[float]
    """Share of those blocks that were chosen."""
    chosen: list[list[int]]
    """First keys of the blocks that the last block of queries chose in the first head … last."""


def recall(extension: Extension, ids: Sequence[int], *, blocks: int = 4) -> list[LayerRecall]:
    """Recall of a method that chooses blocks, layer by layer.

    Args:
        extension: Installed, with `hip`, `random-blocks` or `oracle-top-k`.
        ids: A text.
        blocks: Blocks of queries at its end that are looked at.

    Raises:
        ConfigError: The method chooses no blocks.
        InputError: The text is too short for anything to be left out.
    """
    from unspool._dispatch import tapped

    found: dict[int, LayerRecall] = {}
    total = len(ids)

    def see(call: Call) -> None:
        mechanism = extension.plan_of(call.layer).attend
        if isinstance(mechanism, BlocksAttend) and call.start + call.q.shape[2] == total:
            assert call.store is not None  # the cache is ours
            (segment,) = call.store.segments()
            seen = _measure(mechanism, call, segment.k, blocks)
            if seen is not None:
                found[call.layer] = seen

    layers = range(extension.facts.num_layers)
    if not any(isinstance(extension.plan_of(i).attend, BlocksAttend) for i in layers):
        raise ConfigError("recall needs a method that chooses blocks, as hip.")
    cache = extension.new_cache()
    step = extension.prefill_chunk
    with torch.inference_mode(), tapped(see):
        for start in range(0, total, step):
            chunk = torch.tensor([list(ids[start : start + step])], device=extension.facts.device)
            extension.model(chunk, past_key_values=cache, use_cache=True, logits_to_keep=1)
    if not found:
        raise InputError(
            f"{total} tokens are met whole by these settings; give a longer text, or smaller "
            f"k_tokens, window and dense_below."
        )
    return [found[layer] for layer in sorted(found)]


def _measure(mechanism: BlocksAttend, call: Call, k: Tensor, blocks: int) -> LayerRecall | None:
    from unspool.attention.controls import BestChoice

    pattern = replace(mechanism.blocks, chooser=mechanism.blocks.chooser.of_call(call))
    rows = min(call.q.shape[2], blocks * pattern.layout.block_q)
    q, num_keys = call.q[:, :, -rows:], k.shape[2]
    frame = pattern.layout.frame(rows, num_keys)
    if num_keys <= pattern.dense_below or int(frame.searched.max()) <= pattern.layout.num_kept:
        return None
    chosen = pattern.choose(q, k, frame, call.scale)
    best = BestChoice()(q, k, frame, call.scale)[-1]
    groups = q.shape[1] // chosen.shape[1]
    own = chosen.repeat_interleave(groups, dim=1)
    common = (best[..., :, None] == own[..., None, :]) & (best != UNUSED)[..., None]
    found = common.any(-1).sum((-1, -2)) / (best != UNUSED).sum((-1, -2)).clamp(min=1)
    last = own[0, :, -1] * pattern.layout.block_k
    return LayerRecall(
        layer=call.layer,
        held=held_mass(q, k, chosen, frame, call.scale)[0].tolist(),
        best=held_mass(q, k, best, frame, call.scale)[0].tolist(),
        found=found[0].tolist(),
        chosen=[[key for key in row if key >= 0] for row in last.tolist()],
    )


def held_mass(q: Tensor, k: Tensor, chosen: Tensor, frame: Frame, scale: float) -> Tensor:
    """Probability on kept keys, averaged over queries: [B, Hq]."""
    mask = block_mask(chosen, frame)
    groups = q.shape[1] // k.shape[1]
    total = q.new_zeros(q.shape[:2], dtype=torch.float32)
    step = max(1, (64 << 20) // (4 * q.shape[0] * q.shape[1] * k.shape[2]))
    positions = torch.arange(k.shape[2], device=q.device)
    for begin in range(0, q.shape[2], step):
        rows = slice(begin, min(begin + step, q.shape[2]))
        asked = q[:, :, rows].unflatten(1, (k.shape[1], groups))
        scores = (asked @ k[:, :, None].transpose(-1, -2)).flatten(1, 2).float() * scale
        at = frame.start + torch.arange(rows.start, rows.stop, device=q.device)
        p = torch.softmax(scores.masked_fill(positions > at[:, None], float("-inf")), dim=-1)
        lead = slice(rows.start + frame.lead, rows.stop + frame.lead)
        seen = mask.dense(q.shape[2] + frame.lead, k.shape[2], lead)
        seen = seen.repeat_interleave(q.shape[1] // seen.shape[1], dim=1)
        total += (p * seen).sum((-1, -2))
    return total / q.shape[2]


def picture(size: int = 160, layout: BlockLayout | None = None) -> Tensor:
    """What queries meet of keys whose likeness falls with their distance: bool [T, S]."""
    from unspool.attention.hip.search import tree_search

    layout = layout or BlockLayout(k_tokens=32, block_q=16, block_k=2, window=24, sink=8)
    generator = torch.Generator().manual_seed(5)
    walk = torch.randn(1, 1, size, 6, generator=generator).cumsum(2)
    keys = torch.nn.functional.normalize(walk, dim=-1)
    queries = keys.roll(size // 3, dims=2)
    frame = layout.frame(size, size)
    chosen = tree_search(queries, keys, frame)
    seen = block_mask(chosen, frame).dense(size, size)[0, 0]
    return seen & torch.ones_like(seen).tril()
