"""A plan on a GPU: squares by the vendor kernel, blocks and samples by this project's own.

What: launches for the forward and the backward pass, a handful a level.
Source: as `kernel`; the squares are PyTorch's FlashAttention, whose backward takes the log-sum-exp
and the output of the union, which makes its gradients those of the merged softmax.
Differs from the released code: see `union`.
Cost: as `kernel`; sums are kept in float32. Shapes: as `union`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from math import ceil
from typing import TYPE_CHECKING

from unspool.attention.hyper.leaves import from_squares, leaf_gradients, to_squares

if TYPE_CHECKING:
    from torch import Tensor

    from unspool.attention.hyper.plan import Level, Plan

_LOG2E = 1.4426950408889634
_PROGRAMS = 2048
"""Programs that a launch should have, so that no multiprocessor idles."""


def why_not_fused(q: Tensor, v: Tensor) -> str | None:
    """Why the kernels can't take this call; None: they can."""
    import torch

    if find_spec("triton") is None:
        return "triton is not installed (pip install triton)"
    if q.device.type != "cuda":
        return f"tensors are on {q.device.type}, the kernels need CUDA"
    if q.dtype not in (torch.float16, torch.bfloat16):
        return f"dtype is {q.dtype}, the kernels take float16 and bfloat16"
    if q.shape[-1] != v.shape[-1] or q.shape[-1] not in (16, 32, 64, 128):
        return (
            f"head sizes are {q.shape[-1]} (keys) and {v.shape[-1]} (values), the kernels take "
            "equal ones of 16, 32, 64 and 128"
        )
    return None


