"""Forward over a band: everything, causal, or a two-sided window, aligned bottom-right.

What: the online softmax with the tiles that all rows see in one loop and the ragged ones in
others, keys and values arriving by tensor descriptors where the layout allows.
Source: FlashAttention-2 (Dao 2023), section 3.1; descriptors as FlashAttention-3 (Shah et al.
2024), section 3, without its warp roles.
Differs from the papers: any S >= 1 beside T; rows that see nothing give 0 and -inf.
Cost: 4 * D operations a pair. Shapes: q [B, Hq, T, D], k and v [B, Hkv, S, D].
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def load_tile(
    SOURCE, batch, head, first, limit, row_stride, d,
    D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr, DESCRIBED: tl.constexpr,
):  # fmt: skip
    """Rows first … of one head, 0 past `limit`."""
    if DESCRIBED:
        tile = SOURCE.load([batch, head, first, 0]).reshape(ROWS, BLOCK_D)
    else:
        rows = first + tl.arange(0, ROWS)
        inside = (rows < limit)[:, None]
        if D != BLOCK_D:
            inside = inside & (d < D)[None, :]
        at = SOURCE + rows.to(tl.int64)[:, None] * row_stride + d[None, :]
        tile = tl.load(at, mask=inside, other=0.0)
    return tile


@triton.jit
@no_type_check
def band_of(
    at_first, at_last, num, left, right,
    BLOCK: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
):  # fmt: skip
    """Bounds [lo, full_lo, full_hi, hi) of what positions at_first … at_last see of 0 … num - 1:
    between the middle two every one sees all, outside the outer two nobody sees any."""
    hi = num
    full_hi = (num // BLOCK) * BLOCK
    if RIGHT:
        hi = tl.minimum(num, at_last + right + 1)
        full_hi = tl.minimum(full_hi, (tl.maximum(at_first + right + 1, 0) // BLOCK) * BLOCK)
    lo = 0
    full_lo = 0
    if LEFT:
        lo = (tl.maximum(at_first - left, 0) // BLOCK) * BLOCK
        full_lo = tl.cdiv(tl.maximum(at_last - left, 0), BLOCK) * BLOCK
    hi = tl.maximum(hi, lo)
    full_hi = tl.maximum(full_hi, lo)
    if LEFT:
        ragged = full_lo > full_hi  # nobody in common: one masked loop over all
        full_lo = tl.where(ragged, lo, full_lo)
        full_hi = tl.where(ragged, lo, full_hi)
    return lo, full_lo, full_hi, hi


@triton.jit
@no_type_check
def _online(acc, l, m, s, scale, MASKED: tl.constexpr):
    """The weights of a tile of scores, and what was summed before at the new maximum."""
    higher = tl.maximum(m, tl.max(s, 1) * scale)
    anchor = tl.where(higher == float("-inf"), 0.0, higher) if MASKED else higher
    p = tl.exp2(s * scale - anchor[:, None])
    shrink = tl.exp2(m - anchor)
    return acc * shrink[:, None], l * shrink + tl.sum(p, 1), higher, p


@triton.jit
@no_type_check
def _advance(
    acc, l, m, q, K, V, batch, kv_head, start, end, S, k_row, v_row, q_at, left, right, scale, d,
    dv, D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_N: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, MASKED: tl.constexpr,
    DESCRIBED: tl.constexpr, AHEAD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    if AHEAD and not MASKED:  # the next scores are under way while these become weights
        if start < end:
            k = load_tile(K, batch, kv_head, start, S, k_row, d, D, BLOCK_D, BLOCK_N, DESCRIBED)
            s = tl.dot(q, tl.trans(k), input_precision=PRECISION)
            for first in range(start, end - BLOCK_N, BLOCK_N):
                first = tl.multiple_of(first, BLOCK_N)
                k = load_tile(
                    K, batch, kv_head, first + BLOCK_N, S, k_row, d, D, BLOCK_D, BLOCK_N, DESCRIBED
                )
                ahead = tl.dot(q, tl.trans(k), input_precision=PRECISION)
                acc, l, m, p = _online(acc, l, m, s, scale, MASKED)
                v = load_tile(
                    V, batch, kv_head, first, S, v_row, dv, DV, BLOCK_DV, BLOCK_N, DESCRIBED
                )
                acc = tl.dot(p.to(v.dtype), v, acc, input_precision=PRECISION)
                s = ahead
            acc, l, m, p = _online(acc, l, m, s, scale, MASKED)
            v = load_tile(
                V, batch, kv_head, end - BLOCK_N, S, v_row, dv, DV, BLOCK_DV, BLOCK_N, DESCRIBED
            )
            acc = tl.dot(p.to(v.dtype), v, acc, input_precision=PRECISION)
        return acc, l, m
    for first in range(start, end, BLOCK_N):
        first = tl.multiple_of(first, BLOCK_N)
        k = load_tile(K, batch, kv_head, first, S, k_row, d, D, BLOCK_D, BLOCK_N, DESCRIBED)
        s = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        if MASKED:
            columns = first + tl.arange(0, BLOCK_N)
            seen = (columns < S)[None, :]
            if RIGHT:
                seen = seen & (columns[None, :] <= (q_at + right)[:, None])
            if LEFT:
                seen = seen & (columns[None, :] >= (q_at - left)[:, None])
            s = tl.where(seen, s, float("-inf"))
        acc, l, m, p = _online(acc, l, m, s, scale, MASKED)
        v = load_tile(V, batch, kv_head, first, S, v_row, dv, DV, BLOCK_DV, BLOCK_N, DESCRIBED)
        acc = tl.dot(p.to(v.dtype), v, acc, input_precision=PRECISION)
    return acc, l, m


@triton.jit(do_not_specialize=["T", "S", "left", "right"])
@no_type_check
def dense_forward(
    Q, K, V, OUT, LSE,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    o_batch, o_head, o_row, T, S, num_heads, left, right, scale,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUPS: tl.constexpr, LEFT: tl.constexpr,
    RIGHT: tl.constexpr, DESCRIBED: tl.constexpr, AHEAD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """`scale` is that of the scores times log2(e), and positive."""
    across = tl.program_id(1)
    batch = across // num_heads
    head = across % num_heads
    kv_head = head // GROUPS
    # The last rows see most under causality: started first, they do not trail behind.
    tile = tl.num_programs(0) - 1 - tl.program_id(0) if RIGHT else tl.program_id(0)
    first_row = tile * BLOCK_M
    rows = first_row + tl.arange(0, BLOCK_M)
    q_at = rows + (S - T)
    d = tl.arange(0, BLOCK_D)
    dv = tl.arange(0, BLOCK_DV)
    if not DESCRIBED:
        Q += batch.to(tl.int64) * q_batch + head.to(tl.int64) * q_head
        K += batch.to(tl.int64) * k_batch + kv_head.to(tl.int64) * k_head
        V += batch.to(tl.int64) * v_batch + kv_head.to(tl.int64) * v_head
    q = load_tile(Q, batch, head, first_row, T, q_row, d, D, BLOCK_D, BLOCK_M, DESCRIBED)
    lo, full_lo, full_hi, hi = band_of(
        first_row + (S - T), first_row + BLOCK_M - 1 + (S - T), S, left, right, BLOCK_N, LEFT, RIGHT
    )
    m = tl.full([BLOCK_M], float("-inf"), tl.float32)
    l = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    if LEFT:
        acc, l, m = _advance(
            acc, l, m, q, K, V, batch, kv_head, lo, full_lo, S, k_row, v_row, q_at, left, right,
            scale, d, dv, D, DV, BLOCK_D, BLOCK_DV, BLOCK_N, LEFT, RIGHT, True, DESCRIBED,
            AHEAD, PRECISION,
        )  # fmt: skip
        # A row that has seen nothing yet leaves the masked loop with m = -inf; what follows is
        # visible to all rows, so its maximum is finite.
    acc, l, m = _advance(
        acc, l, m, q, K, V, batch, kv_head, full_lo, full_hi, S, k_row, v_row, q_at, left, right,
        scale, d, dv, D, DV, BLOCK_D, BLOCK_DV, BLOCK_N, LEFT, RIGHT, False, DESCRIBED, AHEAD,
        PRECISION,
    )  # fmt: skip
    acc, l, m = _advance(
        acc, l, m, q, K, V, batch, kv_head, full_hi, hi, S, k_row, v_row, q_at, left, right,
        scale, d, dv, D, DV, BLOCK_D, BLOCK_DV, BLOCK_N, LEFT, RIGHT, True, DESCRIBED, AHEAD,
        PRECISION,
    )  # fmt: skip
    blind = l == 0.0
    acc = acc / tl.where(blind, 1.0, l)[:, None]
    lse = tl.where(
        blind, float("-inf"), (m + tl.log2(tl.where(blind, 1.0, l))) * 0.6931471805599453
    )
    out = OUT + batch.to(tl.int64) * o_batch + head.to(tl.int64) * o_head
    inside = (rows < T)[:, None]
    if DV != BLOCK_DV:
        inside = inside & (dv < DV)[None, :]
    tl.store(
        out + rows.to(tl.int64)[:, None] * o_row + dv[None, :], acc.to(OUT.dtype.element_ty),
        mask=inside,
    )  # fmt: skip
    lse_at = (batch.to(tl.int64) * num_heads + head) * T + rows
    tl.store(LSE + lse_at, lse, mask=rows < T)
