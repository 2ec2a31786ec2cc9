"""From tensors and a pattern to the launch of a kernel.

What: strides, tile sizes, descriptors, lists and flags, in the order in which `kernels` take them.
Source: as the kernels.
Differs from a wrapper a kernel: the listed kernels share one tail of arguments.
Cost: tens of microseconds a call. Shapes: q [B, Hq, T, D], k [B, Hkv, S, D], v [B, Hkv, S, Dv].
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from unspool.attention.flash.configs import (
    DENSE_DKDV,
    DENSE_DQ,
    DENSE_FORWARD,
    listed_stages,
    tiles,
)
from unspool.attention.flash.plan import Plan, facts_of
from unspool.attention.philox import dropout_threshold

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from unspool.attention.blocks import BlockMask
    from unspool.attention.spec import Spec

LOG2E = 1.4426950408889634
_FAR = 1 << 30
"""A distance beyond any text: a rule that is not set."""
_ROWS = 128
"""A multiple of every tile of queries."""


def interpreted() -> bool:
    """Whether Triton interprets its programs on the CPU instead of compiling them."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def power_of_two(n: int) -> int:
    """The least power of two from 16 on that is not below n: what a product of tiles can take."""
    return max(16, 1 << (n - 1).bit_length())


def precision(dtype: torch.dtype) -> str:
    """How products of float32 are taken: exactly, unless PyTorch was told otherwise."""
    import torch

    return "tf32" if dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32 else "ieee"


class Sizes(NamedTuple):
    """The constants of a call that the kernels are compiled for."""

    D: int
    DV: int
    BLOCK_D: int
    BLOCK_DV: int
    GROUPS: int
    PRECISION: str


def sizes_of(q: Tensor, k: Tensor, v: Tensor) -> Sizes:
    """As they are, and as tiles hold them."""
    d, dv = q.shape[-1], v.shape[-1]
    groups = q.shape[1] // k.shape[1]
    return Sizes(d, dv, power_of_two(d), power_of_two(dv), groups, precision(q.dtype))


def strides(*tensors: Tensor) -> list[int]:
    """Of batch, head and row, of each."""
    return [step for x in tensors for step in x.stride()[:3]]


def describable(*tensors: Tensor) -> bool:
    """Whether tiles of these can be loaded by descriptor: aligned, and as wide as a tile."""
    import torch

    if tensors[0].is_cuda and torch.cuda.get_device_capability(tensors[0].device) < (9, 0):
        return False
    return all(
        x.shape[-1] == power_of_two(x.shape[-1])
        and x.data_ptr() % 16 == 0
        and all(step * x.itemsize % 16 == 0 and step > 0 for step in x.stride()[:3])
        for x in tensors
    )


