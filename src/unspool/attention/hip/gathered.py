"""Attention over listed blocks of keys, by fetching them: the path that runs everywhere.

What: for each block of queries the keys of its list are copied side by side, and one softmax runs
over them.
Source: block-sparse FlashAttention (Dao et al. 2022), section 3.3, with gathered tiles.
Differs from the paper: whole rows of scores of a block of queries exist at once, which is how
gradients come from autograd; pieces of query blocks are taken so that they fit 64 MiB.
Cost: O(T * kept * D) products, and kept * D values copied for every block of queries and head.
Shapes: q [B, Hq, T, D], k [B, Hkv, S, D], v [B, Hkv, S, Dv].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unspool.attention.blocks import BlockMask
from unspool.attention.hip.search import take_rows

_BYTES = 64 << 20


def gathered_attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: BlockMask,
    *,
    scale: float,
    causal: bool = True,
    softcap: float | int | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention over the listed blocks, causal from the bottom right, and its log-sum-exp.

    Returns:
        Output [B, Hq, T, Dv] in the dtype of q, log-sum-exp [B, Hq, T] of at least float32; 0 and
        -inf for a row that sees nothing.
    """
    batch, num_heads, num_queries, width = q.shape
    num_keys = k.shape[2]
    size = mask.block_q
    blocks = -(-num_queries // size)
    padded = F.pad(q, (0, 0, 0, blocks * size - num_queries))
    queries = padded.unflatten(2, (blocks, size))
    heads = num_heads if mask.num_heads in (1, num_heads) else mask.num_heads
    indices = mask.indices.expand(batch, heads, -1, -1)
    counts = mask.counts.expand(batch, heads, -1)
    if heads != num_heads:
        queries = queries.unflatten(1, (heads, -1)).transpose(2, 3).flatten(3, 4)
    columns = indices.shape[-1] * mask.block_k
    row = batch * heads * columns * (2 * width + 2 * queries.shape[-2]) * 4
    step = max(1, _BYTES // max(1, row))
    rows = torch.arange(size, device=q.device).repeat(queries.shape[-2] // size)
    outs, lses = [], []
    for begin in range(0, blocks, step):
        piece = slice(begin, begin + step)
        keys, seen = _columns(indices[:, :, piece], counts[:, :, piece], mask.block_k, num_keys)
        some = queries[:, :, piece]
        scores = some @ take_rows(k, keys).transpose(-1, -2) * scale
        scores = scores.to(torch.promote_types(q.dtype, torch.float32))
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        seen = seen[..., None, :]
        if causal:
            first = torch.arange(begin, begin + some.shape[2], device=q.device) * size
            at = first[:, None] + rows + (num_keys - num_queries)
            seen = seen & (keys[..., None, :] <= at[..., None])
        scores = scores.masked_fill(~seen, float("-inf"))
        lse = torch.logsumexp(scores, dim=-1)
        blind = torch.isneginf(lse)
        p = torch.exp(scores - lse.masked_fill(blind, 0.0)[..., None])
        outs.append(p.to(q.dtype) @ take_rows(v, keys))
        lses.append(lse)
    out, lse = torch.cat(outs, dim=2), torch.cat(lses, dim=2)
    if heads != num_heads:
        groups = num_heads // heads
        out = out.unflatten(3, (groups, size)).transpose(2, 3).flatten(1, 2)
        lse = lse.unflatten(3, (groups, size)).transpose(2, 3).flatten(1, 2)
    return out.flatten(2, 3)[:, :, :num_queries], lse.flatten(2, 3)[:, :, :num_queries]


def _columns(indices: Tensor, counts: Tensor, block_k: int, num_keys: int) -> tuple[Tensor, Tensor]:
    """Columns of the listed blocks [.., M * block_k], and which of them are keys."""
    used = torch.arange(indices.shape[-1], device=indices.device) < counts[..., None]
    offsets = torch.arange(block_k, device=indices.device)
    columns = (indices.long()[..., None] * block_k + offsets).flatten(-2)
    seen = used.repeat_interleave(block_k, dim=-1) & (columns < num_keys)
    return columns.clamp(max=max(0, num_keys - 1)), seen
