"""Exact attention in plain PyTorch: the truth that every faster back-end is tested against.

What: softmax(q k^T * scale + mask) v with the log-sum-exp of every row, in any float dtype.
Source: Vaswani et al. (2017), "Attention Is All You Need", eq. 1.
Differs from the paper: grouped key-value heads; a row that sees nothing gives 0 and -inf, not NaN.
Cost: O(T * S) time and memory a block of rows (the rows are cut so that a block of scores stays
within 64 MiB). Shapes: q [B, Hq, T, D], k and v [B, Hkv, S, D], Hq a multiple of Hkv.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unspool.attention.philox import dropout_factor
from unspool.attention.spec import Spec, visible

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK_BYTES = 64 << 20


def block_rows(q: Tensor, num_keys: int) -> int:
    """Query rows whose scores fit in the block of memory that a pass may take."""
    per_row = q.shape[0] * q.shape[1] * max(1, num_keys) * q.element_size()
    return max(1, _BLOCK_BYTES // per_row)


def scores(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """q k^T * scale with grouped heads: [B, Hq, T, S]."""
    batch, num_heads, num_queries, head_dim = q.shape
    num_kv_heads = k.shape[1]
    grouped = q.reshape(batch, num_kv_heads, -1, head_dim)  # groups folded into rows
    return (grouped @ k.transpose(-1, -2) * scale).reshape(batch, num_heads, num_queries, -1)


def weighted(p: Tensor, v: Tensor) -> Tensor:
    """p v with grouped heads: [B, Hq, T, Dv]."""
    batch, num_heads, num_queries, num_keys = p.shape
    grouped = p.reshape(batch, v.shape[1], -1, num_keys)
    return (grouped @ v).reshape(batch, num_heads, num_queries, -1)


def why_not_reference(
    q: Tensor, k: Tensor, v: Tensor, *, spec: Spec, return_lse: bool
) -> str | None:
    """Nothing: it takes every call."""
    return None


def reference_attend(
    q: Tensor, k: Tensor, v: Tensor, *, spec: Spec, scale: float, return_lse: bool = True
) -> tuple[Tensor, Tensor]:
    """Attention and its log-sum-exp, which is there whether it was asked for or not.

    Returns:
        Output [B, Hq, T, Dv] in the dtype of q, and log-sum-exp [B, Hq, T], natural, at least
        float32. Half precision is computed in float32.
    """
    import torch

    dtype = q.dtype if q.dtype == torch.float64 else torch.float32
    num_queries, num_keys = q.shape[2], k.shape[2]
    step = block_rows(q.to(dtype) if q.numel() == 0 else q, num_keys)
    outs, lses = [], []
    for start in range(0, max(1, num_queries), step):
        rows = slice(start, min(start + step, num_queries))
        s = scores(q[:, :, rows].to(dtype), k.to(dtype), scale)
        if spec.softcap is not None:
            s = spec.softcap * torch.tanh(s / spec.softcap)
        seen = visible(spec, num_queries, num_keys, q.device, rows, q.shape[1])
        if seen is not None:
            s = s.masked_fill(~seen, float("-inf"))
        lse = torch.logsumexp(s, dim=-1)
        blind = torch.isneginf(lse)
        p = torch.exp(s - lse.masked_fill(blind, 0.0)[..., None])
        if spec.dropout:
            p = p * dropout_factor(spec, p, rows.start)
        outs.append(weighted(p, v.to(dtype)))
        lses.append(lse)
    return torch.cat(outs, dim=2).to(q.dtype), torch.cat(lses, dim=2)
