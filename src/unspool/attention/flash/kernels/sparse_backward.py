"""Gradients over listed tiles: one program a tile of queries, one a tile of keys, no atomics.

What: dQ by the forward's lists, dK and dV by the lists turned round; both recompute the weights
from the log-sum-exp.
Source: FlashAttention (Dao et al. 2022), algorithm 4, split in two as FlashAttention-2 does for
determinism.
Differs from the papers: lists in place of a block matrix; a gradient of the log-sum-exp comes in
with `delta`; the sum over query heads that share keys is in the program.
Cost: 14 * D operations a listed pair. Shapes: as `sparse_forward`; delta and lse [B, Hq, T].
"""

from typing import no_type_check

import triton
import triton.language as tl

from unspool.attention.flash.kernels.rules import (
    columns_of,
    facts,
    kept_weights,
    seen_pairs,
    tanh,
)


@triton.jit
@no_type_check
def row_facts(
    OUT, D_OUT, LSE, D_LSE, LSE2, DELTA, o_batch, o_head, o_row, do_batch, do_head, do_row,
    T, T_PADDED, num_heads,
    DV: tl.constexpr, BLOCK_DV: tl.constexpr, BLOCK_M: tl.constexpr, WITH_LSE: tl.constexpr,
):  # fmt: skip
    """What the gradient of a softmax needs of a row beside its weights: rowsum(dO * O) - dLSE, and
    the log-sum-exp in base 2, +inf where nothing was seen and in the rows that fill the last tile,
    so that their weights come out as 0."""
    across = tl.program_id(1)
    batch, head = (across // num_heads).to(tl.int64), (across % num_heads).to(tl.int64)
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    dv = tl.arange(0, BLOCK_DV)
    inside = (rows < T)[:, None] & (dv < DV)[None, :]
    wide = rows.to(tl.int64)[:, None]
    o_from = OUT + batch * o_batch + head * o_head + wide * o_row + dv[None, :]
    do_from = D_OUT + batch * do_batch + head * do_head + wide * do_row + dv[None, :]
    o = tl.load(o_from, mask=inside, other=0.0).to(tl.float32)
    do = tl.load(do_from, mask=inside, other=0.0).to(tl.float32)
    delta = tl.sum(o * do, 1)
    number = batch * num_heads + head
    lse = tl.load(LSE + number * T + rows, mask=rows < T, other=float("-inf"))
    blind = lse == float("-inf")
    if WITH_LSE:
        delta -= tl.load(D_LSE + number * T + rows, mask=rows < T, other=0.0).to(tl.float32)
    tl.store(DELTA + number * T_PADDED + rows, tl.where(blind, 0.0, delta))
    lse = tl.where(blind, float("inf"), lse * 1.4426950408889634)
    tl.store(LSE2 + number * T_PADDED + rows, lse)


@triton.jit(
    do_not_specialize=[
        "T_PADDED",
        "T",
        "S",
        "window",
        "right",
        "beyond",
        "sinks",
        "seed",
        "threshold",
    ]
)
@no_type_check
def sparse_dq(
    Q, K, V, D_OUT, LSE, DELTA, D_Q, D_K, D_V,
    Q_AT, K_AT, Q_DOCUMENT, K_DOCUMENT, Q_GLOBAL, K_GLOBAL, MASK_AT, LISTS, COUNTS,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    do_batch, do_head, do_row, dq_batch, dq_head, dq_row,
    at_q_batch, at_k_batch, document_q_batch, document_k_batch, global_q_batch, global_k_batch,
    mask_batch, mask_head, mask_row, mask_column,
    list_batch, list_head, list_row, count_batch, count_head,
    T_PADDED, T, S, num_heads, block_q, block_k, scale, softcap, inverse_kept,
    window, right, beyond, sinks, seed, threshold,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUPS: tl.constexpr, LIST_GROUPS: tl.constexpr,
    ROW_TILES: tl.constexpr, SUBTILES: tl.constexpr, MODE: tl.constexpr, SCATTER: tl.constexpr,
    CAUSAL: tl.constexpr, NEAR: tl.constexpr, BEYOND: tl.constexpr,
    AT_Q: tl.constexpr, AT_K: tl.constexpr, DOCUMENTS: tl.constexpr, GLOBAL_Q: tl.constexpr,
    GLOBAL_K: tl.constexpr, MASK: tl.constexpr, SOFTCAP: tl.constexpr, DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """dQ of a tile of queries; with SCATTER also dK [B, Hkv, S, D] and dV, by atomic sums."""
    tile = tl.program_id(0)
    across = tl.program_id(1)
    batch = (across // num_heads).to(tl.int64)
    head = across % num_heads
    kv_head = (head // GROUPS).to(tl.int64)
    block = tile // ROW_TILES
    rows = block * block_q + (tile % ROW_TILES) * BLOCK_M + tl.arange(0, BLOCK_M)
    live = rows < tl.minimum((block + 1) * block_q, T)
    d = tl.arange(0, BLOCK_D)
    dv = tl.arange(0, BLOCK_DV)
    wide = rows.to(tl.int64)[:, None]
    across_d = live[:, None] & (d < D)[None, :]
    across_dv = live[:, None] & (dv < DV)[None, :]
    q_from = Q + batch * q_batch + head.to(tl.int64) * q_head + wide * q_row + d[None, :]
    q = tl.load(q_from, mask=across_d, other=0.0)
    do_from = D_OUT + batch * do_batch + head.to(tl.int64) * do_head + wide * do_row + dv[None, :]
    do = tl.load(do_from, mask=across_dv, other=0.0)
    at = (batch * num_heads + head) * T_PADDED + rows
    lse = tl.load(LSE + at, mask=live, other=float("inf"))
    delta = tl.load(DELTA + at, mask=live, other=0.0)
    q_at = facts(Q_AT, batch * at_q_batch, rows, live, rows + (S - T), AT_Q)
    q_document = facts(Q_DOCUMENT, batch * document_q_batch, rows, live, rows * 0, DOCUMENTS)
    q_global = facts(Q_GLOBAL, batch * global_q_batch, rows, live, rows * 0, GLOBAL_Q)
    k_from = K + batch * k_batch + kv_head * k_head
    v_from = V + batch * v_batch + kv_head * v_head
    mask_from = MASK_AT + batch * mask_batch + head.to(tl.int64) * mask_head
    list_at = (head // LIST_GROUPS).to(tl.int64)
    listed = LISTS + batch * list_batch + list_at * list_head + block * list_row
    count = tl.load(COUNTS + batch * count_batch + list_at * count_head + block)
    total = count * SUBTILES if MODE == 1 else tl.cdiv(count * block_k, BLOCK_N)
    dq = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for n in range(0, total):
        columns, exists = columns_of(n, listed, count, S, block_k, MODE, SUBTILES, BLOCK_N)
        key = columns.to(tl.int64)[:, None]
        k = tl.load(
            k_from + key * k_row + d[None, :], mask=exists[:, None] & (d < D)[None, :], other=0.0
        )
        v = tl.load(
            v_from + key * v_row + dv[None, :],
            mask=exists[:, None] & (dv < DV)[None, :], other=0.0,
        )  # fmt: skip
        s = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        if SOFTCAP:
            bent = tanh(s / softcap)
            s = bent * softcap
        k_at = facts(K_AT, batch * at_k_batch, columns, exists, columns, AT_K)
        k_document = facts(
            K_DOCUMENT, batch * document_k_batch, columns, exists, columns * 0, DOCUMENTS
        )
        k_global = facts(K_GLOBAL, batch * global_k_batch, columns, exists, columns * 0, GLOBAL_K)
        seen = seen_pairs(
            rows[:, None], columns[None, :], q_at[:, None], k_at[None, :],
            q_document[:, None], k_document[None, :], q_global[:, None], k_global[None, :],
            mask_from, mask_row, mask_column, window, right, beyond, sinks, CAUSAL, NEAR, BEYOND,
            AT_Q, AT_K, DOCUMENTS, GLOBAL_Q or GLOBAL_K, MASK, live[:, None] & exists[None, :],
        )  # fmt: skip
        p = tl.where(seen, tl.exp2(s * 1.4426950408889634 - lse[:, None]), 0.0)
        dp = tl.dot(do, tl.trans(v), input_precision=PRECISION)
        shown = p
        if DROPOUT:
            number = batch * num_heads + head
            kept = kept_weights(seed, rows[:, None], columns[None, :], number, threshold, p)
            dp = tl.where(kept, dp * inverse_kept, 0.0)
            shown = tl.where(kept, p * inverse_kept, 0.0)
        ds = p * (dp - delta[:, None])
        if SOFTCAP:
            ds = ds * (1.0 - bent * bent)
        ds = ds.to(k.dtype)
        dq = tl.dot(ds, k, dq, input_precision=PRECISION)
        if SCATTER:
            cell = (batch * (num_heads // GROUPS) + kv_head) * S + key
            dk = tl.dot(tl.trans(ds), q, input_precision=PRECISION) * scale
            tl.atomic_add(
                D_K + cell * D + d[None, :], dk,
                mask=exists[:, None] & (d < D)[None, :], sem="relaxed",
            )  # fmt: skip
            gained = tl.dot(tl.trans(shown.to(do.dtype)), do, input_precision=PRECISION)
            tl.atomic_add(
                D_V + cell * DV + dv[None, :], gained,
                mask=exists[:, None] & (dv < DV)[None, :], sem="relaxed",
            )  # fmt: skip
    dq_from = D_Q + batch * dq_batch + head.to(tl.int64) * dq_head + wide * dq_row + d[None, :]
    tl.store(dq_from, (dq * scale).to(D_Q.dtype.element_ty), mask=across_d)


@triton.jit(
    do_not_specialize=[
        "T_PADDED",
        "T",
        "S",
        "window",
        "right",
        "beyond",
        "sinks",
        "seed",
        "threshold",
    ]
)
@no_type_check
def sparse_dkdv(
    Q, K, V, D_OUT, LSE, DELTA, D_K, D_V,
    Q_AT, K_AT, Q_DOCUMENT, K_DOCUMENT, Q_GLOBAL, K_GLOBAL, MASK_AT, LISTS, COUNTS,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    do_batch, do_head, do_row, dk_batch, dk_head, dk_row, dv_batch, dv_head, dv_row,
    at_q_batch, at_k_batch, document_q_batch, document_k_batch, global_q_batch, global_k_batch,
    mask_batch, mask_head, mask_row, mask_column,
    list_batch, list_head, list_row, count_batch, count_head,
    T_PADDED, T, S, num_heads, block_q, block_k, scale, softcap, inverse_kept,
    window, right, beyond, sinks, seed, threshold,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUPS: tl.constexpr, LIST_GROUPS: tl.constexpr,
    COLUMN_TILES: tl.constexpr, SUBTILES: tl.constexpr,
    CAUSAL: tl.constexpr, NEAR: tl.constexpr, BEYOND: tl.constexpr,
    AT_Q: tl.constexpr, AT_K: tl.constexpr, DOCUMENTS: tl.constexpr, GLOBAL_Q: tl.constexpr,
    GLOBAL_K: tl.constexpr, MASK: tl.constexpr, SOFTCAP: tl.constexpr, DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """dK and dV of a tile of keys, over the query blocks that list it, of all heads that share
    it. Scores are held keys by queries."""
    tile = tl.program_id(0)
    across = tl.program_id(1)
    num_kv_heads = num_heads // GROUPS
    batch = (across // num_kv_heads).to(tl.int64)
    kv_head = across % num_kv_heads
    block = tile // COLUMN_TILES
    columns = block * block_k + (tile % COLUMN_TILES) * BLOCK_N + tl.arange(0, BLOCK_N)
    exists = columns < tl.minimum((block + 1) * block_k, S)
    d = tl.arange(0, BLOCK_D)
    dv = tl.arange(0, BLOCK_DV)
    key = columns.to(tl.int64)[:, None]
    across_d = exists[:, None] & (d < D)[None, :]
    across_dv = exists[:, None] & (dv < DV)[None, :]
    k_from = K + batch * k_batch + kv_head.to(tl.int64) * k_head
    k = tl.load(k_from + key * k_row + d[None, :], mask=across_d, other=0.0)
    v_from = V + batch * v_batch + kv_head.to(tl.int64) * v_head
    v = tl.load(v_from + key * v_row + dv[None, :], mask=across_dv, other=0.0)
    k_at = facts(K_AT, batch * at_k_batch, columns, exists, columns, AT_K)
    k_document = facts(
        K_DOCUMENT, batch * document_k_batch, columns, exists, columns * 0, DOCUMENTS
    )
    k_global = facts(K_GLOBAL, batch * global_k_batch, columns, exists, columns * 0, GLOBAL_K)
    dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    gained = tl.zeros([BLOCK_N, BLOCK_DV], tl.float32)
    for member in range(0, GROUPS):
        head = kv_head * GROUPS + member
        list_at = (head // LIST_GROUPS).to(tl.int64)
        listed = LISTS + batch * list_batch + list_at * list_head + block * list_row
        count = tl.load(COUNTS + batch * count_batch + list_at * count_head + block)
        q_from = Q + batch * q_batch + head.to(tl.int64) * q_head
        do_from = D_OUT + batch * do_batch + head.to(tl.int64) * do_head
        mask_from = MASK_AT + batch * mask_batch + head.to(tl.int64) * mask_head
        first = (batch * num_heads + head) * T_PADDED
        for n in range(0, count * SUBTILES):
            rows, live = columns_of(n, listed, count, T, block_q, 1, SUBTILES, BLOCK_M)
            wide = rows.to(tl.int64)[:, None]
            q = tl.load(
                q_from + wide * q_row + d[None, :],
                mask=live[:, None] & (d < D)[None, :], other=0.0,
            )  # fmt: skip
            do = tl.load(
                do_from + wide * do_row + dv[None, :],
                mask=live[:, None] & (dv < DV)[None, :], other=0.0,
            )  # fmt: skip
            lse = tl.load(LSE + first + rows, mask=live, other=float("inf"))
            delta = tl.load(DELTA + first + rows, mask=live, other=0.0)
            s = tl.dot(k, tl.trans(q), input_precision=PRECISION) * scale
            if SOFTCAP:
                bent = tanh(s / softcap)
                s = bent * softcap
            q_at = facts(Q_AT, batch * at_q_batch, rows, live, rows + (S - T), AT_Q)
            q_document = facts(
                Q_DOCUMENT, batch * document_q_batch, rows, live, rows * 0, DOCUMENTS
            )
            q_global = facts(Q_GLOBAL, batch * global_q_batch, rows, live, rows * 0, GLOBAL_Q)
            seen = seen_pairs(
                rows[None, :], columns[:, None], q_at[None, :], k_at[:, None],
                q_document[None, :], k_document[:, None], q_global[None, :], k_global[:, None],
                mask_from, mask_row, mask_column, window, right, beyond, sinks, CAUSAL, NEAR,
                BEYOND, AT_Q, AT_K, DOCUMENTS, GLOBAL_Q or GLOBAL_K, MASK,
                live[None, :] & exists[:, None],
            )  # fmt: skip
            p = tl.where(seen, tl.exp2(s * 1.4426950408889634 - lse[None, :]), 0.0)
            dp = tl.dot(v, tl.trans(do), input_precision=PRECISION)
            shown = p
            if DROPOUT:
                number = batch * num_heads + head
                kept = kept_weights(seed, rows[None, :], columns[:, None], number, threshold, p)
                dp = tl.where(kept, dp * inverse_kept, 0.0)
                shown = tl.where(kept, p * inverse_kept, 0.0)
            gained = tl.dot(shown.to(do.dtype), do, gained, input_precision=PRECISION)
            ds = p * (dp - delta[None, :])
            if SOFTCAP:
                ds = ds * (1.0 - bent * bent)
            dk = tl.dot(ds.to(q.dtype), q, dk, input_precision=PRECISION)
    dk_from = D_K + batch * dk_batch + kv_head.to(tl.int64) * dk_head + key * dk_row
    tl.store(dk_from + d[None, :], (dk * scale).to(D_K.dtype.element_ty), mask=across_d)
    dv_from = D_V + batch * dv_batch + kv_head.to(tl.int64) * dv_head + key * dv_row
    tl.store(dv_from + dv[None, :], gained.to(D_V.dtype.element_ty), mask=across_dv)
