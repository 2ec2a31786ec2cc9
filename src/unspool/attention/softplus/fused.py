"""Run the Triton kernels of softplus attention from tensors and a pattern, with gradients.

What: `fused_softplus`, a differentiable call, and the one reason why it cannot take another.
Source: as `kernel`.
Differs from the reference: softplus alone among the non-linearities; weights are never kept.
Cost: as `kernel`. Shapes: q [B, Hq, T, D], k and v [B, Hkv, S, D].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from unspool.attention.softplus.reference import LOW, SoftplusConfig, row_scale, tie
from unspool.attention.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor

_SIZES = (16, 32, 64, 128)
_LEFT_OUT = ("right", "beyond", "q_global", "k_global", "q_documents", "mask", "blocks", "softcap")


def why_not_triton(
    q: Tensor, k: Tensor, v: Tensor, spec: Spec, config: SoftplusConfig
) -> str | None:
    """Why the kernel cannot take a call; None: it can."""
    from importlib.util import find_spec

    from unspool.attention.flash.launch import interpreted

    if find_spec("triton") is None:
        return "triton is not installed"
    if not q.is_cuda and not interpreted():
        return f"tensors are on {q.device.type}, the kernel needs CUDA"
    if q.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return f"dtype is {q.dtype}, the kernel has float16, bfloat16 and float32"
    if q.shape[-1] not in _SIZES or v.shape[-1] != q.shape[-1]:
        return f"head sizes are {q.shape[-1]} and {v.shape[-1]}, the kernel has {_SIZES}, alike"
    if config.phi != "softplus" or not config.normalise:
        return (
            f"phi={config.phi}, normalise={config.normalise}, the kernel has softplus, normalised"
        )
    if 0 in (*q.shape, *k.shape):
        return f"there is nothing to attend, q is {tuple(q.shape)} and k {tuple(k.shape)}"
    if k.shape[2] < q.shape[2] and spec.causal:
        return f"{q.shape[2]} queries are more than {k.shape[2]} keys"
    more = _beyond(spec)
    return f"the pattern has {', '.join(more)}, which the kernel lacks" if more else None


def simple(spec: Spec) -> bool:
    """Whether a pattern is causality, a window and padding, and nothing else."""
    return not _beyond(spec)


def _beyond(spec: Spec) -> list[str]:
    more = [name for name in _LEFT_OUT if getattr(spec, name) is not None]
    return more + [name for name in ("sinks", "dropout") if getattr(spec, name)]


def seen_keys(spec: Spec, q: Tensor, num_keys: int) -> Tensor:
    """float32 [B, T]: keys that each query of a simple pattern sees."""
    return _seen(spec, *_positions(spec, q, num_keys))


def fused_softplus(
    q: Tensor, k: Tensor, v: Tensor, *, spec: Spec, config: SoftplusConfig
) -> Tensor:
    """Softplus attention by the kernels, [B, Hq, T, D]; ask `why_not_triton` before."""
    out: Tensor = _Fused.apply(q, k, v, spec, config)
    return out


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, spec: Spec, config: SoftplusConfig
    ) -> Tensor:
        from unspool.attention.softplus import kernel

        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        batch, heads, num_queries, head_dim = q.shape
        num_keys = k.shape[2]
        at_q, at_k = _positions(spec, q, num_keys)
        seen = _seen(spec, at_q, at_k)
        factor = row_scale(config, head_dim, seen)
        out = torch.empty_like(q)
        total, top, powers, shift = (
            torch.zeros(batch * heads, num_queries, device=q.device) for _ in range(4)
        )
        sizes = _sizes(q, k, spec, config)
        grid = (-(-num_queries // sizes["BM"]), batch * heads)
        with _on(q):
            kernel.forward[grid](
                *(q, k, v, out, at_q, at_k, factor, seen, total, top, powers, shift),
                *(num_queries, num_keys, float(config.p), float(config.offset)),
                *(tie(torch.float32), LOW),
                **sizes,
            )
        ctx.save_for_backward(q, k, v, out, at_q, at_k, factor, seen, total, top, powers, shift)
        ctx.spec, ctx.config = spec, config
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from unspool.attention.softplus import kernel

        q, k, v, out, *rest = ctx.saved_tensors
        d_out = grads[0].contiguous().to(q.dtype)
        batch, heads, num_queries, _ = q.shape
        num_keys = k.shape[2]
        d1 = (d_out.float() * out.float()).sum(-1)
        d2 = torch.empty_like(d1)
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        sizes = _sizes(q, k, ctx.spec, ctx.config)
        numbers = (num_queries, num_keys, float(ctx.config.p), float(ctx.config.offset))
        grid = (-(-num_queries // sizes["BM"]), batch * heads)
        with _on(q):
            kernel.rows[grid](
                *(q, k, v, d_out, dq, *rest, d1, d2, *numbers),
                **sizes,
                OFFSET=ctx.config.offset > 0,
            )
            grid = (-(-num_keys // sizes["BN"]), batch * k.shape[1])
            kernel.columns[grid](*(q, k, v, d_out, dk, dv, *rest, d1, d2, *numbers), **sizes)
        return dq, dk, dv, None, None


def _on(q: Tensor) -> Any:
    """Launch on the device of the tensors."""
    import contextlib

    return torch.cuda.device(q.device) if q.is_cuda else contextlib.nullcontext()


def _sizes(q: Tensor, k: Tensor, spec: Spec, config: SoftplusConfig) -> dict[str, Any]:
    side = 32 if q.shape[-1] > 64 or q.dtype == torch.float32 else 64
    return {
        "HQ": q.shape[1],
        "GROUP": q.shape[1] // k.shape[1],
        "D": q.shape[-1],
        "BM": side,
        "BN": side,
        "WINDOW": spec.window or 0,
        "CAUSAL": spec.causal,
        "REWEIGHT": config.reweight,
    }


def _positions(spec: Spec, q: Tensor, num_keys: int) -> tuple[Tensor, Tensor]:
    """int32 positions of queries and keys, [B, T] and [B, S]."""
    batch, num_queries = q.shape[0], q.shape[2]
    at_q, at_k = spec.q_positions, spec.k_positions
    if at_q is None:
        at_q = torch.arange(num_keys - num_queries, num_keys, device=q.device)[None]
    if at_k is None:
        at_k = torch.arange(num_keys, device=q.device)[None]
    return (
        at_q.to(q.device, torch.int32).expand(batch, -1).contiguous(),
        at_k.to(q.device, torch.int32).expand(batch, -1).contiguous(),
    )


def _seen(spec: Spec, at_q: Tensor, at_k: Tensor) -> Tensor:
    """float32 [B, T]: keys that each query sees, counted among those that are there."""
    # Sorted positions turn "how many keys lie at or before" into two searches.
    keys = at_k.sort(dim=-1).values
    last = at_q if spec.causal else torch.full_like(at_q, torch.iinfo(torch.int32).max - 1)
    count = torch.searchsorted(keys, last, right=True)
    first = torch.zeros_like(at_q)
    if spec.window is not None:
        first = (at_q - spec.window + 1).clamp(min=0)
    count = count - torch.searchsorted(keys, first, right=False)
    return count.masked_fill(at_q < 0, 0).float().contiguous()
