"""Attention through PyTorch's FlexAttention, which compiles a pattern into its own kernel.

What: the rules of a `Spec` as its mask and score functions, with the log-sum-exp and its gradient.
Source: Dong et al. (2024), "Flex Attention: A Programming Model for Generating Optimized Attention
Kernels".
Differs from a bare call: rows that see nothing give 0 and -inf; running out of compiled versions is
an error, not a silent fall to the square matrix.
Cost: O(T * S) for what its block mask leaves, and one compilation a shape; on a CPU the square
matrix, so small ones only. Shapes: as `reference`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, no_type_check

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from unspool.attention.spec import Spec

_UNCOMPILED = 1 << 22
"""Pairs up to which a CPU writes the square matrix."""
_EVALUATED = 1 << 31
"""Pairs up to which a block mask is evaluated pair by pair."""
_VERSIONS = 64


def why_not_flex(q: Tensor, k: Tensor, v: Tensor, *, spec: Spec, return_lse: bool) -> str | None:
    """Why FlexAttention can't take this call; None: it can."""
    pairs = q.shape[2] * k.shape[2]
    if pairs == 0:
        return "there are no queries or no keys"
    if q.device.type == "cpu" and pairs > _UNCOMPILED:
        return f"on a CPU it would write the square matrix of {pairs:,} scores a head"
    if pairs > _EVALUATED:
        return f"it would evaluate its block mask at {pairs:,} pairs"
    if q.shape[-1] < 16 and q.device.type == "cuda":
        return f"head_dim is {q.shape[-1]}, its kernel needs 16"
    return None


def flex_attend(
    q: Tensor, k: Tensor, v: Tensor, *, spec: Spec, scale: float, return_lse: bool
) -> tuple[Tensor, Tensor | None]:
    """Attention and its log-sum-exp [B, Hq, T]."""
    import torch
    from torch.nn.attention.flex_attention import AuxRequest, create_block_mask

    mask = None
    if not (spec.unmasked and not spec.causal):
        mask = create_block_mask(
            mask_function(spec, q.shape[2], k.shape[2], q.device, q.shape[1]),
            q.shape[0], q.shape[1], q.shape[2], k.shape[2], device=str(q.device),
        )  # fmt: skip
    cap = spec.softcap

    @no_type_check  # FlexAttention counts the arguments of the bare function
    def score(value: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return cap * torch.tanh(value / cap)

    with warnings.catch_warnings(), _limit():
        warnings.filterwarnings("ignore", message=".*without torch.compile.*")
        out, aux = _function(q.device.type)(
            q, k, v, score_mod=None if cap is None else score, block_mask=mask, scale=scale,
            enable_gqa=q.shape[1] != k.shape[1], return_aux=AuxRequest(lse=True),
        )  # fmt: skip
    lse = aux.lse
    out = out.masked_fill(torch.isneginf(lse)[..., None], 0.0)
    return out, lse if return_lse else None


def mask_function(
    spec: Spec, num_queries: int, num_keys: int, device: torch.device, num_heads: int
) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """`visible` of one pair, as FlexAttention wants it: (batch, head, query, key) -> bool."""
    import torch

    def row(given: Tensor | None) -> Tensor | None:
        return None if given is None else given.to(device)

    q_at, k_at = row(spec.q_positions), row(spec.k_positions)
    q_document, k_document = row(spec.q_documents), row(spec.k_documents)
    q_global, k_global = row(spec.q_global), row(spec.k_global)
    explicit = row(spec.mask)
    listed = None if spec.blocks is None else spec.blocks.to(device).blocks(num_keys)

    @no_type_check
    def of(facts: Tensor, b: Tensor, i: Tensor) -> Tensor:
        return facts[b if facts.shape[0] > 1 else 0, i]

    @no_type_check
    def seen(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        at = i + (num_keys - num_queries) if q_at is None else of(q_at, b, i)
        to = j if k_at is None else of(k_at, b, j)
        ok = to >= 0
        if q_at is not None:
            ok = ok & (at >= 0)
        if spec.causal:
            ok = ok & (at >= to)
        if spec.window is not None or spec.right is not None:
            near = torch.ones_like(ok)
            if spec.window is not None:
                near = near & (at - to < spec.window)
            if spec.right is not None:
                near = near & (at - to >= -spec.right)
            near = near | (to < spec.sinks)
            if k_global is not None:
                near = near | of(k_global, b, j)
            if q_global is not None:
                near = near | of(q_global, b, i)
            ok = ok & near
        if spec.beyond is not None:
            ok = ok & (at - to >= spec.beyond)
        if q_document is not None and k_document is not None:
            ok = ok & (of(q_document, b, i) == of(k_document, b, j))
        if explicit is not None:
            batch = b if explicit.shape[0] > 1 else 0
            ok = ok & explicit[batch, h if explicit.shape[1] > 1 else 0, i, j]
        if listed is not None and spec.blocks is not None:
            batch = b if listed.shape[0] > 1 else 0
            head = h // (num_heads // listed.shape[1])
            ok = ok & listed[batch, head, i // spec.blocks.block_q, j // spec.blocks.block_k]
        return ok

    found: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = seen
    return found


@cache
def _function(device: str) -> Any:
    import torch
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention if device == "cpu" else torch.compile(flex_attention, dynamic=False)


def _limit() -> Any:
    """Past so many compiled shapes PyTorch would run the square matrix and say nothing."""
    import torch

    return torch._dynamo.config.patch(recompile_limit=_VERSIONS, fail_on_recompile_limit_hit=True)
