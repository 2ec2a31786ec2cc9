"""Forward over listed tiles, gathered keys or all keys, under any rule; split over keys to decode.

What: the online softmax over the key tiles that a list names for a tile of queries.
Source: FlashAttention (Dao et al. 2022), algorithms 2 and 5, in the order of FlashAttention-2
(queries outside); split keys and merge as in Flash-Decoding.
Differs from the papers: lists and gathered columns in place of a block matrix; rows that see
nothing give 0 and -inf; query heads that share keys may be rows of one tile.
Cost: 4 * D operations a listed pair. Shapes: q [B, Hq, T, D], k and v [B, Hkv, S, D]; partial
outputs [splits, B, Hq, T, Dv].
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


@triton.jit(do_not_specialize=["T", "S", "window", "right", "beyond", "sinks", "seed", "threshold"])
@no_type_check
def sparse_forward(
    Q, K, V, OUT, LSE,
    Q_AT, K_AT, Q_DOCUMENT, K_DOCUMENT, Q_GLOBAL, K_GLOBAL, MASK_AT, LISTS, COUNTS,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    o_split, o_batch, o_head, o_row,
    at_q_batch, at_k_batch, document_q_batch, document_k_batch, global_q_batch, global_k_batch,
    mask_batch, mask_head, mask_row, mask_column,
    list_batch, list_head, list_row, count_batch, count_head,
    T, S, num_heads, block_q, block_k, scale, softcap, inverse_kept,
    window, right, beyond, sinks, seed, threshold,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUPS: tl.constexpr, LIST_GROUPS: tl.constexpr,
    ROW_TILES: tl.constexpr, SUBTILES: tl.constexpr, SPLITS: tl.constexpr, MODE: tl.constexpr,
    FOLD: tl.constexpr, CAUSAL: tl.constexpr, NEAR: tl.constexpr, BEYOND: tl.constexpr,
    AT_Q: tl.constexpr, AT_K: tl.constexpr, DOCUMENTS: tl.constexpr, GLOBAL_Q: tl.constexpr,
    GLOBAL_K: tl.constexpr, MASK: tl.constexpr, SOFTCAP: tl.constexpr, DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    across = tl.program_id(1)
    split = tl.program_id(2)
    if FOLD:  # one program a key-value head: its query heads are rows
        per_batch = num_heads // GROUPS
        batch = (across // per_batch).to(tl.int64)
        first_head = (across % per_batch) * GROUPS
        rows_end = GROUPS * T
        block = 0
        first = tile * BLOCK_M
    else:
        batch = (across // num_heads).to(tl.int64)
        first_head = across % num_heads
        block = tile // ROW_TILES
        first = block * block_q + (tile % ROW_TILES) * BLOCK_M
        rows_end = tl.minimum((block + 1) * block_q, T)
    kv_head = (first_head // GROUPS).to(tl.int64)
    flat = first + tl.arange(0, BLOCK_M)
    live = flat < rows_end
    rows = flat % T if FOLD else flat
    heads = first_head + (flat // T if FOLD else flat * 0)
    d = tl.arange(0, BLOCK_D)
    dv = tl.arange(0, BLOCK_DV)
    q_from = Q + batch * q_batch + heads.to(tl.int64) * q_head + rows.to(tl.int64) * q_row
    q = tl.load(q_from[:, None] + d[None, :], mask=live[:, None] & (d < D)[None, :], other=0.0)
    q_at = facts(Q_AT, batch * at_q_batch, rows, live, rows + (S - T), AT_Q)
    q_document = facts(Q_DOCUMENT, batch * document_q_batch, rows, live, rows * 0, DOCUMENTS)
    q_global = facts(Q_GLOBAL, batch * global_q_batch, rows, live, rows * 0, GLOBAL_Q)
    k_from = K + batch * k_batch + kv_head * k_head
    v_from = V + batch * v_batch + kv_head * v_head
    mask_from = MASK_AT + batch * mask_batch + first_head.to(tl.int64) * mask_head
    if MODE == 0:
        listed = LISTS
        count = 0
        total = tl.cdiv(S, BLOCK_N)
    else:
        list_at = (first_head // LIST_GROUPS).to(tl.int64)
        listed = LISTS + batch * list_batch + list_at * list_head + block * list_row
        count = tl.load(COUNTS + batch * count_batch + list_at * count_head + block)
        total = count * SUBTILES if MODE == 1 else tl.cdiv(count * block_k, BLOCK_N)
    chunk = tl.cdiv(total, SPLITS)
    start = split * chunk
    end = tl.minimum(start + chunk, total)
    m = tl.full([BLOCK_M], float("-inf"), tl.float32)
    l = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    for n in range(start, end):
        columns, exists = columns_of(n, listed, count, S, block_k, MODE, SUBTILES, BLOCK_N)
        wide = columns.to(tl.int64)
        k = tl.load(
            k_from + wide[None, :] * k_row + d[:, None],
            mask=exists[None, :] & (d < D)[:, None], other=0.0,
        )  # fmt: skip
        s = tl.dot(q, k, input_precision=PRECISION) * scale
        if SOFTCAP:
            s = tanh(s / softcap) * softcap
        s = s * 1.4426950408889634
        k_at = facts(K_AT, batch * at_k_batch, columns, exists, columns, AT_K)
        k_document = facts(
            K_DOCUMENT, batch * document_k_batch, columns, exists, columns * 0, DOCUMENTS
        )
        k_global = facts(K_GLOBAL, batch * global_k_batch, columns, exists, columns * 0, GLOBAL_K)
        seen = seen_pairs(
            rows[:, None], columns[None, :], q_at[:, None], k_at[None, :],
            q_document[:, None], k_document[None, :],
            q_global[:, None], k_global[None, :], mask_from, mask_row, mask_column,
            window, right, beyond, sinks, CAUSAL, NEAR, BEYOND, AT_Q, AT_K,
            DOCUMENTS, GLOBAL_Q or GLOBAL_K, MASK, live[:, None] & exists[None, :],
        )  # fmt: skip
        s = tl.where(seen, s, float("-inf"))
        higher = tl.maximum(m, tl.max(s, 1))
        anchor = tl.where(higher == float("-inf"), 0.0, higher)
        p = tl.exp2(s - anchor[:, None])
        shrink = tl.exp2(m - anchor)
        l = l * shrink + tl.sum(p, 1)
        if DROPOUT:
            numbers = (batch * num_heads + heads)[:, None]
            kept = kept_weights(seed, rows[:, None], columns[None, :], numbers, threshold, p)
            p = tl.where(kept, p * inverse_kept, 0.0)
        v = tl.load(
            v_from + wide[:, None] * v_row + dv[None, :],
            mask=exists[:, None] & (dv < DV)[None, :], other=0.0,
        )  # fmt: skip
        acc = acc * shrink[:, None]
        acc = tl.dot(p.to(v.dtype), v, acc, input_precision=PRECISION)
        m = higher
    blind = l == 0.0
    acc = acc / tl.where(blind, 1.0, l)[:, None]
    lse = tl.where(
        blind, float("-inf"), (m + tl.log2(tl.where(blind, 1.0, l))) * 0.6931471805599453
    )
    o_from = OUT + split.to(tl.int64) * o_split + batch * o_batch + heads.to(tl.int64) * o_head
    o_from += rows.to(tl.int64) * o_row
    tl.store(
        o_from[:, None] + dv[None, :], acc.to(OUT.dtype.element_ty),
        mask=live[:, None] & (dv < DV)[None, :],
    )  # fmt: skip
    lse_row = (split.to(tl.int64) * tl.num_programs(1) * (GROUPS if FOLD else 1)) * T
    lse_row += (batch * num_heads + heads) * T + rows
    tl.store(LSE + lse_row, lse, mask=live)


@triton.jit
@no_type_check
def merge_splits(
    PARTS, PART_LSE, OUT, LSE, num_rows, T, num_heads, o_batch, o_head, o_row,
    DV: tl.constexpr, BLOCK_DV: tl.constexpr, SPLITS: tl.constexpr, BLOCK_SPLITS: tl.constexpr,
):  # fmt: skip
    """Join partial softmaxes [splits, rows, Dv] by their log-sum-exp."""
    row = tl.program_id(0).to(tl.int64)
    part = tl.arange(0, BLOCK_SPLITS)
    dv = tl.arange(0, BLOCK_DV)
    lses = tl.load(PART_LSE + part * num_rows + row, mask=part < SPLITS, other=float("-inf"))
    highest = tl.max(lses, 0)
    anchor = tl.where(highest == float("-inf"), 0.0, highest)
    weights = tl.exp2((lses - anchor) * 1.4426950408889634)
    total = tl.sum(weights, 0)
    blind = total == 0.0
    parts = tl.load(
        PARTS + (part * num_rows + row)[:, None] * DV + dv[None, :],
        mask=(part < SPLITS)[:, None] & (dv < DV)[None, :], other=0.0,
    )  # fmt: skip
    out = tl.sum(parts * weights[:, None], 0) / tl.where(blind, 1.0, total)
    lse = tl.where(blind, float("-inf"), anchor + tl.log(tl.where(blind, 1.0, total)))
    batch, head, at = row // (num_heads * T), (row // T) % num_heads, row % T
    o_from = OUT + batch * o_batch + head * o_head + at * o_row
    tl.store(o_from + dv, out.to(OUT.dtype.element_ty), mask=dv < DV)
    tl.store(LSE + row, lse)
