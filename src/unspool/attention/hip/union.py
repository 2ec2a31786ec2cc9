"""Chosen blocks, sinks and window as one list of key blocks a block of queries.

What: joins what is always met with what was chosen into a `BlockMask`, sorted and without repeats;
heads that share keys may share their choices.
Source: Lee et al. (2024), "HiP Attention", section 3.2; one softmax over the union.
Differs from the released code: nothing is met twice, whatever the sizes are.
Cost: O(NQ * (n + window + sinks)). Shapes: chosen [B, Hq, NQ, n] int32, -1 unused.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from unspool.attention.blocks import BlockMask
from unspool.attention.hip.kernel import triton_lists
from unspool.attention.hip.layout import Frame
from unspool.attention.hip.search import UNUSED

_LAST = torch.iinfo(torch.int32).max


def share_heads(chosen: Tensor, num_kv_heads: int) -> Tensor:
    """The union of the choices of query heads that share keys: [B, Hkv, NQ, up to G * n]."""
    groups = chosen.shape[1] // num_kv_heads
    together = chosen.unflatten(1, (num_kv_heads, groups)).transpose(2, 3).flatten(3)
    ordered = together.masked_fill(together == UNUSED, _LAST).sort(dim=-1).values
    repeated = torch.zeros_like(ordered, dtype=torch.bool)
    repeated[..., 1:] = ordered[..., 1:] == ordered[..., :-1]
    return compact(ordered.masked_fill(repeated, _LAST))


def compact(blocks: Tensor) -> Tensor:
    """Sorted, with unused entries (the largest integer) behind the others and as -1, no wider than
    the longest list."""
    ordered = blocks.sort(dim=-1).values
    used = ordered != _LAST
    width = int(used.sum(-1).max()) if used.numel() else 0
    return ordered.masked_fill(~used, UNUSED)[..., :width]


def block_mask(chosen: Tensor, frame: Frame) -> BlockMask:
    """Chosen blocks with sinks and window.

    Args:
        chosen: [B, H, NQ, n] key blocks between sinks and window, -1 unused.
        frame: Of the call.

    Returns:
        Query blocks of `frame.block_q` rows, the first of which lacks `frame.lead` rows at its
        front: queries must be padded by as many.
    """
    device = chosen.device
    if device.type == "cuda" and chosen.numel() and importlib.util.find_spec("triton") is not None:
        indices, counts = triton_lists(chosen, frame)
        return BlockMask(
            block_q=frame.block_q, block_k=frame.layout.block_k, indices=indices, counts=counts
        )
    near, end = frame.near.int().to(device), frame.end.int().to(device)
    sinks = near.clamp(max=frame.low)
    width = int((frame.end - frame.near).max()) if frame.num_blocks else 0
    found = (chosen != UNUSED).sum(-1, dtype=torch.int32)
    place = torch.arange(frame.low + chosen.shape[-1] + width, dtype=torch.int32, device=device)
    behind = place - sinks[:, None]  # [NQ, M]: places behind the sinks
    late = behind - found[..., None]  # behind the chosen ones
    indices = torch.where(late >= 0, near[:, None] + late, place)
    if chosen.shape[-1]:
        at = behind.clamp(0, chosen.shape[-1] - 1).long().expand(*chosen.shape[:2], -1, -1)
        indices = torch.where((behind >= 0) & (late < 0), chosen.gather(-1, at), indices)
    counts = sinks + found + (end - near)
    return BlockMask(
        block_q=frame.block_q,
        block_k=frame.layout.block_k,
        indices=indices.masked_fill(place >= counts[..., None], 0),
        counts=counts,
    )