def descriptor(x: Tensor, rows: int) -> Any:
    """Tiles of some rows of one head."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    return TensorDescriptor(x, list(x.shape), list(x.stride()), [1, 1, rows, x.shape[-1]])


class Band(NamedTuple):
    """How far a query sees to both sides, and which side is bound at all."""

    left: int
    right: int
    LEFT: bool
    RIGHT: bool


def band_of(spec: Spec) -> Band:
    """Causality and windows of a pattern without positions."""
    right = 0 if spec.causal else spec.right
    left = None if spec.window is None else spec.window - 1
    return Band(
        min(_FAR, _FAR if left is None else left), min(_FAR, _FAR if right is None else right),
        left is not None, right is not None,
    )  # fmt: skip


def dense_forward(
    q: Tensor, k: Tensor, v: Tensor, spec: Spec, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention over a band, and its log-sum-exp."""
    from unspool.attention.flash.kernels.dense_forward import dense_forward as kernel

    out, lse = _results(q, v)
    sizes, band = sizes_of(q, k, v), band_of(spec)
    cut = tiles(DENSE_FORWARD, max(q.shape[-1], v.shape[-1]), q.itemsize)
    described = describable(q, k, v)
    sources = (q, k, v)
    if described:
        rows = (cut.block_m, cut.block_n, cut.block_n)
        sources = tuple(descriptor(x, n) for x, n in zip(sources, rows, strict=True))
    grid = (-(-q.shape[2] // cut.block_m), q.shape[0] * q.shape[1])
    kernel[grid](
        *sources, out, lse, *strides(q, k, v, out), q.shape[2], k.shape[2], q.shape[1],
        band.left, band.right, scale * LOG2E, LEFT=band.LEFT, RIGHT=band.RIGHT,
        BLOCK_M=cut.block_m, BLOCK_N=cut.block_n, DESCRIBED=described,
        num_warps=cut.warps, num_stages=cut.stages, **sizes._asdict(),
    )  # fmt: skip
    return out, lse


def dense_backward(
    q: Tensor, k: Tensor, v: Tensor, d_out: Tensor, facts: RowFacts, spec: Spec,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k and v."""
    import torch

    from unspool.attention.flash.kernels import dense_backward as kernels

    d_q, d_k, d_v = (torch.empty_like(x) for x in (q, k, v))
    sizes, band = sizes_of(q, k, v), band_of(spec)
    width = max(q.shape[-1], v.shape[-1])
    described = describable(q, k, v, d_out)
    tail = (
        facts.delta.shape[-1],
        q.shape[2],
        k.shape[2],
        q.shape[1],
        band.left,
        band.right,
        scale * LOG2E,
    )
    flags = {"LEFT": band.LEFT, "RIGHT": band.RIGHT, "DESCRIBED": described, **sizes._asdict()}
    for table, kernel, targets, heads, length in (
        (DENSE_DQ, kernels.dense_dq, (d_q,), q.shape[1], q.shape[2]),
        (DENSE_DKDV, kernels.dense_dkdv, (d_k, d_v), k.shape[1], k.shape[2]),
    ):
        cut = tiles(table, width, q.itemsize)
        sources = (q, k, v, d_out)
        if described:
            rows = (cut.block_m, cut.block_n, cut.block_n, cut.block_m)
            sources = tuple(descriptor(x, n) for x, n in zip(sources, rows, strict=True))
        step = cut.block_m if table is DENSE_DQ else cut.block_n
        kernel[(-(-length // step), q.shape[0] * heads)](
            *sources, *facts, *targets, *strides(q, k, v, d_out, *targets), *tail,
            BLOCK_M=cut.block_m, BLOCK_N=cut.block_n, num_warps=cut.warps, num_stages=cut.stages,
            **flags,
        )  # fmt: skip
    return d_q, d_k, d_v


class RowFacts(NamedTuple):
    """What the backward kernels need of a query beside its weights, in rows of whole tiles."""

    lse2: Tensor
    """float32 [B, Hq, whole tiles of T], base 2, +inf where the weights shall be 0."""
    delta: Tensor
    """float32, as `lse2`: rowsum(dO * O) - dLSE."""


def row_facts(out: Tensor, d_out: Tensor, lse: Tensor, d_lse: Tensor | None) -> RowFacts:
    """Once for both kernels."""
    import torch

    from unspool.attention.flash.kernels.sparse_backward import row_facts as kernel

    batch, num_heads, num_queries, width = out.shape
    padded = -(-num_queries // _ROWS) * _ROWS
    lse2, delta = torch.empty(2, batch, num_heads, padded, dtype=torch.float32, device=out.device)
    step = 32
    kernel[(padded // step, batch * num_heads)](
        out, d_out, lse, lse if d_lse is None else d_lse.contiguous(), lse2, delta,
        *strides(out, d_out), num_queries, padded, num_heads, DV=width,
        BLOCK_DV=power_of_two(width), BLOCK_M=step, WITH_LSE=d_lse is not None,
    )  # fmt: skip
    return RowFacts(lse2, delta)


class Listed(NamedTuple):
    """What every listed kernel takes between its strides and its constants."""

    pointers: tuple[Tensor, ...]
    strides: list[int]
    numbers: tuple[int | float, ...]
    flags: dict[str, Any]


def listed_arguments(
    q: Tensor, k: Tensor, lists: BlockMask | None, spec: Spec, scale: float, turned: bool = False
) -> Listed:
    """The shared arguments; `lists` None: all keys."""
    facts = facts_of(spec, q.device)
    steps = [0 if x is None or x.shape[0] == 1 else x.stride(0) for x in facts]
    mask_steps = [0, 0, 0, 0]
    if spec.mask is not None:
        shape = (q.shape[0], q.shape[1], q.shape[2], k.shape[2])
        mask = spec.mask.to(q.device).expand(shape).view(_bytes())
        mask_steps = list(mask.stride())
    else:
        mask = q
    if lists is None:
        list_steps, blocks, list_groups = [0] * 5, (q.shape[2], 1), 1
        pointers = (q, q)
    else:
        indices, counts = lists.indices, lists.counts
        list_steps = [
            0 if indices.shape[0] == 1 else indices.stride(0), indices.stride(1),
            indices.stride(2), 0 if counts.shape[0] == 1 else counts.stride(0), counts.stride(1),
        ]  # fmt: skip
        blocks = (lists.block_k, lists.block_q) if turned else (lists.block_q, lists.block_k)
        list_groups = q.shape[1] // lists.num_heads
        pointers = (indices, counts)
    right = _FAR if spec.right is None else spec.right
    window = _FAR if spec.window is None else spec.window
    numbers = (
        q.shape[2], k.shape[2], q.shape[1], *blocks, scale, float(spec.softcap or 1.0),
        1.0 / (1.0 - spec.dropout), min(window, _FAR), min(right, _FAR), spec.beyond or 0,
        spec.sinks, spec.seed, dropout_threshold(spec.dropout),
    )  # fmt: skip
    flags = {
        "LIST_GROUPS": list_groups,
        "CAUSAL": spec.causal,
        "NEAR": spec.window is not None or spec.right is not None,
        "BEYOND": spec.beyond is not None,
        "AT_Q": facts[0] is not None,
        "AT_K": facts[1] is not None,
        "DOCUMENTS": facts[2] is not None,
        "GLOBAL_Q": facts[4] is not None,
        "GLOBAL_K": facts[5] is not None,
        "MASK": spec.mask is not None,
        "SOFTCAP": spec.softcap is not None,
        "DROPOUT": spec.dropout > 0,
    }
    given = tuple(q if x is None else x for x in facts)
    return Listed((*given, mask, *pointers), [*steps, *mask_steps, *list_steps], numbers, flags)


def listed_forward(
    q: Tensor, k: Tensor, v: Tensor, plan: Plan | None, spec: Spec, scale: float, fold: bool
) -> tuple[Tensor, Tensor]:
    """Attention over lists, or over all keys, and its log-sum-exp.

    Args:
        q: As `attend`.
        k: As `attend`.
        v: As `attend`.
        plan: The lists; None: all keys.
        spec: The rules within them.
        scale: Factor on the scores.
        fold: Query heads that share keys become rows of one tile: for few queries.
    """
    import torch

    from unspool.attention.flash.kernels.sparse_forward import merge_splits, sparse_forward

    batch, num_heads, num_queries, _ = q.shape
    sizes = sizes_of(q, k, v)
    lists = None if plan is None else plan.lists
    shared = listed_arguments(q, k, lists, spec, scale)
    rows = sizes.GROUPS * num_queries if fold else num_queries
    block_q = rows if lists is None or fold else lists.block_q
    block_m = min(power_of_two(block_q), 32 if q.itemsize == 4 else 64)
    mode, block_n, width = 0, 32 if q.itemsize == 4 else 64, k.shape[2]
    subtiles = 1
    if plan is not None and lists is not None:
        mode = 2 if plan.gathered else 1
        width = lists.indices.shape[3] * lists.block_k
        if mode == 1:
            block_n = min(block_n, power_of_two(lists.block_k))
            subtiles = -(-lists.block_k // block_n)
    row_tiles = -(-block_q // block_m)
    num_blocks = 1 if lists is None or fold else -(-num_queries // block_q)
    across = batch * (num_heads // sizes.GROUPS if fold else num_heads)
    programs = num_blocks * row_tiles * across
    splits = max(1, min(_processors(q.device) * 2 // programs, -(-width // (4 * block_n)), 64))
    out, lse = _results(q, v)
    target, target_lse, split_step = out, lse, 0
    if splits > 1:
        target = torch.empty(
            splits, batch, num_heads, num_queries, v.shape[-1], dtype=torch.float32, device=q.device
        )
        target_lse = torch.empty(splits, *lse.shape, dtype=torch.float32, device=q.device)
        split_step = target.stride(0)
    steps = strides(q, k, v)
    to = target if splits == 1 else target[0]
    sparse_forward[(num_blocks * row_tiles, across, splits)](
        q, k, v, target, target_lse, *shared.pointers, *steps, split_step, *strides(to),
        *shared.strides, *shared.numbers, BLOCK_M=block_m, BLOCK_N=block_n, ROW_TILES=row_tiles,
        SUBTILES=subtiles, SPLITS=splits, MODE=mode, FOLD=fold, num_warps=4,
        num_stages=listed_stages(max(q.shape[-1], v.shape[-1]), q.itemsize),
        **shared.flags, **sizes._asdict(),
    )  # fmt: skip
    if splits > 1:
        merge_splits[(lse.numel(),)](
            target, target_lse, out, lse, lse.numel(), num_queries, num_heads, *strides(out),
            DV=v.shape[-1], BLOCK_DV=sizes.BLOCK_DV, SPLITS=splits,
            BLOCK_SPLITS=1 << (splits - 1).bit_length(),
        )  # fmt: skip
    return out, lse


def listed_backward(
    q: Tensor, k: Tensor, v: Tensor, d_out: Tensor, facts: RowFacts, plan: Plan,
    spec: Spec, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k and v over lists."""
    import torch

    from unspool.attention.flash.kernels.sparse_backward import sparse_dkdv, sparse_dq

    sizes, lists = sizes_of(q, k, v), plan.lists
    d_q = torch.empty_like(q)
    padded, scatter = facts.delta.shape[-1], plan.gathered
    if scatter:  # summed in float32, by atomics
        d_k = torch.zeros(k.shape, dtype=torch.float32, device=k.device)
        d_v = torch.zeros(v.shape, dtype=torch.float32, device=v.device)
    else:
        d_k, d_v = torch.empty_like(k), torch.empty_like(v)
    most = 32 if q.itemsize == 4 or max(q.shape[-1], v.shape[-1]) > 128 else 64
    block_m = min(power_of_two(lists.block_q), most)
    block_n = most if scatter else min(power_of_two(lists.block_k), most)
    stages = 1 if q.itemsize == 4 else 2
    row_tiles, column_tiles = -(-lists.block_q // block_m), -(-lists.block_k // block_n)
    shared = listed_arguments(q, k, lists, spec, scale)
    steps = strides(q, k, v, d_out)
    grid = (-(-q.shape[2] // lists.block_q) * row_tiles, q.shape[0] * q.shape[1])
    sparse_dq[grid](
        q, k, v, d_out, *facts, d_q, d_k, d_v, *shared.pointers, *steps, *strides(d_q),
        *shared.strides, padded, *shared.numbers, BLOCK_M=block_m, BLOCK_N=block_n,
        ROW_TILES=row_tiles, SUBTILES=column_tiles, MODE=2 if scatter else 1, SCATTER=scatter,
        num_warps=4, num_stages=stages, **shared.flags, **sizes._asdict(),
    )  # fmt: skip
    if plan.turned is not None:
        shared = listed_arguments(q, k, plan.turned, spec, scale, turned=True)
        grid = (-(-k.shape[2] // lists.block_k) * column_tiles, q.shape[0] * k.shape[1])
        sparse_dkdv[grid](
            q, k, v, d_out, *facts, d_k, d_v, *shared.pointers, *steps, *strides(d_k, d_v),
            *shared.strides, padded, *shared.numbers, BLOCK_M=block_m, BLOCK_N=block_n,
            COLUMN_TILES=column_tiles, SUBTILES=row_tiles, num_warps=4, num_stages=stages,
            **shared.flags, **sizes._asdict(),
        )  # fmt: skip
    return d_q, d_k.to(k.dtype), d_v.to(v.dtype)


def _results(q: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    import torch

    out = torch.empty(*q.shape[:3], v.shape[-1], dtype=q.dtype, device=q.device)
    return out, torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)


def _bytes() -> torch.dtype:
    import torch

    return torch.uint8


@cache
def _processors(device: torch.device) -> int:
    """Multiprocessors; the interpreter is given a few, so that splitting is tried there too."""
    import torch

    if device.type != "cuda":
        return 4
    return torch.cuda.get_device_properties(device).multi_processor_count
