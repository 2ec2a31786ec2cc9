"""Attention on the processor over the keys that a pattern lists, by the native engine.

What: output, log-sum-exp and gradients for block lists of any two sizes (64 x 64 blocks, 64 queries
x 2 keys, lists of kept keys) and for every rule on positions, documents and global tokens.
Source: FlashAttention-2 (Dao 2023), algorithms 1 and 2, in `native/attention*`.
Differs from the paper: queries lie across the lanes of a vector, so that scattered keys cost what
neighbouring ones do; hidden pairs are looked for only where a tile holds some; a few queries
against many keys (decoding) take another kernel, whose lists are cut into parts and merged.
Cost: rows * listed keys * (D + Dv) multiplications forward, 2.5 times that backward; memory of one
row more than the inputs, and in backward the gradients in float32. Shapes: as `reference`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unspool import _native
from unspool.attention.spec import Spec
from unspool.errors import ConfigError

_WHOLE = 16
"""Gradients of keys and values are added to in whole vectors of this many."""

# How the kernels are named, to try one that the processor would not choose; "": the best.
_kernels = ""


def why_not_native(q: Tensor, k: Tensor, v: Tensor, *, spec: Spec, return_lse: bool) -> str | None:
    """Why the native kernels can't take this call; None: they can."""
    if not q.dtype == k.dtype == v.dtype:
        return f"q, k and v are {q.dtype}, {k.dtype} and {v.dtype}"
    if spec.mask is not None or spec.dropout:
        return "it has neither explicit masks nor dropout"
    if 0 in q.shape or 0 in k.shape or 0 in v.shape:
        return "there is nothing to attend with"
    if torch.compiler.is_compiling():
        return "torch.compile can't look into it"
    return None


def native_attend(
    q: Tensor, k: Tensor, v: Tensor, *, spec: Spec, scale: float, return_lse: bool
) -> tuple[Tensor, Tensor | None]:
    """Attention by the native kernels, and its log-sum-exp [B, Hq, T] in float32."""
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
        out, lse = _Attention.apply(q, k, v, spec, float(scale))
    else:
        out, lse = _forward(q, k, v, spec, float(scale))
    return out, lse if return_lse else None


class _Attention(torch.autograd.Function):
    """The kernels as one differentiable operation."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, spec: Spec, scale: float
    ) -> tuple[Tensor, Tensor]:
        out, lse = _forward(q, k, v, spec, scale)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.settings = spec, scale
        return out, lse

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_out: Tensor, d_lse: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        spec, scale = ctx.settings
        batch, num_kv_heads, num_keys, width = k.shape
        value_width = v.shape[-1]
        d_q = torch.empty(q.shape, dtype=torch.float32)
        d_k, d_v = (
            torch.zeros(batch, num_kv_heads, num_keys, -(-size // _WHOLE) * _WHOLE)
            for size in (width, value_width)
        )
        d_out = _dense(d_out.to(q.dtype))
        delta = (d_out.float() * out.float()).sum(-1) - d_lse.float()
        _native.attention_backward(
            _dense(q.detach()),
            _dense(k.detach()),
            _dense(v.detach()),
            lse,
            d_out,
            delta.contiguous(),
            d_q,
            d_k,
            d_v,
            _pattern(spec, q),
            **_settings(spec, scale),
        )
        d_k, d_v = d_k[..., :width], d_v[..., :value_width]
        return d_q.to(q.dtype), d_k.to(k.dtype), d_v.to(v.dtype), None, None


def _forward(q: Tensor, k: Tensor, v: Tensor, spec: Spec, scale: float) -> tuple[Tensor, Tensor]:
    q, k, v = (_dense(x.detach()) for x in (q, k, v))
    out = torch.empty(*q.shape[:3], v.shape[-1], dtype=q.dtype)
    lse = torch.empty(q.shape[:3], dtype=torch.float32)
    _native.attention_forward(q, k, v, out, lse, _pattern(spec, q), **_settings(spec, scale))
    return out, lse


def _settings(spec: Spec, scale: float) -> dict[str, Any]:
    return {
        "scale": scale,
        "softcap": 0.0 if spec.softcap is None else float(spec.softcap),
        "threads": torch.get_num_threads(),
        "kernels": _kernels,
    }


def _dense(x: Tensor) -> Tensor:
    """With each row in one piece, as the kernels read it."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _pattern(spec: Spec, q: Tensor) -> _native.AttentionPattern:
    """The rules of a pattern, in the words of the engine."""
    batch, num_heads, num_queries = q.shape[:3]
    lists: dict[str, Any] = {}
    if spec.blocks is not None:
        blocks = spec.blocks
        if num_heads % blocks.num_heads:
            raise ConfigError(
                f"Block lists of {blocks.num_heads} heads do not fit {num_heads} query heads."
            )
        if blocks.indices.shape[0] not in (1, batch):
            raise ConfigError(
                f"Block lists of {blocks.indices.shape[0]} batch rows do not fit {batch}."
            )
        if blocks.indices.shape[2] * blocks.block_q < num_queries:
            raise ConfigError(
                f"BlockMask lists {blocks.indices.shape[2]} blocks of {blocks.block_q} queries, "
                f"and there are {num_queries} queries."
            )
        lists = {
            "indices": blocks.indices.cpu().contiguous(),
            "counts": blocks.counts.cpu().contiguous(),
            "block_q": blocks.block_q,
            "block_k": blocks.block_k,
        }
    near = spec.window is not None or spec.right is not None
    tokens: dict[str, Any] = {
        "q_global": spec.q_global if near else None,
        "k_global": spec.k_global if near else None,
        "q_positions": spec.q_positions,
        "k_positions": spec.k_positions,
        "q_documents": spec.q_documents,
        "k_documents": spec.k_documents,
    }
    given: dict[str, Any] = {
        name: x.cpu().to(torch.bool if name.endswith("global") else torch.int64).contiguous()
        for name, x in tokens.items()
        if x is not None
    }
    return _native.AttentionPattern(
        causal=spec.causal,
        window=spec.window,
        right=spec.right,
        beyond=spec.beyond,
        sinks=spec.sinks,
        **given,
        **lists,
    )
