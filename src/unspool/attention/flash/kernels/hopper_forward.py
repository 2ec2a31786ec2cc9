"""Forward over everything or causal, on Hopper: one warp group copies, two multiply in turn.

What: a program takes tiles of queries one after the other; while the scores of a tile are made,
the products of the last weights run, and one warp group's softmax is the other's products.
Source: FlashAttention-3 (Shah et al. 2024), sections 3.1 (roles, turns) and 3.2 (two stages).
Differs from the paper: masked tiles come first, light and heavy rows of a causal head in pairs;
rows that see nothing give 0 and -inf.
Cost: 4 * D operations a pair. Shapes: q [B, Hq, T, D], k and v [B, Hkv, S, D], in 2-byte numbers.
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
    together,
    visible,
    wait_for_products,
)


@gluon.jit
@no_type_check
def _piece(j, per_head, tiles, RIGHT: gl.constexpr):
    """Batch-and-head and tile of the j-th piece of work of this program. Under causality a long
    and a short one make a pair, so that all programs end together."""
    if RIGHT:
        unit = gl.program_id(0) + (j // 2) * gl.num_programs(0)
        pair = unit % per_head
        tile = gl.where(j % 2 == 0, tiles - 1 - pair, pair)
    else:
        unit = gl.program_id(0) + j * gl.num_programs(0)
        tile = unit % per_head
    return unit // per_head, tile


@gluon.jit
@no_type_check
def _copy(
    Q, K, V, qs, ks, vs, bars, T, S, shift, num_heads, groups, pieces, per_head, tiles,
    D: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, STAGES: gl.constexpr,
    RIGHT: gl.constexpr,
):  # fmt: skip
    """Queries of both warp groups, then keys and values from the last tile to the first."""
    q_full, q_free, k_full, k_free, v_full, v_free, _turns = bars
    ROWS: gl.constexpr = BLOCK_M // 2
    n = 0
    for j in range(pieces):
        across, tile = _piece(j, per_head, tiles, RIGHT)
        batch = across // num_heads
        head = across % num_heads
        first_row, total, _clear = bounds(tile, T, S, shift, BLOCK_M, BLOCK_N, RIGHT)
        for half in gl.static_range(2):
            full = q_full.index(half)
            mbarrier.wait(q_free.index(half), (j & 1) ^ 1)
            mbarrier.expect(full, ROWS * D * 2)
            copy_in(Q, [batch, head, first_row + half * ROWS, 0], full, qs.index(half))
        for i in range(total):
            at = [batch, head // groups, (total - 1 - i) * BLOCK_N, 0]
            slot = n % STAGES
            parity = ((n // STAGES) & 1) ^ 1
            mbarrier.wait(k_free.index(slot), parity)
            mbarrier.expect(k_full.index(slot), BLOCK_N * D * 2)
            copy_in(K, at, k_full.index(slot), ks.index(slot))
            mbarrier.wait(v_free.index(slot), parity)
            mbarrier.expect(v_full.index(slot), BLOCK_N * D * 2)
            copy_in(V, at, v_full.index(slot), vs.index(slot))
            n += 1


@gluon.jit
@no_type_check
def _softmax(s, m, scale, MASKED: gl.constexpr):
    """Weights of a tile of scores, the new maximum, and what sums before shrink by."""
    higher = gl.maximum(m, gl.max(s, 1) * scale)
    anchor = gl.where(higher == float("-inf"), 0.0, higher) if MASKED else higher
    return gl.exp2(s * scale - anchor[:, None]), higher, gl.exp2(m - anchor)


@gluon.jit
@no_type_check
def _my_turn(turns, n, HALF: gl.constexpr, TURNS: gl.constexpr):
    """Wait until the other warp group has issued its products: the first half begins."""
    if TURNS:
        mbarrier.wait(turns.index(HALF), (n & 1) ^ (1 - HALF))


@gluon.jit
@no_type_check
def _advance(
    acc, l, m, p, start, end, n0, q, ks, vs, bars, total, sees_to, S, scale, HALF: gl.constexpr,
    ROWS: gl.constexpr, D: gl.constexpr, BLOCK_N: gl.constexpr, STAGES: gl.constexpr,
    MASKED: gl.constexpr, RIGHT: gl.constexpr, TURNS: gl.constexpr, SCORES: gl.constexpr,
    SUMS: gl.constexpr, WEIGHTS: gl.constexpr,
):  # fmt: skip
    _q_full, _q_free, k_full, k_free, v_full, v_free, turns = bars
    for i in range(start, end):
        n = n0 + i
        slot = n % STAGES
        before = (n - 1) % STAGES
        parity = (n // STAGES) & 1
        mbarrier.wait(k_full.index(slot), parity)
        _my_turn(turns, n, HALF, TURNS)
        zero = gl.zeros([ROWS, BLOCK_N], gl.float32, layout=SCORES)
        k = tile_of(ks, slot, BLOCK_N, D).permute([1, 0])
        scores = product(q, k, zero, use_acc=False, is_async=True)
        sums = product(p, tile_of(vs, before, BLOCK_N, D), acc, is_async=True)
        if TURNS:
            mbarrier.arrive(turns.index(1 - HALF), count=1)
        s = wait_for_products(1, deps=[scores])
        mbarrier.arrive(k_free.index(slot), count=1)
        if MASKED:
            first = (total - 1 - i) * BLOCK_N
            s = gl.where(visible(first, sees_to, S, BLOCK_N, RIGHT, SCORES), s, float("-inf"))
        weights, m, shrink = _softmax(s, m, scale, MASKED)
        l = l * shrink + gl.sum(weights, 1)
        # Needed in the next step only. Waited for here, its loop keeps the assembler from taking
        # the end of the products forward, in front of the softmax that shall run beside them.
        mbarrier.wait(v_full.index(slot), parity)
        acc, p = wait_for_products(0, deps=[sums, p])
        mbarrier.arrive(v_free.index(before), count=1)
        p = gl.convert_layout(weights.to(vs.dtype), WEIGHTS)
        acc = acc * gl.convert_layout(shrink, gl.SliceLayout(1, SUMS))[:, None]
    return acc, l, m, p


@gluon.jit
@no_type_check
def _attend(
    OUT, LSE, qs, ks, vs, outs, bars, T, S, shift, num_heads, scale, pieces, per_head, tiles,
    HALF: gl.constexpr, D: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr,
    STAGES: gl.constexpr, RIGHT: gl.constexpr, TURNS: gl.constexpr,
):  # fmt: skip
    """One warp group: half of the rows of every tile."""
    ROWS: gl.constexpr = BLOCK_M // 2
    SCORES: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_N, 16])
    SUMS: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    WEIGHTS: gl.constexpr = gl.DotOperandLayout(0, SUMS, 2)
    q_full, q_free, k_full, k_free, v_full, v_free, turns = bars
    q = tile_of(qs, HALF, ROWS, D)
    n0 = 0
    for j in range(pieces):
        across, tile = _piece(j, per_head, tiles, RIGHT)
        first_row, total, clear = bounds(tile, T, S, shift, BLOCK_M, BLOCK_N, RIGHT)
        mine = first_row + HALF * ROWS
        sees_to = mine + gl.arange(0, ROWS, layout=gl.SliceLayout(1, SCORES)) + shift
        slot = n0 % STAGES
        parity = (n0 // STAGES) & 1
        mbarrier.wait(q_full.index(HALF), j & 1)
        mbarrier.wait(k_full.index(slot), parity)
        _my_turn(turns, n0, HALF, TURNS)
        zero = gl.zeros([ROWS, BLOCK_N], gl.float32, layout=SCORES)
        k = tile_of(ks, slot, BLOCK_N, D).permute([1, 0])
        scores = product(q, k, zero, use_acc=False, is_async=True)
        if TURNS:
            mbarrier.arrive(turns.index(1 - HALF), count=1)
        s = wait_for_products(0, deps=[scores])
        mbarrier.arrive(k_free.index(slot), count=1)
        first = (total - 1) * BLOCK_N
        s = gl.where(visible(first, sees_to, S, BLOCK_N, RIGHT, SCORES), s, float("-inf"))
        m = gl.full([ROWS], float("-inf"), gl.float32, layout=gl.SliceLayout(1, SCORES))
        weights, m, _shrink = _softmax(s, m, scale, True)
        l = gl.sum(weights, 1)
        p = gl.convert_layout(weights.to(vs.dtype), WEIGHTS)
        acc = gl.zeros([ROWS, D], gl.float32, layout=SUMS)
        mbarrier.wait(v_full.index(slot), parity)
        ragged = gl.maximum(total - clear, 1)
        if RIGHT:
            acc, l, m, p = _advance(
                acc, l, m, p, 1, ragged, n0, q, ks, vs, bars, total, sees_to, S, scale, HALF, ROWS,
                D, BLOCK_N, STAGES, True, RIGHT, TURNS, SCORES, SUMS, WEIGHTS,
            )  # fmt: skip
        acc, l, m, p = _advance(
            acc, l, m, p, ragged, total, n0, q, ks, vs, bars, total, sees_to, S, scale, HALF, ROWS,
            D, BLOCK_N, STAGES, False, RIGHT, TURNS, SCORES, SUMS, WEIGHTS,
        )  # fmt: skip
        mbarrier.arrive(q_free.index(HALF), count=1)
        n0 += total
        last = (n0 - 1) % STAGES
        sums = product(p, tile_of(vs, last, BLOCK_N, D), acc, is_async=True)
        l = gl.convert_layout(l, gl.SliceLayout(1, SUMS))
        m = gl.convert_layout(m, gl.SliceLayout(1, SUMS))
        blind = l == 0.0
        l = gl.where(blind, 1.0, l)
        acc = wait_for_products(0, deps=[sums])
        mbarrier.arrive(v_free.index(last), count=1)
        tma.store_wait(0)  # the rows before have left
        together()
        tile_of(outs, HALF, ROWS, D).store((acc * (1.0 / l)[:, None]).to(qs.dtype))
        hopper.fence_async_shared()
        copy_out(OUT, [across // num_heads, across % num_heads, mine, 0], outs.index(HALF))
        rows = mine + gl.arange(0, ROWS, layout=gl.SliceLayout(1, SUMS))
        lse = gl.where(blind, float("-inf"), (m + gl.log2(l)) * 0.6931471805599453)
        gl.store(LSE + across.to(gl.int64) * T + rows, lse, mask=rows < T)
    tma.store_wait(0)


@gluon.jit
@no_type_check
def _attend_first(
    OUT, LSE, qs, ks, vs, outs, bars, T, S, shift, num_heads, scale, pieces, per_head, tiles,
    D: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, STAGES: gl.constexpr,
    RIGHT: gl.constexpr, TURNS: gl.constexpr,
):  # fmt: skip
    _attend(
        OUT, LSE, qs, ks, vs, outs, bars, T, S, shift, num_heads, scale, pieces, per_head, tiles,
        0, D, BLOCK_M, BLOCK_N, STAGES, RIGHT, TURNS,
    )  # fmt: skip


@gluon.jit
@no_type_check
def _attend_second(
    OUT, LSE, qs, ks, vs, outs, bars, T, S, shift, num_heads, scale, pieces, per_head, tiles,
    D: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, STAGES: gl.constexpr,
    RIGHT: gl.constexpr, TURNS: gl.constexpr,
):  # fmt: skip
    _attend(
        OUT, LSE, qs, ks, vs, outs, bars, T, S, shift, num_heads, scale, pieces, per_head, tiles,
        1, D, BLOCK_M, BLOCK_N, STAGES, RIGHT, TURNS,
    )  # fmt: skip


@gluon.jit(do_not_specialize=["T", "S", "shift", "num_heads", "groups", "across", "tiles"])
@no_type_check
def hopper_forward(
    Q, K, V, OUT, LSE, T, S, shift, num_heads, groups, across, tiles, scale,
    D: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, STAGES: gl.constexpr,
    RIGHT: gl.constexpr, TURNS: gl.constexpr,
):  # fmt: skip
    """A row sees keys up to its number plus `shift` if RIGHT; `across`: batch times heads;
    `scale` is that of the scores times log2(e), and positive."""
    ROWS: gl.constexpr = BLOCK_M // 2
    per_head = (tiles + 1) // 2 if RIGHT else tiles
    pieces = gl.cdiv(per_head * across - gl.program_id(0), gl.num_programs(0))
    if RIGHT:
        pieces = pieces * 2
    qs = gl.allocate_shared_memory(Q.dtype, [2, 1, 1, ROWS, D], Q.layout)
    ks = gl.allocate_shared_memory(Q.dtype, [STAGES, 1, 1, BLOCK_N, D], K.layout)
    vs = gl.allocate_shared_memory(Q.dtype, [STAGES, 1, 1, BLOCK_N, D], V.layout)
    outs = gl.allocate_shared_memory(Q.dtype, [2, 1, 1, ROWS, D], OUT.layout)
    bars = (
        barriers(2, 1), barriers(2, 1), barriers(STAGES, 1), barriers(STAGES, 2),
        barriers(STAGES, 1), barriers(STAGES, 2), barriers(2, 1),
    )  # fmt: skip
    hopper.fence_async_shared()
    gl.warp_specialize(
        [
            (_attend_first, (
                OUT, LSE, qs, ks, vs, outs, bars, T, S, shift, num_heads, scale, pieces, per_head,
                tiles, D, BLOCK_M, BLOCK_N, STAGES, RIGHT, TURNS,
            )),
            (_attend_second, (
                OUT, LSE, qs, ks, vs, outs, bars, T, S, shift, num_heads, scale, pieces, per_head,
                tiles, D, BLOCK_M, BLOCK_N, STAGES, RIGHT, TURNS,
            )),
            (_copy, (
                Q, K, V, qs, ks, vs, bars, T, S, shift, num_heads, groups, pieces, per_head, tiles,
                D, BLOCK_M, BLOCK_N, STAGES, RIGHT,
            )),
        ],
        [4, 4],
        [240, 24],
    )  # fmt: skip