def fused_forward(
    q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp of a plan."""
    import torch

    if plan.leaves:
        own = slice(plan.offset, None)
        inputs = (q, k[:, :, own], v[:, :, own])
        part, lse = _flash([to_squares(x, plan.leaves, plan.leaf) for x in inputs], scale)
        out = from_squares(part, plan.leaves, q.shape[2]).float().contiguous()
        lse = from_squares(lse, plan.leaves, q.shape[2]).float().contiguous()
    else:
        out = torch.zeros_like(q, dtype=torch.float32)
        lse = q.new_full(q.shape[:3], float("-inf"), dtype=torch.float32)
    for level in plan.levels:
        forward_level(level, q, k, v, scale, out, lse)
    return out.to(q.dtype), lse


def fused_backward(
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
    """Gradients of q, k and v."""
    import torch
    import torch.nn.functional as F

    delta = _delta(out, d_out)
    if d_lse is not None:
        delta -= d_lse
    own = slice(plan.offset, None)
    inputs = (q, k[:, :, own], v[:, :, own])
    if not plan.leaves:
        found = tuple(torch.zeros_like(x, dtype=torch.float32) for x in inputs)
    elif d_lse is None:
        found = _flash_gradients(inputs, out, lse, d_out, plan, scale)
    else:  # the vendor kernel computes delta itself, without the log-sum-exp's own gradient
        union = (d_out.float(), lse, delta)
        found = leaf_gradients(inputs, plan.leaves, plan.leaf, scale, union)
    d_q, d_k, d_v = (x.float().contiguous() for x in found)
    if plan.leaves and plan.offset:  # keys before the squares have no gradient yet
        d_k, d_v = (F.pad(x, (0, 0, plan.offset, 0)) for x in (d_k, d_v))
    for level in plan.levels:
        backward_level(level, (q, k, v), scale, (d_out, lse, delta), (d_q, d_k, d_v))
    return d_q.to(q.dtype), d_k.to(k.dtype), d_v.to(v.dtype)


def forward_level(
    level: Level, q: Tensor, k: Tensor, v: Tensor, scale: float, out: Tensor, lse: Tensor
) -> None:
    """Join a level to `out` and `lse`, in place."""
    from unspool.attention.hyper.kernel import forward_kernel

    rows, height, width, samples, num_blocks = _sizes(level)
    tile = _tile(height, q)
    chunks = -(-height // tile["BM"])
    forward_kernel[(rows * chunks,)](
        q, k, v, out, lse,
        level.q_rows, level.k_rows, level.s_rows, level.s_blocks, level.s_logs,
        scale * _LOG2E, num_blocks, height, width, samples, chunks,
        D=q.shape[-1], **tile,
    )  # fmt: skip


def backward_level(
    level: Level,
    inputs: tuple[Tensor, Tensor, Tensor],
    scale: float,
    union: tuple[Tensor, Tensor, Tensor],
    gradients: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Add a level's part of the gradients, in place; arguments as in `parts.add_gradients`."""
    from unspool.attention.hyper.kernel import block_key_kernel, query_kernel

    q = inputs[0]
    rows, height, width, samples, num_blocks = _sizes(level)
    tile = _tile(height, q)
    chunks = -(-height // tile["BM"])
    query_kernel[(rows * chunks,)](
        *inputs, *union, gradients[0],
        level.q_rows, level.k_rows, level.s_rows, level.s_blocks, level.s_logs,
        scale * _LOG2E, num_blocks, height, width, samples, chunks,
        D=q.shape[-1], **tile,
    )  # fmt: skip
    if width:
        tile = _key_tile(q)
        chunks = -(-width // tile["BN"])
        block_key_kernel[(rows * chunks,)](
            *inputs, *union, *gradients[1:], level.q_rows, level.k_rows,
            scale * _LOG2E, height, width, chunks,
            D=q.shape[-1], **tile,
        )  # fmt: skip
    if samples:
        _sample_gradients(level, inputs, scale, union, gradients)


def _sample_gradients(
    level: Level,
    inputs: tuple[Tensor, Tensor, Tensor],
    scale: float,
    union: tuple[Tensor, Tensor, Tensor],
    gradients: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Every sampled key sums over all queries of its rectangle, in spans; then keys that were drawn
    more than once are summed, in one order."""
    import torch

    from unspool.attention.hyper.kernel import sample_key_kernel

    q = inputs[0]
    rows, height, _, samples, num_blocks = _sizes(level)
    pieces, length = rows // num_blocks, num_blocks * height
    tile = _key_tile(q)
    chunks = -(-samples // tile["BN"])
    splits = max(1, min(_PROGRAMS // (chunks * pieces), length // (4 * tile["BM"])))
    span = ceil(ceil(length / splits) / tile["BM"]) * tile["BM"]
    splits = -(-length // span)
    shape = (splits, pieces, samples, q.shape[-1])
    d_k, d_v = (torch.empty(shape, dtype=torch.float32, device=q.device) for _ in range(2))
    sample_key_kernel[(chunks, pieces, splits)](
        *inputs, *union, d_k, d_v,
        level.q_rows, level.s_rows, level.s_blocks, level.s_logs,
        scale * _LOG2E, length, height, samples, span, pieces,
        D=q.shape[-1], **tile,
    )  # fmt: skip
    keys = level.s_rows.flatten(0, 2).long()
    same = keys[:, :, None] == keys[:, None, :]
    first = same.int().argmax(-1) == torch.arange(samples, device=keys.device)
    first &= keys >= 0
    at = keys.clamp(min=0).flatten()
    for into, parts in ((gradients[1], d_k), (gradients[2], d_v)):
        summed = same.float() @ parts.sum(0)
        summed = summed.masked_fill(~first[..., None], 0.0)  # adding zeros has no order
        into.view(-1, into.shape[-1]).index_add_(0, at, summed.flatten(0, 1))


def _delta(out: Tensor, d_out: Tensor) -> Tensor:
    import torch

    from unspool.attention.hyper.kernel import delta_kernel

    delta = torch.empty(out.shape[:3], dtype=torch.float32, device=out.device)
    length = delta.numel()
    delta_kernel[(-(-length // 128),)](out, d_out, delta, length, D=out.shape[-1], BM=128)
    return delta


def _flash(inputs: Sequence[Tensor], scale: float) -> tuple[Tensor, Tensor]:
    import torch

    out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
        *inputs, 0.0, True, False, scale=scale
    )
    return out, lse


def _flash_gradients(
    inputs: tuple[Tensor, Tensor, Tensor],
    out: Tensor,
    lse: Tensor,
    d_out: Tensor,
    plan: Plan,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    import torch

    q, k, v, out, d_out = (to_squares(x, plan.leaves, plan.leaf) for x in (*inputs, out, d_out))
    lse = to_squares(lse, plan.leaves, plan.leaf).contiguous()
    unread = torch.empty(2, dtype=torch.uint64, device=q.device)  # state of a dropout of 0
    d_q, d_k, d_v = torch.ops.aten._scaled_dot_product_flash_attention_backward(
        d_out, q, k, v, out, lse, None, None, plan.leaf, plan.leaf, 0.0, True,
        unread, unread, scale=scale,
    )  # fmt: skip
    length = inputs[0].shape[2]
    d_q, d_k, d_v = (from_squares(x, plan.leaves, length) for x in (d_q, d_k, d_v))
    return d_q, d_k, d_v


def _sizes(level: Level) -> tuple[int, int, int, int, int]:
    """Blocks in all, rows and keys of one, samples of a rectangle, blocks of a rectangle."""
    num_blocks, height = level.q_rows.shape[-2:]
    rows = level.q_rows.numel() // height
    return rows, height, level.k_rows.shape[-1], level.s_rows.shape[-1], num_blocks


def _tile(rows: int, q: Tensor) -> dict[str, int]:
    """Of the kernels that own queries: the fewer programs meet a key, the less is gathered."""
    if rows > 64 and q.shape[-1] <= 64:
        return {"BM": 128, "BN": 64, "num_warps": 8, "num_stages": 3}
    return {"BM": 64, "BN": 64, "num_warps": 4 if q.shape[-1] <= 64 else 8, "num_stages": 2}


def _key_tile(q: Tensor) -> dict[str, int]:
    """Of the kernels that own keys, which keep two sums in registers."""
    return {"BM": 64, "BN": 64, "num_warps": 4 if q.shape[-1] <= 64 else 8, "num_stages": 2}
