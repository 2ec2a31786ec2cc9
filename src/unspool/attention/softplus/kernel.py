"""Triton kernels of softplus attention: forward in two passes over the keys, exact backward.

What: `forward` computes the row sums in a first pass and re-weighted outputs in a second; `rows`
gives the gradient of the queries, `columns` those of keys and values.
Source: Gao & Spratling (2025), as the reference; the tiling is that of FlashAttention (Dao 2023),
without a running maximum, which softplus does not need.
Differs from the reference: four numbers a row are kept (row sum, largest value above the offset,
sum of the powers, shift of a row whose scores all underflow), never the weights. The gradient
through the first normalisation needs one sum a row, which is zero without an offset:
sum_j a_j da_j = p * offset * sum_j (w_j / u_j)(dw_j - D1).
Cost: 6 T S D multiplications forward, 16 T S D backward; O(T) memory. Shapes: q [B, Hq, T, D], k
and v [B, Hkv, S, D], positions int32 [B, T] and [B, S] with -1 at padding, row numbers [B * Hq, T].
"""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def _positive(z, shift):
    """softplus, or e^(z - shift) in rows that softplus would underflow in, where both are in
    proportion; log(1 + e) keeps its digits where e is small."""
    e = tl.exp(-tl.abs(z))
    soft = tl.maximum(z, 0.0) + tl.where(e < 1e-3, e - 0.5 * e * e, tl.log(1.0 + e))
    low = (shift < 0.0)[:, None]
    return tl.where(low, tl.exp(tl.minimum(z - shift[:, None], 0.0)), soft)


@triton.jit
@no_type_check
def _power(ratio, p):
    return tl.where(ratio > 0.0, tl.exp2(p * tl.log2(tl.maximum(ratio, 1e-37))), 0.0)


@triton.jit
@no_type_check
def _visible(at_q, at_k, WINDOW: tl.constexpr, CAUSAL: tl.constexpr):
    distance = at_q[:, None] - at_k[None, :]
    seen = (at_q[:, None] >= 0) & (at_k[None, :] >= 0)
    if CAUSAL:
        seen = seen & (distance >= 0)
    if WINDOW > 0:
        seen = seen & (distance < WINDOW)
    return seen


@triton.jit
@no_type_check
def _sums(
    q, K, V, AtK, at_q, factor, shift, batch, kv, S, end,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    WINDOW: tl.constexpr, CAUSAL: tl.constexpr, REWEIGHT: tl.constexpr,
):  # fmt: skip
    """Row sums, largest values and largest scores; and sums of values, if they are wanted."""
    cols = tl.arange(0, BN)
    d = tl.arange(0, D)
    total = tl.zeros([BM], dtype=tl.float32)
    top = tl.zeros([BM], dtype=tl.float32)
    peak = tl.zeros([BM], dtype=tl.float32) - 1e30
    acc = tl.zeros([BM, D], dtype=tl.float32)
    for start in range(0, end, BN):
        at = start + cols
        there = (kv * S + at)[:, None] * D + d[None, :]
        at_k = tl.load(AtK + batch * S + at, mask=at < S, other=-1)
        k = tl.load(K + there, mask=(at < S)[:, None], other=0.0)
        z = tl.dot(q, tl.trans(k), input_precision="ieee") * factor[:, None]
        seen = _visible(at_q, at_k, WINDOW, CAUSAL)
        f = tl.where(seen, _positive(z, shift), 0.0)
        total += tl.sum(f, axis=1)
        top = tl.maximum(top, tl.max(f, axis=1))
        peak = tl.maximum(peak, tl.max(tl.where(seen, z, -1e30), axis=1))
        if not REWEIGHT:
            v = tl.load(V + there, mask=(at < S)[:, None], other=0.0)
            acc += tl.dot(f.to(v.dtype), v, input_precision="ieee")
    return total, top, peak, acc


