"""Attention of a single query a sequence, with nothing but the products.

What: the decode step's rectangle: one query, all keys visible; groups of heads are rows of one
matrix product, or runs of keys are attended by the native engine and joined.
Source: eq. 1 of Vaswani et al. (2017); grouping as in Ainslie et al. (2023), "GQA", section 2.2;
runs joined as in `kernel.merge`.
Differs from the fused kernels: they are made for many queries, and on a CPU spend most of a single
one on set-up.
Cost: O(S * D), bound by reading the keys and values once. Shapes: q [B, Hq, 1, D], k and v
[B, Hkv, S, D].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from unspool import _native

if TYPE_CHECKING:
    from torch import Tensor

    Parts = Sequence[tuple[Tensor, Tensor, Tensor]]

_SINGLE_THREAD_BYTES = 1 << 17
"""Fewer bytes of keys and values are read by one thread faster than by several."""


def why_not_one(q: Tensor, k: Tensor) -> str | None:
    """Why this path can't take a call that sees every key; None: it can."""
    import torch

    if q.shape[2] != 1:
        return f"there are {q.shape[2]} queries"
    if q.device.type != "cpu":
        return f"tensors are on {q.device.type}, whose fused kernels are faster"
    if q.dtype not in (torch.float32, torch.float64) and _why_not_native(q, k) is not None:
        return f"dtype is {q.dtype}, and the softmax needs float32"
    return None if k.shape[2] else "there are no keys"


def attend_one(parts: Parts, scale: float) -> Tensor:
    """One softmax over the keys of several parts, each with its own rotation of the query.

    Args:
        parts: (q [B, Hq, 1, D], k [B, Hkv, S, D], v [B, Hkv, S, Dv]); every key is visible.
        scale: Factor on the scores.

    Returns:
        [B, Hq, 1, Dv].
    """
    if all(_why_not_native(*part) is None for part in parts):
        return _attend_native(parts, scale)
    return attend_products(parts, scale)


def attend_products(parts: Parts, scale: float) -> Tensor:
    """`attend_one` as matrix products of PyTorch."""
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


def _why_not_native(q: Tensor, k: Tensor, v: Tensor | None = None) -> str | None:
    """Why the native engine can't take a part; None: it can."""
    import torch

    if _native.DECODER_KERNELS is None:
        return "it was built by a compiler without vectors"
    if q.dtype not in (torch.float32, torch.bfloat16) or k.dtype not in (q.dtype, torch.float32):
        return f"dtype is {q.dtype}"
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad):
        return "it has no gradient"
    for x in (k, k if v is None else v):
        if x.shape[-1] % 16 or x.stride(-1) != 1:
            return "head sizes are no multiples of 16, or heads are not contiguous"
    return None


def _attend_native(parts: Parts, scale: float) -> Tensor:
    import torch

    first, size = parts[0][0], sum(k.numel() * k.element_size() for _, k, _ in parts)
    out = torch.empty(*first.shape[:3], parts[0][2].shape[-1])
    threads = torch.get_num_threads() if size > _SINGLE_THREAD_BYTES else 1
    given = [(q.detach().float().contiguous(), _bits(k), _bits(v)) for q, k, v in parts]
    _native.attend_one(given, scale, threads, out)
    return out.to(first.dtype)


def _bits(x: Tensor) -> Tensor:
    """What the engine takes for bfloat16."""
    import torch

    return x.detach().view(torch.int16) if x.dtype == torch.bfloat16 else x.detach()
