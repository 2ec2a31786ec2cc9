"""Attention of a single query a sequence, with nothing but the products.

What: the decode step's rectangle: one query, all keys visible; groups of heads are rows of one
matrix product.
Source: eq. 1 of Vaswani et al. (2017); grouping as in Ainslie et al. (2023), "GQA", section 2.2.
Differs from the fused kernels: they are made for many queries, and on a CPU spend most of a single
one on set-up.
Cost: O(S * D), bound by reading the keys and values once. Shapes: q [B, Hq, 1, D], k and v
[B, Hkv, S, D].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def why_not_one(q: Tensor, k: Tensor) -> str | None:
    """Why this path can't take a call that sees every key; None: it can."""
    import torch

    if q.shape[2] != 1:
        return f"there are {q.shape[2]} queries"
    if q.device.type != "cpu":
        return f"tensors are on {q.device.type}, whose fused kernels are faster"
    if q.dtype not in (torch.float32, torch.float64):
        return f"dtype is {q.dtype}, and the softmax needs float32"
    return None if k.shape[2] else "there are no keys"


def attend_one(parts: Sequence[tuple[Tensor, Tensor, Tensor]], scale: float) -> Tensor:
    """One softmax over the keys of several parts, each with its own rotation of the query.

    Args:
        parts: (q [B, Hq, 1, D], k [B, Hkv, S, D], v [B, Hkv, S, Dv]); every key is visible.
        scale: Factor on the scores.

    Returns:
        [B, Hq, 1, Dv].
    """
    import torch

    batch, num_heads, _, head_dim = parts[0][0].shape
    num_kv_heads = parts[0][1].shape[1]
    groups = (batch, num_kv_heads, num_heads // num_kv_heads, head_dim)
    scores = [(q.reshape(groups) * scale) @ k.transpose(-1, -2) for q, k, _ in parts]
    p = torch.softmax(scores[0] if len(parts) == 1 else torch.cat(scores, dim=-1), dim=-1)
    start = parts[0][1].shape[2]
    out = p[..., :start] @ parts[0][2]
    for _, k, v in parts[1:]:
        end = start + k.shape[2]
        out = out + p[..., start:end] @ v
        start = end
    return out.reshape(batch, num_heads, 1, -1)