@triton.jit
@no_type_check
def forward(
    Q, K, V, Out, AtQ, AtK, Factor, Seen, Sum, Top, Powers, Shift,
    T, S, p, offset, tie, low,
    HQ: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
    WINDOW: tl.constexpr, CAUSAL: tl.constexpr, REWEIGHT: tl.constexpr,
):  # fmt: skip
    """One block of queries of one head."""
    block, head = tl.program_id(0), tl.program_id(1).to(tl.int64)
    batch, kv = head // HQ, head // GROUP
    rows = block * BM + tl.arange(0, BM)
    cols = tl.arange(0, BN)
    d = tl.arange(0, D)
    inside = rows < T
    here = (head * T + rows)[:, None] * D + d[None, :]
    q = tl.load(Q + here, mask=inside[:, None], other=0.0)
    at_q = tl.load(AtQ + batch * T + rows, mask=inside, other=-1)
    factor = tl.load(Factor + batch * T + rows, mask=inside, other=0.0)
    seen_keys = tl.load(Seen + batch * T + rows, mask=inside, other=1.0)
    end = S
    if CAUSAL:
        end = tl.minimum(S, S - T + (block + 1) * BM)
    shift = tl.zeros([BM], dtype=tl.float32)
    total, top, peak, acc = _sums(
        q, K, V, AtK, at_q, factor, shift, batch, kv, S, end,
        D, BM, BN, WINDOW, CAUSAL, REWEIGHT,
    )  # fmt: skip
    shift = tl.where((peak < low) & (peak > -1e29), peak, 0.0)
    if tl.min(shift, axis=0) < 0.0:  # rare: a row of scores so low that softplus loses them
        total, top, peak, acc = _sums(
            q, K, V, AtK, at_q, factor, shift, batch, kv, S, end,
            D, BM, BN, WINDOW, CAUSAL, REWEIGHT,
        )  # fmt: skip
    safe = tl.where(total > 0.0, total, 1.0)
    divisor = safe
    if REWEIGHT:
        above = seen_keys * top / safe - offset
        live = above > tie
        height = tl.where(live, above, 1.0)
        powers = tl.zeros([BM], dtype=tl.float32)
        for start in range(0, end, BN):
            at = start + cols
            there = (kv * S + at)[:, None] * D + d[None, :]
            at_k = tl.load(AtK + batch * S + at, mask=at < S, other=-1)
            k = tl.load(K + there, mask=(at < S)[:, None], other=0.0)
            z = tl.dot(q, tl.trans(k), input_precision="ieee") * factor[:, None]
            f = tl.where(_visible(at_q, at_k, WINDOW, CAUSAL), _positive(z, shift), 0.0)
            a = f / safe[:, None]
            u = seen_keys[:, None] * a - offset
            b = tl.where(live[:, None], _power(u / height[:, None], p), a)
            powers += tl.sum(b, axis=1)
            v = tl.load(V + there, mask=(at < S)[:, None], other=0.0)
            acc += tl.dot(b.to(v.dtype), v, input_precision="ieee")
        divisor = tl.where(powers > 0.0, powers, 1.0)
        tl.store(Powers + head * T + rows, divisor, mask=inside)
        tl.store(Top + head * T + rows, tl.where(live, above, 0.0), mask=inside)
    tl.store(Sum + head * T + rows, safe, mask=inside)
    tl.store(Shift + head * T + rows, shift, mask=inside)
    out = acc / divisor[:, None]
    tl.store(Out + here, out.to(Out.dtype.element_ty), mask=inside[:, None])


@triton.jit
@no_type_check
def _weights(
    z, seen, shift, seen_keys, total, top, powers, p, offset, REWEIGHT: tl.constexpr
):  # fmt: skip
    """Weights w, and the slope of w by u (w / u) of live entries; 0 where masked."""
    a = tl.where(seen, _positive(z, shift), 0.0) / total[:, None]
    w, slope = a, a * 0.0
    if REWEIGHT:
        live = (top > 0.0)[:, None]
        height = tl.where(top > 0.0, top, 1.0)[:, None]
        ratio = (seen_keys[:, None] * a - offset) / height
        b = _power(ratio, p)
        w = tl.where(live, b, a) / powers[:, None]
        up = live & (ratio > 0.0)
        lower = tl.where(up, b / tl.where(ratio > 0.0, ratio, 1.0), 0.0)
        slope = lower / (height * powers[:, None])
    return w, slope


