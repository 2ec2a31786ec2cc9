"""Gradient of q over everything or causal, on Hopper: one warp group copies, two multiply.

What: a program has a tile of queries and meets the keys from the last tile to the first; the
product that sums the gradient of a tile runs while the scores of the next are made.
Source: FlashAttention (Dao et al. 2022), algorithm 4; roles and overlap as FlashAttention-3 (Shah
et al. 2024), sections 3.1 and 3.2.
Differs from the papers: a kernel of its own, so that no two programs add to the same row.
Cost: 6 * D operations a pair. Shapes: as `hopper_forward`; delta and lse [B, Hq, whole tiles of T].
"""

from typing import no_type_check

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia import hopper
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma

from unspool.attention.flash.kernels.warpgroups import (
    barriers,
    bounds,
    copy_in,
    copy_out,
    product,
    tile_of,
    visible,
    wait_for_products,
)


@gluon.jit
@no_type_check
def _copy(
    Q, D_OUT, K, V, qs, d_outs, ks, vs, bars, batch, head, kv_head, first_row, total,
    D: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    q_full, k_full, v_full, free = bars
    ROWS: gl.constexpr = BLOCK_M // 2
    for half in gl.static_range(2):
        full = q_full.index(half)
        at = [batch, head, first_row + half * ROWS, 0]
        mbarrier.expect(full, 2 * ROWS * D * 2)
        copy_in(Q, at, full, qs.index(half))
        copy_in(D_OUT, at, full, d_outs.index(half))
    for n in range(total):
        at = [batch, kv_head, (total - 1 - n) * BLOCK_N, 0]
        slot = n % STAGES
        mbarrier.wait(free.index(slot), ((n // STAGES) & 1) ^ 1)
        mbarrier.expect(k_full.index(slot), BLOCK_N * D * 2)
        copy_in(K, at, k_full.index(slot), ks.index(slot))
        mbarrier.expect(v_full.index(slot), BLOCK_N * D * 2)
        copy_in(V, at, v_full.index(slot), vs.index(slot))


@gluon.jit
@no_type_check
def _advance(
    dq, ds, start, end, q, d_out, lse, delta, ks, vs, bars, total, sees_to, S, scale,
    ROWS: gl.constexpr, D: gl.constexpr, BLOCK_N: gl.constexpr, STAGES: gl.constexpr,
    MASKED: gl.constexpr, RIGHT: gl.constexpr, SCORES: gl.constexpr, WEIGHTS: gl.constexpr,
):  # fmt: skip
    _q_full, k_full, v_full, free = bars
    for n in range(start, end):
        slot = n % STAGES
        before = (n - 1) % STAGES
        parity = (n // STAGES) & 1
        zero = gl.zeros([ROWS, BLOCK_N], gl.float32, layout=SCORES)
        mbarrier.wait(k_full.index(slot), parity)
        k = tile_of(ks, slot, BLOCK_N, D).permute([1, 0])
        scores = product(q, k, zero, use_acc=False, is_async=True)
        mbarrier.wait(v_full.index(slot), parity)
        v = tile_of(vs, slot, BLOCK_N, D).permute([1, 0])
        gains = product(d_out, v, zero, use_acc=False, is_async=True)
        sums = product(ds, tile_of(ks, before, BLOCK_N, D), dq, is_async=True)
        s = wait_for_products(2, deps=[scores])
        p = gl.exp2(s * scale - lse[:, None])
        if MASKED:
            first = (total - 1 - n) * BLOCK_N
            p = gl.where(visible(first, sees_to, S, BLOCK_N, RIGHT, SCORES), p, 0.0)
        # These two waits have been waited for: their loops keep the assembler from taking the ends
        # of products forward, in front of the arithmetic that shall run beside them.
        mbarrier.wait(k_full.index(slot), parity)
        dp = wait_for_products(1, deps=[gains])
        next_ds = p * (dp - delta[:, None])
        mbarrier.wait(v_full.index(slot), parity)
        dq, ds = wait_for_products(0, deps=[sums, ds])
        mbarrier.arrive(free.index(before), count=1)
        ds = gl.convert_layout(next_ds.to(ks.dtype), WEIGHTS)
    return dq, ds


@gluon.jit
@no_type_check
def _sum(
    D_Q, LSE, DELTA, qs, d_outs, ks, vs, bars, batch, head, to_row, first_row, total, clear, S,
    shift, scale, HALF: gl.constexpr, D: gl.constexpr, BLOCK_M: gl.constexpr,
    BLOCK_N: gl.constexpr, STAGES: gl.constexpr, RIGHT: gl.constexpr,
):  # fmt: skip
    """One warp group: half of the rows."""
    ROWS: gl.constexpr = BLOCK_M // 2
    SCORES: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_N, 16])
    SUMS: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    WEIGHTS: gl.constexpr = gl.DotOperandLayout(0, SUMS, 2)
    q_full, k_full, v_full, _free = bars
    mine = first_row + HALF * ROWS
    rows = mine + gl.arange(0, ROWS, layout=gl.SliceLayout(1, SCORES))
    sees_to = rows + shift
    lse = gl.load(LSE + to_row + rows)
    delta = gl.load(DELTA + to_row + rows)
    q = tile_of(qs, HALF, ROWS, D)
    d_out = tile_of(d_outs, HALF, ROWS, D)
    zero = gl.zeros([ROWS, BLOCK_N], gl.float32, layout=SCORES)
    mbarrier.wait(q_full.index(HALF), 0)
    mbarrier.wait(k_full.index(0), 0)
    k = tile_of(ks, 0, BLOCK_N, D).permute([1, 0])
    scores = product(q, k, zero, use_acc=False, is_async=True)
    mbarrier.wait(v_full.index(0), 0)
    v = tile_of(vs, 0, BLOCK_N, D).permute([1, 0])
    gains = product(d_out, v, zero, use_acc=False, is_async=True)
    s, dp = wait_for_products(0, deps=[scores, gains])
    p = gl.exp2(s * scale - lse[:, None])
    first = (total - 1) * BLOCK_N
    p = gl.where(visible(first, sees_to, S, BLOCK_N, RIGHT, SCORES), p, 0.0)
    ds = gl.convert_layout((p * (dp - delta[:, None])).to(ks.dtype), WEIGHTS)
    dq = gl.zeros([ROWS, D], gl.float32, layout=SUMS)
    ragged = gl.maximum(total - clear, 1)
    if RIGHT:
        dq, ds = _advance(
            dq, ds, 1, ragged, q, d_out, lse, delta, ks, vs, bars, total, sees_to, S, scale, ROWS,
            D, BLOCK_N, STAGES, True, RIGHT, SCORES, WEIGHTS,
        )  # fmt: skip
    dq, ds = _advance(
        dq, ds, ragged, total, q, d_out, lse, delta, ks, vs, bars, total, sees_to, S, scale, ROWS,
        D, BLOCK_N, STAGES, False, RIGHT, SCORES, WEIGHTS,
    )  # fmt: skip
    sums = product(ds, tile_of(ks, (total - 1) % STAGES, BLOCK_N, D), dq, is_async=True)
    dq = wait_for_products(0, deps=[sums])
    q.store((dq * (scale * 0.6931471805599453)).to(qs.dtype))
    hopper.fence_async_shared()
    copy_out(D_Q, [batch, head, mine, 0], qs.index(HALF))
    tma.store_wait(0)


@gluon.jit
@no_type_check
def _sum_first(
    D_Q, LSE, DELTA, qs, d_outs, ks, vs, bars, batch, head, to_row, first_row, total, clear, S,
    shift, scale, D: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr,
    STAGES: gl.constexpr, RIGHT: gl.constexpr,
):  # fmt: skip
    _sum(
        D_Q, LSE, DELTA, qs, d_outs, ks, vs, bars, batch, head, to_row, first_row, total, clear, S,
        shift, scale, 0, D, BLOCK_M, BLOCK_N, STAGES, RIGHT,
    )  # fmt: skip


@gluon.jit
@no_type_check
def _sum_second(
    D_Q, LSE, DELTA, qs, d_outs, ks, vs, bars, batch, head, to_row, first_row, total, clear, S,
    shift, scale, D: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr,
    STAGES: gl.constexpr, RIGHT: gl.constexpr,
):  # fmt: skip
    _sum(
        D_Q, LSE, DELTA, qs, d_outs, ks, vs, bars, batch, head, to_row, first_row, total, clear, S,
        shift, scale, 1, D, BLOCK_M, BLOCK_N, STAGES, RIGHT,
    )  # fmt: skip


@gluon.jit(do_not_specialize=["T_PADDED", "T", "S", "shift", "num_heads", "groups"])
@no_type_check
def hopper_dq(
    Q, K, V, D_OUT, LSE, DELTA, D_Q, T_PADDED, T, S, shift, num_heads, groups, scale,
    D: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, STAGES: gl.constexpr,
    RIGHT: gl.constexpr,
):  # fmt: skip
    """A row sees keys up to its number plus `shift` if RIGHT; `scale` is that of the scores times
    log2(e)."""
    across = gl.program_id(1)
    tile = gl.num_programs(0) - 1 - gl.program_id(0) if RIGHT else gl.program_id(0)
    batch = across // num_heads
    head = across % num_heads
    first_row, total, clear = bounds(tile, T, S, shift, BLOCK_M, BLOCK_N, RIGHT)
    to_row = across.to(gl.int64) * T_PADDED
    ROWS: gl.constexpr = BLOCK_M // 2
    qs = gl.allocate_shared_memory(Q.dtype, [2, 1, 1, ROWS, D], Q.layout)
    d_outs = gl.allocate_shared_memory(Q.dtype, [2, 1, 1, ROWS, D], Q.layout)
    ks = gl.allocate_shared_memory(Q.dtype, [STAGES, 1, 1, BLOCK_N, D], K.layout)
    vs = gl.allocate_shared_memory(Q.dtype, [STAGES, 1, 1, BLOCK_N, D], V.layout)
    bars = barriers(2, 1), barriers(STAGES, 1), barriers(STAGES, 1), barriers(STAGES, 2)
    hopper.fence_async_shared()
    gl.warp_specialize(
        [
            (_sum_first, (
                D_Q, LSE, DELTA, qs, d_outs, ks, vs, bars, batch, head, to_row, first_row, total,
                clear, S, shift, scale, D, BLOCK_M, BLOCK_N, STAGES, RIGHT,
            )),
            (_sum_second, (
                D_Q, LSE, DELTA, qs, d_outs, ks, vs, bars, batch, head, to_row, first_row, total,
                clear, S, shift, scale, D, BLOCK_M, BLOCK_N, STAGES, RIGHT,
            )),
            (_copy, (
                Q, D_OUT, K, V, qs, d_outs, ks, vs, bars, batch, head, head // groups, first_row,
                total, D, BLOCK_M, BLOCK_N, STAGES,
            )),
        ],
        [4, 4],
        [240, 24],
    )  # fmt: skip
