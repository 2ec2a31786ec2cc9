"""All parts of a plan as one differentiable softmax.

What: leaves, blocks and samples joined row by row; the backward pass takes every part's
probabilities from the log-sum-exp of the union, so gradients of merge weights need no extra step.
Source: Han et al. (2023), "HyperAttention", algorithm 4 (merge of the recursion); Dao et al.
(2022), FlashAttention, algorithm 4 (gradient).
Differs from the released code: the gradient of the log-sum-exp is kept, in every precision.
Cost: that of the parts; beside inputs and outputs only the plan is kept for the backward pass.
Shapes: q [B, Hq, T, D], k and v [B, Hkv, S, D], out [B, Hq, T, Dv], lse [B, Hq, T].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unspool.attention.hyper.leaves import leaf_attention, leaf_gradients
from unspool.attention.hyper.parts import add_gradients, join_level
from unspool.attention.hyper.plan import Plan


class Union(torch.autograd.Function):
    """softmax over all parts of a plan."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float, fused: bool
    ) -> tuple[Tensor, Tensor]:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        if fused:
            from unspool.attention.hyper.fused import fused_forward

            out, lse = fused_forward(q, k, v, plan, scale)
        else:
            out, lse = _forward(q, k, v, plan, scale)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.plan, ctx.scale, ctx.fused = plan, scale, fused
        ctx.set_materialize_grads(False)
        return out, lse

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        d_out, d_lse = grads
        if d_out is None and d_lse is None:
            return None, None, None, None, None, None
        d_out = torch.zeros_like(out) if d_out is None else d_out.contiguous()
        if ctx.fused:
            from unspool.attention.hyper.fused import fused_backward

            found = fused_backward(q, k, v, out, lse, d_out, d_lse, ctx.plan, ctx.scale)
        else:
            found = _backward(q, k, v, out, lse, d_out, d_lse, ctx.plan, ctx.scale)
        return *found, None, None, None


def _forward(q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(q.dtype, torch.float32)
    if plan.leaves:
        own = slice(plan.offset, None)
        out, lse = leaf_attention(q, k[:, :, own], v[:, :, own], plan.leaves, plan.leaf, scale)
        out, lse = out.to(dtype).contiguous(), lse.contiguous()
    else:
        out = q.new_zeros(*q.shape[:3], v.shape[-1], dtype=dtype)
        lse = q.new_full(q.shape[:3], float("-inf"), dtype=dtype)
    flat = (q.flatten(0, 2), k.flatten(0, 2), v.flatten(0, 2))
    for level in plan.levels:
        join_level(level, *flat, scale, out.view(-1, out.shape[-1]), lse.view(-1))
    return out.to(q.dtype), lse


def _backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    d_out: Tensor,
    d_lse: Tensor | None,
    plan: Plan,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    g = d_out.to(lse.dtype)
    delta = (g * out.to(lse.dtype)).sum(-1)
    if d_lse is not None:
        delta = delta - d_lse
    d_q, d_k, d_v = (torch.zeros(x.shape, dtype=lse.dtype, device=x.device) for x in (q, k, v))
    if plan.leaves:
        own = slice(plan.offset, None)
        inputs = (q, k[:, :, own], v[:, :, own])
        found = leaf_gradients(inputs, plan.leaves, plan.leaf, scale, (g, lse, delta))
        d_q += found[0]
        d_k[:, :, own] += found[1]
        d_v[:, :, own] += found[2]
    flat = (q.flatten(0, 2), k.flatten(0, 2), v.flatten(0, 2))
    union = (g.flatten(0, 2), lse.flatten(), delta.flatten())
    into = (d_q.view(-1, d_q.shape[-1]), d_k.view(-1, d_k.shape[-1]), d_v.view(-1, d_v.shape[-1]))
    for level in plan.levels:
        add_gradients(level, flat, scale, union, into)
    return d_q.to(q.dtype), d_k.to(k.dtype), d_v.to(v.dtype)