@triton.jit
@no_type_check
def _slopes(
    z, seen, shift, dw, slope, d1, d2, seen_keys, total, top, factor, p, REWEIGHT: tl.constexpr
):  # fmt: skip
    """Gradient of the raw scores q k from that of the weights."""
    da = dw
    if REWEIGHT:
        sharp = p * seen_keys[:, None] * slope * (dw - d1[:, None])
        da = tl.where((top > 0.0)[:, None], sharp, dw)
    df = (da - d2[:, None]) / total[:, None]
    steep = tl.where((shift < 0.0)[:, None], _positive(z, shift), 1.0 / (1.0 + tl.exp(-z)))
    return tl.where(seen, df * steep, 0.0) * factor[:, None]


@triton.jit
@no_type_check
def rows(
    Q, K, V, DOut, DQ, AtQ, AtK, Factor, Seen, Sum, Top, Powers, Shift, D1, D2,
    T, S, p, offset,
    HQ: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
    WINDOW: tl.constexpr, CAUSAL: tl.constexpr, REWEIGHT: tl.constexpr, OFFSET: tl.constexpr,
):  # fmt: skip
    """Gradient of one block of queries of one head, and its sum over the first stage."""
    block, head = tl.program_id(0), tl.program_id(1).to(tl.int64)
    batch, kv = head // HQ, head // GROUP
    at_rows = block * BM + tl.arange(0, BM)
    cols = tl.arange(0, BN)
    d = tl.arange(0, D)
    inside = at_rows < T
    here = (head * T + at_rows)[:, None] * D + d[None, :]
    q = tl.load(Q + here, mask=inside[:, None], other=0.0)
    d_out = tl.load(DOut + here, mask=inside[:, None], other=0.0)
    at_q = tl.load(AtQ + batch * T + at_rows, mask=inside, other=-1)
    factor = tl.load(Factor + batch * T + at_rows, mask=inside, other=0.0)
    seen_keys = tl.load(Seen + batch * T + at_rows, mask=inside, other=1.0)
    total = tl.load(Sum + head * T + at_rows, mask=inside, other=1.0)
    shift = tl.load(Shift + head * T + at_rows, mask=inside, other=0.0)
    d1 = tl.load(D1 + head * T + at_rows, mask=inside, other=0.0)
    top = tl.zeros([BM], dtype=tl.float32)
    powers = tl.zeros([BM], dtype=tl.float32) + 1.0
    if REWEIGHT:
        top = tl.load(Top + head * T + at_rows, mask=inside, other=0.0)
        powers = tl.load(Powers + head * T + at_rows, mask=inside, other=1.0)
    end = S
    if CAUSAL:
        end = tl.minimum(S, S - T + (block + 1) * BM)
    d2 = d1
    if REWEIGHT:
        gained = tl.zeros([BM], dtype=tl.float32)
        if OFFSET:
            for start in range(0, end, BN):
                at = start + cols
                there = (kv * S + at)[:, None] * D + d[None, :]
                at_k = tl.load(AtK + batch * S + at, mask=at < S, other=-1)
                k = tl.load(K + there, mask=(at < S)[:, None], other=0.0)
                v = tl.load(V + there, mask=(at < S)[:, None], other=0.0)
                z = tl.dot(q, tl.trans(k), input_precision="ieee") * factor[:, None]
                seen = _visible(at_q, at_k, WINDOW, CAUSAL)
                _, slope = _weights(
                    z, seen, shift, seen_keys, total, top, powers, p, offset, REWEIGHT
                )
                dw = tl.dot(d_out, tl.trans(v), input_precision="ieee")
                gained += tl.sum(slope * (dw - d1[:, None]), axis=1)
        d2 = tl.where(top > 0.0, p * offset * gained, d1)
    tl.store(D2 + head * T + at_rows, d2, mask=inside)
    dq = tl.zeros([BM, D], dtype=tl.float32)
    for start in range(0, end, BN):
        at = start + cols
        there = (kv * S + at)[:, None] * D + d[None, :]
        at_k = tl.load(AtK + batch * S + at, mask=at < S, other=-1)
        k = tl.load(K + there, mask=(at < S)[:, None], other=0.0)
        v = tl.load(V + there, mask=(at < S)[:, None], other=0.0)
        z = tl.dot(q, tl.trans(k), input_precision="ieee") * factor[:, None]
        seen = _visible(at_q, at_k, WINDOW, CAUSAL)
        _, slope = _weights(z, seen, shift, seen_keys, total, top, powers, p, offset, REWEIGHT)
        dw = tl.dot(d_out, tl.trans(v), input_precision="ieee")
        dz = _slopes(z, seen, shift, dw, slope, d1, d2, seen_keys, total, top, factor, p, REWEIGHT)
        dq += tl.dot(dz.to(k.dtype), k, input_precision="ieee")
    tl.store(DQ + here, dq.to(DQ.dtype.element_ty), mask=inside[:, None])


