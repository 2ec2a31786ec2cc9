"""Gradients over a band, as `dense_forward`: one program a tile of queries, one a tile of keys.

What: dQ in a loop over keys; dK and dV in a loop over queries, of every head that shares the keys.
Source: FlashAttention (Dao et al. 2022), algorithm 4; two kernels without atomics.
Differs from the papers: seven products in place of five, for the same bits every time; a gradient
of the log-sum-exp comes in with `delta`.
Cost: 14 * D operations a pair. Shapes: as `dense_forward`; delta and lse [B, Hq, T].
"""

from typing import no_type_check

import triton
import triton.language as tl

from unspool.attention.flash.kernels.dense_forward import band_of, load_tile


@triton.jit
@no_type_check
def _advance_dq(
    dq, q, do, lse, delta, K, V, batch, kv_head, start, end, S, k_row, v_row, q_at, left, right,
    scale, d, dv, D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_DV: tl.constexpr, BLOCK_N: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
    MASKED: tl.constexpr, DESCRIBED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    for first in range(start, end, BLOCK_N):
        first = tl.multiple_of(first, BLOCK_N)
        k = load_tile(K, batch, kv_head, first, S, k_row, d, D, BLOCK_D, BLOCK_N, DESCRIBED)
        v = load_tile(V, batch, kv_head, first, S, v_row, dv, DV, BLOCK_DV, BLOCK_N, DESCRIBED)
        s = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        p = tl.exp2(s * scale - lse[:, None])
        if MASKED:
            columns = first + tl.arange(0, BLOCK_N)
            seen = (columns < S)[None, :]
            if RIGHT:
                seen = seen & (columns[None, :] <= (q_at + right)[:, None])
            if LEFT:
                seen = seen & (columns[None, :] >= (q_at - left)[:, None])
            p = tl.where(seen, p, 0.0)
        dp = tl.dot(do, tl.trans(v), input_precision=PRECISION)
        ds = p * (dp - delta[:, None])
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision=PRECISION)
    return dq


