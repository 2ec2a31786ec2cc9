"""The exact squares on the diagonal, where the recursion ends: causal attention, and its gradient.

What: squares as rows of a batch through the one exact kernel; gradients from the log-sum-exp of the
union of all parts, which is what makes them those of the merged softmax.
Source: Dao et al. (2022), FlashAttention, algorithm 4, with the log-sum-exp of more keys than the
square has.
Differs from calling autograd on the parts: nothing of the parts is kept.
Cost: O(leaf) a query. Shapes: q, out [B, Hq, T, D], k and v [B, Hkv, T, D], lse [B, Hq, T].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unspool.attention.kernel import attend
from unspool.attention.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor

_ROWS = 512
"""Rows of a square whose gradient is computed together."""


def to_squares(x: Tensor, leaves: int, leaf: int) -> Tensor:
    """[B, H, T, …] as [B * leaves, H, leaf, …], filled up with zeros."""
    import torch.nn.functional as F

    missing = leaves * leaf - x.shape[2]
    if missing:
        x = F.pad(x, (0, 0) * (x.ndim - 3) + (0, missing))
    batch, heads, _, *rest = x.shape
    squares = x.reshape(batch, heads, leaves, leaf, *rest).transpose(1, 2)
    return squares.reshape(batch * leaves, heads, leaf, *rest)


def from_squares(x: Tensor, leaves: int, length: int) -> Tensor:
    """Undo `to_squares`."""
    rows, heads, leaf, *rest = x.shape
    x = x.reshape(rows // leaves, leaves, heads, leaf, *rest).transpose(1, 2)
    x = x.reshape(rows // leaves, heads, leaves * leaf, *rest)
    return x if x.shape[2] == length else x.narrow(2, 0, length)


def leaf_attention(
    q: Tensor, k: Tensor, v: Tensor, leaves: int, leaf: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Causal attention within each square."""
    squares = (to_squares(x, leaves, leaf) for x in (q, k, v))
    out, lse = attend(*squares, spec=Spec(causal=True), scale=scale, return_lse=True)
    return from_squares(out, leaves, q.shape[2]), from_squares(lse, leaves, q.shape[2])


def leaf_gradients(
    inputs: tuple[Tensor, Tensor, Tensor],
    leaves: int,
    leaf: int,
    scale: float,
    union: tuple[Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v through the squares.

    Args:
        inputs: q, k, v.
        leaves: Number of squares.
        leaf: Their size.
        scale: Factor on the scores.
        union: Gradient of the output, log-sum-exp of the union, and delta, as in `parts`, shaped as
            q without its last dimension where they are numbers a row. The dtype of the gradient is
            that of the arithmetic.
    """
    import torch

    d_out, lse, delta = (to_squares(x, leaves, leaf) for x in union)
    q, k, v = (to_squares(x, leaves, leaf).to(d_out.dtype) for x in inputs)
    batch, heads = q.shape[:2]
    groups = heads // k.shape[1]

    def grouped(x: Tensor) -> Tensor:  # [B, Hkv, G, T, …]: heads that share keys
        return x.reshape(batch, heads // groups, groups, *x.shape[2:])

    q, d_out, lse, delta = (grouped(x) for x in (q, d_out, lse, delta))
    d_q = torch.empty_like(q)
    d_k, d_v = torch.zeros_like(k), torch.zeros_like(v)
    for start in range(0, leaf, _ROWS):
        end = min(start + _ROWS, leaf)
        rows, seen = slice(start, end), slice(0, end)
        q_t, g_t = q[:, :, :, rows], d_out[:, :, :, rows]
        keys, values = k[:, :, None, seen], v[:, :, None, seen]
        scores = q_t @ keys.transpose(-1, -2) * scale - lse[:, :, :, rows, None]
        where = torch.arange(end, device=q.device)
        scores.masked_fill_(where[None] > where[rows, None], float("-inf"))
        p = scores.exp_()
        d_s = p * (g_t @ values.transpose(-1, -2) - delta[:, :, :, rows, None]) * scale
        d_q[:, :, :, rows] = d_s @ keys
        d_k[:, :, seen] += (d_s.transpose(-1, -2) @ q_t).sum(2)
        d_v[:, :, seen] += (p.transpose(-1, -2) @ g_t).sum(2)
    length = inputs[0].shape[2]
    found = (from_squares(x, leaves, length) for x in (d_q.flatten(1, 2), d_k, d_v))
    d_q, d_k, d_v = found
    return d_q, d_k, d_v