@triton.jit
@no_type_check
def columns(
    Q, K, V, DOut, DK, DV, AtQ, AtK, Factor, Seen, Sum, Top, Powers, Shift, D1, D2,
    T, S, p, offset,
    HQ: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
    WINDOW: tl.constexpr, CAUSAL: tl.constexpr, REWEIGHT: tl.constexpr,
):  # fmt: skip
    """Gradients of one block of keys and values of one key-value head."""
    block, kv = tl.program_id(0), tl.program_id(1).to(tl.int64)
    batch = kv * GROUP // HQ
    at = block * BN + tl.arange(0, BN)
    lines = tl.arange(0, BM)
    d = tl.arange(0, D)
    there = (kv * S + at)[:, None] * D + d[None, :]
    k = tl.load(K + there, mask=(at < S)[:, None], other=0.0)
    v = tl.load(V + there, mask=(at < S)[:, None], other=0.0)
    at_k = tl.load(AtK + batch * S + at, mask=at < S, other=-1)
    dk = tl.zeros([BN, D], dtype=tl.float32)
    dv = tl.zeros([BN, D], dtype=tl.float32)
    begin = 0
    if CAUSAL:  # the first query that may see the first of these keys
        begin = tl.maximum(0, block * BN - (S - T)) // BM * BM
    for member in range(0, GROUP):
        head = kv * GROUP + member
        for start in range(begin, T, BM):
            at_rows = start + lines
            inside = at_rows < T
            here = (head * T + at_rows)[:, None] * D + d[None, :]
            q = tl.load(Q + here, mask=inside[:, None], other=0.0)
            d_out = tl.load(DOut + here, mask=inside[:, None], other=0.0)
            at_q = tl.load(AtQ + batch * T + at_rows, mask=inside, other=-1)
            factor = tl.load(Factor + batch * T + at_rows, mask=inside, other=0.0)
            seen_keys = tl.load(Seen + batch * T + at_rows, mask=inside, other=1.0)
            total = tl.load(Sum + head * T + at_rows, mask=inside, other=1.0)
            shift = tl.load(Shift + head * T + at_rows, mask=inside, other=0.0)
            d1 = tl.load(D1 + head * T + at_rows, mask=inside, other=0.0)
            d2 = tl.load(D2 + head * T + at_rows, mask=inside, other=0.0)
            top = tl.zeros([BM], dtype=tl.float32)
            powers = tl.zeros([BM], dtype=tl.float32) + 1.0
            if REWEIGHT:
                top = tl.load(Top + head * T + at_rows, mask=inside, other=0.0)
                powers = tl.load(Powers + head * T + at_rows, mask=inside, other=1.0)
            z = tl.dot(q, tl.trans(k), input_precision="ieee") * factor[:, None]
            seen = _visible(at_q, at_k, WINDOW, CAUSAL)
            w, slope = _weights(z, seen, shift, seen_keys, total, top, powers, p, offset, REWEIGHT)
            dw = tl.dot(d_out, tl.trans(v), input_precision="ieee")
            dz = _slopes(
                z, seen, shift, dw, slope, d1, d2, seen_keys, total, top, factor, p, REWEIGHT
            )
            dv += tl.dot(tl.trans(w).to(d_out.dtype), d_out, input_precision="ieee")
            dk += tl.dot(tl.trans(dz).to(q.dtype), q, input_precision="ieee")
    tl.store(DK + there, dk.to(DK.dtype.element_ty), mask=(at < S)[:, None])
    tl.store(DV + there, dv.to(DV.dtype.element_ty), mask=(at < S)[:, None])
