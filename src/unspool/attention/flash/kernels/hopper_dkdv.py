"""Gradients of k and v over everything or causal, on Hopper: one warp group copies, two multiply.

What: a program has a tile of keys and meets the queries that see it, of every head that shares it,
from the last tile to the first; the scores of the next tile are made while the sums of this run.
Source: FlashAttention (Dao et al. 2022), algorithm 4; roles and overlap as FlashAttention-3 (Shah
et al. 2024), sections 3.1 and 3.2.
Differs from the papers: without the gradient of q, so without atomics.
Cost: 8 * D operations a pair. Shapes: as `hopper_dq`.
"""

from typing import no_type_check

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia import hopper
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma

from unspool.attention.flash.kernels.warpgroups import (
    barriers,
    copy_in,
    copy_out,
    product,
    tile_of,
    wait_for_products,
)


@gluon.jit
@no_type_check
def _facts(queue, slot, ROWS: gl.constexpr, LAYOUT: gl.constexpr):
    """One number of each query of a tile."""
    return queue.index(slot).reshape([ROWS]).load(gl.SliceLayout(0, LAYOUT))


@gluon.jit
@no_type_check
def _copy(
    Q, D_OUT, K, V, LSE, DELTA, tiles, bars, batch, kv_head, num_heads, groups, first_column, lo,
    steps, D: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    qs, d_outs, ks, vs, lses, deltas = tiles
    k_full, q_full, d_full, free = bars
    COLUMNS: gl.constexpr = BLOCK_N // 2
    for half in gl.static_range(2):
        full = k_full.index(half)
        at = [batch, kv_head, first_column + half * COLUMNS, 0]
        mbarrier.expect(full, 2 * COLUMNS * D * 2)
        copy_in(K, at, full, ks.index(half))
        copy_in(V, at, full, vs.index(half))
    for n in range(steps * groups):
        head = kv_head * groups + n // steps
        first = lo + (steps - 1 - n % steps) * BLOCK_M
        slot = n % STAGES
        mbarrier.wait(free.index(slot), ((n // STAGES) & 1) ^ 1)
        mbarrier.expect(q_full.index(slot), BLOCK_M * (D * 2 + 4))
        copy_in(Q, [batch, head, first, 0], q_full.index(slot), qs.index(slot))
        copy_in(LSE, [batch * num_heads + head, first], q_full.index(slot), lses.index(slot))
        mbarrier.expect(d_full.index(slot), BLOCK_M * (D * 2 + 4))
        copy_in(D_OUT, [batch, head, first, 0], d_full.index(slot), d_outs.index(slot))
        copy_in(DELTA, [batch * num_heads + head, first], d_full.index(slot), deltas.index(slot))


@gluon.jit
@no_type_check
def _advance(
    s, dk, dv, start, end, n0, num, k, v, tiles, bars, lo, steps, seen_from, scale,
    D: gl.constexpr, BLOCK_M: gl.constexpr, COLUMNS: gl.constexpr, STAGES: gl.constexpr,
    MASKED: gl.constexpr, SCORES: gl.constexpr, WEIGHTS: gl.constexpr,
):  # fmt: skip
    """`s`: the scores of tile `start`, keys by queries."""
    qs, d_outs, _ks, _vs, lses, deltas = tiles
    _k_full, q_full, d_full, free = bars
    for i in range(start, end):
        n = n0 + i
        slot = n % STAGES
        after = (n + 1) % STAGES
        zero = gl.zeros([COLUMNS, BLOCK_M], gl.float32, layout=SCORES)
        q = tile_of(qs, slot, BLOCK_M, D)
        d_out = tile_of(d_outs, slot, BLOCK_M, D)
        lse = _facts(lses, slot, BLOCK_M, SCORES)
        mbarrier.wait(d_full.index(slot), (n // STAGES) & 1)
        gains = product(v, d_out.permute([1, 0]), zero, use_acc=False, is_async=True)
        p = gl.exp2(s * scale - lse[None, :])
        if MASKED:
            rows = gl.arange(0, BLOCK_M, layout=gl.SliceLayout(0, SCORES))
            rows = rows + (lo + (steps - 1 - i) * BLOCK_M)
            p = gl.where(rows[None, :] >= seen_from[:, None], p, 0.0)
        weights = gl.convert_layout(p.to(qs.dtype), WEIGHTS)
        dv_sums = product(weights, d_out, dv, is_async=True)
        # After the last tile, what lies in the next slot is multiplied in vain.
        mbarrier.wait(q_full.index(after), ((n + 1) // STAGES) & 1, pred=n + 1 < num)
        next_q = tile_of(qs, after, BLOCK_M, D).permute([1, 0])
        scores = product(k, next_q, zero, use_acc=False, is_async=True)
        delta = _facts(deltas, slot, BLOCK_M, SCORES)
        dp = wait_for_products(2, deps=[gains])
        ds = gl.convert_layout((p * (dp - delta[None, :])).to(qs.dtype), WEIGHTS)
        dk_sums = product(ds, q, dk, is_async=True)
        s, dv, dk, _, _ = wait_for_products(0, deps=[scores, dv_sums, dk_sums, weights, ds])
        mbarrier.arrive(free.index(slot), count=1)
    return s, dk, dv


@gluon.jit
@no_type_check
def _sum(
    D_K, D_V, tiles, bars, batch, kv_head, groups, first_column, lo, steps, clear, shift, scale,
    HALF: gl.constexpr, D: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr,
    STAGES: gl.constexpr, RIGHT: gl.constexpr,
):  # fmt: skip
    """One warp group: half of the keys."""
    COLUMNS: gl.constexpr = BLOCK_N // 2
    SCORES: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_M, 16])
    SUMS: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    WEIGHTS: gl.constexpr = gl.DotOperandLayout(0, SUMS, 2)
    qs, _d_outs, ks, vs, _lses, _deltas = tiles
    k_full, q_full, _d_full, _free = bars
    mine = first_column + HALF * COLUMNS
    seen_from = mine + gl.arange(0, COLUMNS, layout=gl.SliceLayout(1, SCORES)) - shift
    dk = gl.zeros([COLUMNS, D], gl.float32, layout=SUMS)
    dv = gl.zeros([COLUMNS, D], gl.float32, layout=SUMS)
    k = tile_of(ks, HALF, COLUMNS, D)
    v = tile_of(vs, HALF, COLUMNS, D)
    zero = gl.zeros([COLUMNS, BLOCK_M], gl.float32, layout=SCORES)
    num = steps * groups
    mbarrier.wait(k_full.index(HALF), 0)
    if num > 0:
        mbarrier.wait(q_full.index(0), 0)
        q = tile_of(qs, 0, BLOCK_M, D).permute([1, 0])
        s = wait_for_products(0, deps=[product(k, q, zero, use_acc=False, is_async=True)])
        n0 = 0
        for _member in range(groups):
            s, dk, dv = _advance(
                s, dk, dv, 0, clear, n0, num, k, v, tiles, bars, lo, steps, seen_from, scale, D,
                BLOCK_M, COLUMNS, STAGES, False, SCORES, WEIGHTS,
            )  # fmt: skip
            if RIGHT:
                s, dk, dv = _advance(
                    s, dk, dv, clear, steps, n0, num, k, v, tiles, bars, lo, steps, seen_from,
                    scale, D, BLOCK_M, COLUMNS, STAGES, True, SCORES, WEIGHTS,
                )  # fmt: skip
            n0 += steps
    k.store((dk * (scale * 0.6931471805599453)).to(qs.dtype))
    v.store(dv.to(qs.dtype))
    hopper.fence_async_shared()
    copy_out(D_K, [batch, kv_head, mine, 0], ks.index(HALF))
    copy_out(D_V, [batch, kv_head, mine, 0], vs.index(HALF))
    tma.store_wait(0)


@gluon.jit
@no_type_check
def _sum_first(
    D_K, D_V, tiles, bars, batch, kv_head, groups, first_column, lo, steps, clear, shift, scale,
    D: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, STAGES: gl.constexpr,
    RIGHT: gl.constexpr,
):  # fmt: skip
    _sum(
        D_K, D_V, tiles, bars, batch, kv_head, groups, first_column, lo, steps, clear, shift,
        scale, 0, D, BLOCK_M, BLOCK_N, STAGES, RIGHT,
    )  # fmt: skip


@gluon.jit
@no_type_check
def _sum_second(
    D_K, D_V, tiles, bars, batch, kv_head, groups, first_column, lo, steps, clear, shift, scale,
    D: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, STAGES: gl.constexpr,
    RIGHT: gl.constexpr,
):  # fmt: skip
    _sum(
        D_K, D_V, tiles, bars, batch, kv_head, groups, first_column, lo, steps, clear, shift,
        scale, 1, D, BLOCK_M, BLOCK_N, STAGES, RIGHT,
    )  # fmt: skip


@gluon.jit(do_not_specialize=["T", "shift", "num_heads", "groups"])
@no_type_check
def hopper_dkdv(
    Q, K, V, D_OUT, LSE, DELTA, D_K, D_V, T, shift, num_heads, groups, scale,
    D: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, STAGES: gl.constexpr,
    RIGHT: gl.constexpr,
):  # fmt: skip
    """A key is seen from the row of its number less `shift` on if RIGHT; `scale` is that of the
    scores times log2(e); LSE and DELTA are descriptors over rows of whole tiles."""
    num_kv_heads = num_heads // groups
    batch = gl.program_id(1) // num_kv_heads
    kv_head = gl.program_id(1) % num_kv_heads
    first_column = gl.program_id(0) * BLOCK_N  # under causality the first are seen most
    lo = 0
    steps = gl.cdiv(T, BLOCK_M)
    clear = steps
    if RIGHT:
        whole = steps * BLOCK_M
        lo = gl.minimum(gl.maximum(first_column - shift, 0) // BLOCK_M * BLOCK_M, whole)
        full = gl.cdiv(gl.maximum(first_column + BLOCK_N - 1 - shift, 0), BLOCK_M) * BLOCK_M
        steps = (whole - lo) // BLOCK_M
        clear = gl.maximum(whole - full, 0) // BLOCK_M
    COLUMNS: gl.constexpr = BLOCK_N // 2
    tiles = (
        gl.allocate_shared_memory(Q.dtype, [STAGES, 1, 1, BLOCK_M, D], Q.layout),
        gl.allocate_shared_memory(Q.dtype, [STAGES, 1, 1, BLOCK_M, D], Q.layout),
        gl.allocate_shared_memory(Q.dtype, [2, 1, 1, COLUMNS, D], K.layout),
        gl.allocate_shared_memory(Q.dtype, [2, 1, 1, COLUMNS, D], K.layout),
        gl.allocate_shared_memory(gl.float32, [STAGES, 1, BLOCK_M], LSE.layout),
        gl.allocate_shared_memory(gl.float32, [STAGES, 1, BLOCK_M], LSE.layout),
    )
    bars = barriers(2, 1), barriers(STAGES, 1), barriers(STAGES, 1), barriers(STAGES, 2)
    hopper.fence_async_shared()
    gl.warp_specialize(
        [
            (_sum_first, (
                D_K, D_V, tiles, bars, batch, kv_head, groups, first_column, lo, steps, clear,
                shift, scale, D, BLOCK_M, BLOCK_N, STAGES, RIGHT,
            )),
            (_sum_second, (
                D_K, D_V, tiles, bars, batch, kv_head, groups, first_column, lo, steps, clear,
                shift, scale, D, BLOCK_M, BLOCK_N, STAGES, RIGHT,
            )),
            (_copy, (
                Q, D_OUT, K, V, LSE, DELTA, tiles, bars, batch, kv_head, num_heads, groups,
                first_column, lo, steps, D, BLOCK_M, BLOCK_N, STAGES,
            )),
        ],
        [4, 4],
        [240, 24],
    )  # fmt: skip