@triton.jit(do_not_specialize=["T_PADDED", "T", "S", "left", "right"])
@no_type_check
def dense_dq(
    Q, K, V, D_OUT, LSE, DELTA, D_Q,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    do_batch, do_head, do_row, dq_batch, dq_head, dq_row,
    T_PADDED, T, S, num_heads, left, right, scale,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUPS: tl.constexpr, LEFT: tl.constexpr,
    RIGHT: tl.constexpr, DESCRIBED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """`scale` is that of the scores times log2(e)."""
    across = tl.program_id(1)
    batch = across // num_heads
    head = across % num_heads
    kv_head = head // GROUPS
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
        D_OUT += batch.to(tl.int64) * do_batch + head.to(tl.int64) * do_head
    q = load_tile(Q, batch, head, first_row, T, q_row, d, D, BLOCK_D, BLOCK_M, DESCRIBED)
    do = load_tile(D_OUT, batch, head, first_row, T, do_row, dv, DV, BLOCK_DV, BLOCK_M, DESCRIBED)
    at = (batch.to(tl.int64) * num_heads + head) * T_PADDED + rows
    lse = tl.load(LSE + at)
    delta = tl.load(DELTA + at)
    lo, full_lo, full_hi, hi = band_of(
        first_row + (S - T), first_row + BLOCK_M - 1 + (S - T), S, left, right, BLOCK_N, LEFT, RIGHT
    )
    dq = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    if LEFT:
        dq = _advance_dq(
            dq, q, do, lse, delta, K, V, batch, kv_head, lo, full_lo, S, k_row, v_row, q_at, left,
            right, scale, d, dv, D, DV, BLOCK_D, BLOCK_DV, BLOCK_N, LEFT, RIGHT, True, DESCRIBED,
            PRECISION,
        )  # fmt: skip
    dq = _advance_dq(
        dq, q, do, lse, delta, K, V, batch, kv_head, full_lo, full_hi, S, k_row, v_row, q_at, left,
        right, scale, d, dv, D, DV, BLOCK_D, BLOCK_DV, BLOCK_N, LEFT, RIGHT, False, DESCRIBED,
        PRECISION,
    )  # fmt: skip
    dq = _advance_dq(
        dq, q, do, lse, delta, K, V, batch, kv_head, full_hi, hi, S, k_row, v_row, q_at, left,
        right, scale, d, dv, D, DV, BLOCK_D, BLOCK_DV, BLOCK_N, LEFT, RIGHT, True, DESCRIBED,
        PRECISION,
    )  # fmt: skip
    dq = dq * (scale * 0.6931471805599453)
    to = D_Q + batch.to(tl.int64) * dq_batch + head.to(tl.int64) * dq_head
    tl.store(
        to + rows.to(tl.int64)[:, None] * dq_row + d[None, :], dq.to(D_Q.dtype.element_ty),
        mask=(rows < T)[:, None] & (d < D)[None, :],
    )  # fmt: skip


@triton.jit
@no_type_check
def _advance_dkdv(
    dk, gained, k, v, Q, D_OUT, LSE, DELTA, batch, head, start, end, T, q_row, do_row, k_row_at,
    left, right, scale, d, dv, D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_DV: tl.constexpr, BLOCK_M: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
    MASKED: tl.constexpr, BACKWARDS: tl.constexpr, DESCRIBED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    for step in range(start, end, BLOCK_M):
        first = start + end - BLOCK_M - step if BACKWARDS else step
        first = tl.multiple_of(first, BLOCK_M)
        q = load_tile(Q, batch, head, first, T, q_row, d, D, BLOCK_D, BLOCK_M, DESCRIBED)
        rows = first + tl.arange(0, BLOCK_M)
        lse = tl.load(LSE + rows)
        s = tl.dot(k, tl.trans(q), input_precision=PRECISION)
        p = tl.exp2(s * scale - lse[None, :])
        if MASKED:
            seen = (rows >= 0)[None, :]  # rows past the last have an infinite log-sum-exp
            if RIGHT:  # the row at which a column has its own position, less `right`
                seen = seen & (rows[None, :] >= (k_row_at - right)[:, None])
            if LEFT:
                seen = seen & (rows[None, :] <= (k_row_at + left)[:, None])
            p = tl.where(seen, p, 0.0)
        do = load_tile(D_OUT, batch, head, first, T, do_row, dv, DV, BLOCK_DV, BLOCK_M, DESCRIBED)
        gained = tl.dot(p.to(do.dtype), do, gained, input_precision=PRECISION)
        delta = tl.load(DELTA + rows)
        dp = tl.dot(v, tl.trans(do), input_precision=PRECISION)
        ds = p * (dp - delta[None, :])
        dk = tl.dot(ds.to(q.dtype), q, dk, input_precision=PRECISION)
    return dk, gained


@triton.jit(do_not_specialize=["T_PADDED", "T", "S", "left", "right"])
@no_type_check
def dense_dkdv(
    Q, K, V, D_OUT, LSE, DELTA, D_K, D_V,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    do_batch, do_head, do_row, dk_batch, dk_head, dk_row, dv_batch, dv_head, dv_row,
    T_PADDED, T, S, num_heads, left, right, scale,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUPS: tl.constexpr, LEFT: tl.constexpr,
    RIGHT: tl.constexpr, BACKWARDS: tl.constexpr, DESCRIBED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """`scale` is that of the scores times log2(e)."""
    across = tl.program_id(1)
    num_kv_heads = num_heads // GROUPS
    batch = across // num_kv_heads
    kv_head = across % num_kv_heads
    first_column = tl.program_id(0) * BLOCK_N  # under causality the first are seen most
    columns = first_column + tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)
    dv = tl.arange(0, BLOCK_DV)
    if not DESCRIBED:
        K += batch.to(tl.int64) * k_batch + kv_head.to(tl.int64) * k_head
        V += batch.to(tl.int64) * v_batch + kv_head.to(tl.int64) * v_head
    k = load_tile(K, batch, kv_head, first_column, S, k_row, d, D, BLOCK_D, BLOCK_N, DESCRIBED)
    v = load_tile(V, batch, kv_head, first_column, S, v_row, dv, DV, BLOCK_DV, BLOCK_N, DESCRIBED)
    # Rows see columns up to `right` ahead, so columns are seen from `right` rows before their own
    # on, up to `left` after it: the same band with its sides exchanged, in rows.
    shift = T - S
    lo, full_lo, full_hi, hi = band_of(
        first_column + shift,
        first_column + BLOCK_N - 1 + shift,
        T,
        right,
        left,
        BLOCK_M,
        RIGHT,
        LEFT,
    )
    if not LEFT:  # rows past the last do no harm: nothing to mask at that end
        full_hi = tl.cdiv(T, BLOCK_M) * BLOCK_M
        full_lo = lo
        if RIGHT:
            past = tl.maximum(first_column + BLOCK_N - 1 + shift - right, 0)
            full_lo = tl.minimum(tl.cdiv(past, BLOCK_M) * BLOCK_M, full_hi)
            full_lo = tl.maximum(full_lo, lo)
    dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    gained = tl.zeros([BLOCK_N, BLOCK_DV], tl.float32)
    for member in range(0, GROUPS):
        head = kv_head * GROUPS + member
        to_row = (batch.to(tl.int64) * num_heads + head) * T_PADDED
        if DESCRIBED:
            from_q = Q
            from_do = D_OUT
        else:
            from_q = Q + batch.to(tl.int64) * q_batch + head.to(tl.int64) * q_head
            from_do = D_OUT + batch.to(tl.int64) * do_batch + head.to(tl.int64) * do_head
        # Backwards, all programs of a head read the same rows at about one time.
        dk, gained = _advance_dkdv(
            dk, gained, k, v, from_q, from_do, LSE + to_row, DELTA + to_row, batch, head, full_lo,
            full_hi, T, q_row, do_row, columns + shift, left, right, scale, d, dv, D, DV,
            BLOCK_D, BLOCK_DV, BLOCK_M, LEFT, RIGHT, False, BACKWARDS, DESCRIBED, PRECISION,
        )  # fmt: skip
        if RIGHT:
            dk, gained = _advance_dkdv(
                dk, gained, k, v, from_q, from_do, LSE + to_row, DELTA + to_row, batch, head, lo,
                full_lo, T, q_row, do_row, columns + shift, left, right, scale, d, dv, D, DV,
                BLOCK_D, BLOCK_DV, BLOCK_M, LEFT, RIGHT, True, False, DESCRIBED, PRECISION,
            )  # fmt: skip
        if LEFT:
            dk, gained = _advance_dkdv(
                dk, gained, k, v, from_q, from_do, LSE + to_row, DELTA + to_row, batch, head,
                full_hi, hi, T, q_row, do_row, columns + shift, left, right, scale, d, dv, D, DV,
                BLOCK_D, BLOCK_DV, BLOCK_M, LEFT, RIGHT, True, False, DESCRIBED, PRECISION,
            )  # fmt: skip
    dk = dk * (scale * 0.6931471805599453)
    to_k = D_K + batch.to(tl.int64) * dk_batch + kv_head.to(tl.int64) * dk_head
    to_v = D_V + batch.to(tl.int64) * dv_batch + kv_head.to(tl.int64) * dv_head
    wide = columns.to(tl.int64)[:, None]
    tl.store(
        to_k + wide * dk_row + d[None, :], dk.to(D_K.dtype.element_ty),
        mask=(columns < S)[:, None] & (d < D)[None, :],
    )  # fmt: skip
    tl.store(
        to_v + wide * dv_row + dv[None, :], gained.to(D_V.dtype.element_ty),
        mask=(columns < S)[:, None] & (dv < DV)[None, :],
    )  # fmt: skip
