"""Attention through the flash-attn package, where it is installed.

What: one call of `flash_attn_func`, in this project's layout, with its log-sum-exp.
Source: Dao (2023), "FlashAttention-2: Faster Attention with Better Parallelism and Work
Partitioning"; the package's causality is aligned bottom-right from version 2.1 on.
Differs from the package: layout B H T D; a rule that it lacks is refused with a reason.
Cost: O(T * S) time, O(T) memory. Shapes: as `reference`.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from unspool._optional import require

if TYPE_CHECKING:
    from torch import Tensor

    from unspool.attention.spec import Spec

_WIDEST = 256


def why_not_flash_attn(
    q: Tensor, k: Tensor, v: Tensor, *, spec: Spec, return_lse: bool
) -> str | None:
    """Why the package can't take this call; None: it can."""
    if importlib.util.find_spec("flash_attn") is None:
        return "flash-attn is not installed; run: pip install flash-attn"
    if q.shape[2] == 0 or k.shape[2] == 0:
        return "there are no queries or no keys"
    if v.shape[-1] != q.shape[-1]:
        return f"value heads are {v.shape[-1]} wide and key heads {q.shape[-1]}"
    if q.shape[-1] > _WIDEST or q.shape[-1] % 8:
        return f"head_dim is {q.shape[-1]}, it has multiples of 8 up to {_WIDEST}"
    if spec.sinks and (spec.window is not None or spec.right is not None):
        return "it has no sinks beside a window"
    return None


def flash_attn_attend(
    q: Tensor, k: Tensor, v: Tensor, *, spec: Spec, scale: float, return_lse: bool
) -> tuple[Tensor, Tensor | None]:
    """Attention and its log-sum-exp [B, Hq, T]."""
    package = require("flash_attn", extra="kernels", purpose="backend='flash_attn'")
    left = -1 if spec.window is None else spec.window - 1
    right = 0 if spec.causal else -1 if spec.right is None else spec.right
    out, lse, _ = package.flash_attn_func(
        *(x.transpose(1, 2) for x in (q, k, v)),
        softmax_scale=scale,
        causal=spec.causal,
        window_size=(left, right),
        softcap=spec.softcap or 0.0,
        deterministic=spec.deterministic,
        return_attn_probs=True,
    )
    # The package marks a row that sees nothing by +inf.
    lse = lse.masked_fill(lse == float("inf"), float("-inf"))
    return out.transpose(1, 2), lse if return_lse else None
