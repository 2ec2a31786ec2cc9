"""Launches of the kernels in roles: everything or causal, in half precision, on Hopper GPUs.

What: when they can serve a call, and their arguments; every other call goes to `dense`.
Source: as the kernels.
Differs from them: nothing.
Cost: tens of microseconds a call. Shapes: q [B, Hq, T, D], k and v [B, Hkv, S, D].
"""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import TYPE_CHECKING, Any

from unspool.attention.flash.configs import HOPPER_DKDV, HOPPER_DQ, HOPPER_FORWARD, Tiles
from unspool.attention.flash.launch import (
    LOG2E,
    RowFacts,
    describable,
    interpreted,
    processors,
    results,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from unspool.attention.flash.dense import Band

_OLDEST = (3, 6)
"""Triton whose Gluon has what the kernels use."""


def serves(
    q: Tensor, k: Tensor, v: Tensor, *more: Tensor, band: Band, table: dict[int, Tiles]
) -> bool:
    """Whether a kernel can do the call: no window, 2-byte numbers, heads of a size in its table,
    tiles that descriptors can copy, and a Hopper GPU."""
    return (
        not band.LEFT
        and q.shape[-1] == v.shape[-1]
        and q.shape[-1] in table
        and q.is_cuda
        and q.is_floating_point()
        and q.itemsize == 2
        and _at_hand(q.device)
        and describable(q, k, v, *more)
    )


@cache
def _at_hand(device: torch.device) -> bool:
    import torch

    return (
        not interpreted() and torch.cuda.get_device_capability(device) == (9, 0) and _new_enough()
    )


def _new_enough() -> bool:
    import triton

    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    return version >= _OLDEST and importlib.util.find_spec("triton.experimental.gluon") is not None


def _descriptor(x: Tensor, rows: int) -> Any:
    """Tiles of some rows of one head, laid out in shared memory as products take them; of rows of
    float32, pieces."""
    from triton.experimental.gluon.language import NVMMASharedLayout
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    if x.dim() == 2:
        block = [1, rows]
        layout = NVMMASharedLayout(swizzle_byte_width=0, element_bitwidth=32, rank=2)
    else:
        block = [1, 1, rows, x.shape[-1]]
        layout = NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=4)
    return TensorDescriptor(x, list(x.shape), list(x.stride()), block, layout)


def _shift(q: Tensor, k: Tensor, band: Band) -> int:
    """What the number of a row lacks to that of the last key it sees."""
    return k.shape[2] - q.shape[2] + (band.right if band.RIGHT else 0)


def forward(q: Tensor, k: Tensor, v: Tensor, band: Band, scale: float) -> tuple[Tensor, Tensor]:
    """Attention over everything or up to oneself, and its log-sum-exp; see `serves`."""
    from unspool.attention.flash.kernels.hopper_forward import hopper_forward as kernel

    out, lse = results(q, v)
    batch, num_heads, num_queries, width = q.shape
    cut = HOPPER_FORWARD[width]
    tiles = -(-num_queries // cut.block_m)
    # Under causality a program takes tiles in pairs, a long and a short one.
    pieces = batch * num_heads * ((tiles + 1) // 2 if band.RIGHT else tiles)
    half = cut.block_m // 2
    kernel[(min(processors(q.device), pieces),)](
        _descriptor(q, half), _descriptor(k, cut.block_n), _descriptor(v, cut.block_n),
        _descriptor(out, half), lse, num_queries, k.shape[2], _shift(q, k, band),
        num_heads, num_heads // k.shape[1], batch * num_heads, tiles, scale * LOG2E, D=width,
        BLOCK_M=cut.block_m, BLOCK_N=cut.block_n, STAGES=cut.stages, RIGHT=band.RIGHT,
        TURNS=True, num_warps=cut.warps,
    )  # fmt: skip
    return out, lse


def dq(
    q: Tensor, k: Tensor, v: Tensor, d_out: Tensor, facts: RowFacts, band: Band, scale: float
) -> Tensor:
    """Gradient of q; see `serves`."""
    import torch

    from unspool.attention.flash.kernels.hopper_dq import hopper_dq as kernel

    d_q = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    batch, num_heads, num_queries, width = q.shape
    cut = HOPPER_DQ[width]
    half = cut.block_m // 2
    kernel[(-(-num_queries // cut.block_m), batch * num_heads)](
        _descriptor(q, half), _descriptor(k, cut.block_n), _descriptor(v, cut.block_n),
        _descriptor(d_out, half), *facts, _descriptor(d_q, half), facts.delta.shape[-1],
        num_queries, k.shape[2], _shift(q, k, band), num_heads, num_heads // k.shape[1],
        scale * LOG2E, D=width, BLOCK_M=cut.block_m, BLOCK_N=cut.block_n, STAGES=cut.stages,
        RIGHT=band.RIGHT, num_warps=cut.warps,
    )  # fmt: skip
    return d_q


def dkdv(
    q: Tensor, k: Tensor, v: Tensor, d_out: Tensor, facts: RowFacts, band: Band, scale: float
) -> tuple[Tensor, Tensor]:
    """Gradients of k and v; see `serves`."""
    import torch

    from unspool.attention.flash.kernels.hopper_dkdv import hopper_dkdv as kernel

    d_k, d_v = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (k, v))
    batch, num_kv_heads, num_keys, width = k.shape
    cut = HOPPER_DKDV[width]
    half = cut.block_n // 2
    rows = (_descriptor(x.flatten(0, 1), cut.block_m) for x in facts)
    kernel[(-(-num_keys // cut.block_n), batch * num_kv_heads)](
        _descriptor(q, cut.block_m), _descriptor(k, half), _descriptor(v, half),
        _descriptor(d_out, cut.block_m), *rows, _descriptor(d_k, half), _descriptor(d_v, half),
        q.shape[2], _shift(q, k, band), q.shape[1], q.shape[1] // num_kv_heads, scale * LOG2E,
        D=width, BLOCK_M=cut.block_m, BLOCK_N=cut.block_n, STAGES=cut.stages, RIGHT=band.RIGHT,
        num_warps=cut.warps,
    )  # fmt: skip
    return d_k, d_v
