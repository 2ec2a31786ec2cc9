"""Launches of the kernels over lists, gathered keys, or all keys split into parts.

What: the facts, lists and flags of a pattern in the order in which the listed kernels take them;
tile sizes from the lists; splitting where there are fewer programs than processors.
Source: as the kernels.
Differs from `dense`: the three kernels share one tail of arguments.
Cost: tens of microseconds a call. Shapes: as `launch`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from unspool.attention.flash.configs import listed_stages
from unspool.attention.flash.launch import (
    FAR,
    RowFacts,
    power_of_two,
    processors,
    results,
    roomy,
    sizes_of,
    strides,
)
from unspool.attention.flash.plan import Plan, facts_of
from unspool.attention.philox import dropout_threshold

if TYPE_CHECKING:
    from torch import Tensor

    from unspool.attention.blocks import BlockMask
    from unspool.attention.spec import Spec


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
    import torch

    facts = facts_of(spec, q.device)
    steps = [0 if x is None or x.shape[0] == 1 else x.stride(0) for x in facts]
    mask_steps = [0, 0, 0, 0]
    if spec.mask is not None:
        shape = (q.shape[0], q.shape[1], q.shape[2], k.shape[2])
        mask = spec.mask.to(q.device).expand(shape).view(torch.uint8)
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
    right = FAR if spec.right is None else spec.right
    window = FAR if spec.window is None else spec.window
    numbers = (
        q.shape[2], k.shape[2], q.shape[1], *blocks, scale, float(spec.softcap or 1.0),
        1.0 / (1.0 - spec.dropout), min(window, FAR), min(right, FAR), spec.beyond or 0,
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
    splits = max(1, min(processors(q.device) * 2 // programs, -(-width // (4 * block_n)), 64))
    out, lse = results(q, v)
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
        num_stages=listed_stages(max(q.shape[-1], v.shape[-1]), q.itemsize, roomy(q.device)),
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
    small = q.itemsize == 4 or max(q.shape[-1], v.shape[-1]) > 128 or not roomy(q.device)
    most = 32 if small else 64
    block_m = min(power_of_two(lists.block_q), most)
    block_n = most if scatter else min(power_of_two(lists.block_k), most)
    stages = 1 if small and q.itemsize == 4 else 2
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
