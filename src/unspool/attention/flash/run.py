"""The Triton back-end: when it can run, which of its kernels does, and its gradient.

What: dense bands by one pair of kernels, every other pattern by lists of tiles, few queries by
splitting the keys; one `autograd.Function` whose log-sum-exp has a gradient too.
Source: FlashAttention (Dao et al. 2022), sections 3.1 to 3.3 and appendix B.
Differs from the released code: arbitrary rules and block lists, and D_i - g_i in the backward pass
where g is the gradient of the log-sum-exp.
Cost: O(T * S) time for what the lists leave, O(T + S) memory. Shapes: as `attend`.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import torch

from unspool.attention.flash import dense, listed
from unspool.attention.flash.launch import interpreted, row_facts
from unspool.attention.flash.plan import NARROW, plan_of

if TYPE_CHECKING:
    from torch import Tensor

    from unspool.attention.spec import Spec

_WIDEST = 256
_FEW_ROWS = 64


def why_not_triton(q: Tensor, k: Tensor, v: Tensor, *, spec: Spec, return_lse: bool) -> str | None:
    """Why the kernels can't take this call; None: they can."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed; run: pip install 'unspool[kernels]'"
    if q.device.type != "cuda" and not interpreted():
        return f"tensors are on {q.device.type}, the kernels need CUDA"
    if q.shape[2] == 0 or k.shape[2] == 0 or q.shape[0] == 0:
        return "there are no queries or no keys"
    if max(q.shape[-1], v.shape[-1]) > _WIDEST:
        return f"heads are {max(q.shape[-1], v.shape[-1])} wide, the kernels have up to {_WIDEST}"
    if q.dtype != k.dtype or q.dtype != v.dtype:
        return f"dtypes differ: {q.dtype}, {k.dtype} and {v.dtype}"
    blocks = spec.blocks
    if blocks is not None:
        if q.shape[1] % blocks.num_heads:
            return f"block lists of {blocks.num_heads} heads do not fit {q.shape[1]} query heads"
        if spec.deterministic and blocks.block_k < NARROW and _taught(q, k, v):
            return (
                f"gradients of blocks of {blocks.block_k} keys are summed by atomics; "
                f"blocks of {NARROW} and more are not"
            )
    return None


def triton_attend(
    q: Tensor, k: Tensor, v: Tensor, *, spec: Spec, scale: float, return_lse: bool
) -> tuple[Tensor, Tensor | None]:
    """Attention, and its log-sum-exp if asked for; both differentiable."""
    if scale <= 0:  # the kernels take the largest score before they scale it
        q, scale = (q * -1, -scale) if scale < 0 else (q * 0, 1.0)
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    if _taught(q, k, v):
        out, lse = _Attention.apply(q, k, v, spec, scale)
    else:
        out, lse = _forward(q, k, v, spec, scale, taught=False)
    return out, lse if return_lse else None


def is_band(spec: Spec) -> bool:
    """Causality and a window are the only rules: no lists are needed."""
    return (
        spec.sinks == 0 or (spec.window is None and spec.right is None)
    ) and not any(
        (
            spec.beyond is not None, spec.q_positions is not None, spec.k_positions is not None,
            spec.q_documents is not None, spec.mask is not None, spec.blocks is not None,
            spec.q_global is not None, spec.k_global is not None, spec.softcap is not None,
            spec.dropout > 0,
        )
    )  # fmt: skip


def _forward(
    q: Tensor, k: Tensor, v: Tensor, spec: Spec, scale: float, *, taught: bool
) -> tuple[Tensor, Tensor]:
    rows = q.shape[1] // k.shape[1] * q.shape[2]
    blocks = spec.blocks
    one_list = blocks is None or (
        blocks.block_q >= q.shape[2] and k.shape[1] % blocks.num_heads == 0
    )
    one_mask = spec.mask is None or spec.mask.shape[1] == 1
    if not taught and rows <= _FEW_ROWS and one_list and one_mask:
        plan = None
        if blocks is not None:
            plan = plan_of(spec, q.shape[2], k.shape[2], q.device, taught=False)
        return listed.listed_forward(q, k, v, plan, spec, scale, fold=True)
    if is_band(spec):
        return dense.dense_forward(q, k, v, spec, scale)
    plan = plan_of(spec, q.shape[2], k.shape[2], q.device, taught=taught)
    return listed.listed_forward(q, k, v, plan, spec, scale, fold=False)


def _taught(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, spec: Spec, scale: float
    ) -> tuple[Tensor, Tensor]:
        out, lse = _forward(q, k, v, spec, scale, taught=True)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.spec, ctx.scale = spec, scale
        ctx.set_materialize_grads(False)
        return out, lse

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        d_out, d_lse = grads
        q, k, v, out, lse = ctx.saved_tensors
        if d_out is None and d_lse is None:
            return (None,) * 5
        d_out = torch.zeros_like(out) if d_out is None else d_out.contiguous()
        facts = row_facts(out, d_out, lse, d_lse)
        spec, scale = ctx.spec, ctx.scale
        if is_band(spec):
            d_q = dense.dense_dq(q, k, v, d_out, facts, spec, scale)
            found = (d_q, *dense.dense_dkdv(q, k, v, d_out, facts, spec, scale))
        else:
            plan = plan_of(spec, q.shape[2], k.shape[2], q.device, taught=True)
            found = listed.listed_backward(q, k, v, d_out, facts, plan, spec, scale)
        return (*found, None, None)
