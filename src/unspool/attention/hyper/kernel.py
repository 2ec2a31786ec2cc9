"""Blocks and samples of a level as Triton kernels that gather rows as they go.

What: the forward kernel goes on with the running softmax of each row (its output and log-sum-exp so
far); three backward kernels give the gradients of queries, of block keys and of sampled keys.
Source: Dao et al. (2022), FlashAttention, algorithms 2 and 4, over the key lists of `plan`.
Differs from `parts`: nothing is gathered to memory, and no scores are written. Every row is owned
by one program, so sums have one order: the same input gives the same bits.
Cost: O(T * (KB + M) * D) a level. Shapes: q, d_out [rows, D], k and v [rows, D], lse and delta
[rows], q_rows [P * NB, R], k_rows [P * NB, KB], samples [P, M] of P rectangles with NB blocks each.
"""

# mypy: disable-error-code="untyped-decorator,no-untyped-def"
# Triton's language has no types that a checker could use.

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def _scores(q, k_t, log_weight, met, scale):
    """Base-2 scores of a tile; -inf where a pair is not met."""
    s = tl.dot(q, k_t, input_precision="ieee") * scale + log_weight
    return tl.where(met, s, float("-inf"))


@triton.jit
@no_type_check
def _go_on(acc, top, total, s, v):
    """One step of the running softmax."""
    new = tl.maximum(top, tl.max(s, 1))
    anchor = tl.where(new == float("-inf"), 0.0, new)
    p = tl.exp2(s - anchor[:, None])
    fade = tl.exp2(top - anchor)
    total = total * fade + tl.sum(p, 1)
    acc = acc * fade[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
    return acc, new, total


@triton.jit
@no_type_check
def forward_kernel(
    Q, K, V, OUT, LSE, Q_ROWS, K_ROWS, S_ROWS, S_BLOCKS, S_LOGS,
    scale, num_blocks, height, width, samples, chunks,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    block, chunk = pid // chunks, pid % chunks
    piece, own = block // num_blocks, block % num_blocks
    d = tl.arange(0, D)
    m = chunk * BM + tl.arange(0, BM)
    rows = tl.load(Q_ROWS + block.to(tl.int64) * height + m, mask=m < height, other=-1)
    real = rows >= 0
    at = tl.where(real, rows, 0).to(tl.int64)
    q = tl.load(Q + at[:, None] * D + d[None, :], mask=real[:, None], other=0.0)
    top = tl.load(LSE + at, mask=real, other=float("-inf")) * 1.4426950408889634
    total = tl.where(top == float("-inf"), 0.0, 1.0)
    acc = tl.load(OUT + at[:, None] * D + d[None, :], mask=real[:, None], other=0.0)
    for start in range(0, width, BN):
        n = start + tl.arange(0, BN)
        keys = tl.load(K_ROWS + block.to(tl.int64) * width + n, mask=n < width, other=-1)
        met = keys >= 0
        to = tl.where(met, keys, 0).to(tl.int64)
        k_t = tl.load(K + to[None, :] * D + d[:, None])
        v = tl.load(V + to[:, None] * D + d[None, :])
        s = _scores(q, k_t, 0.0, met[None, :], scale)
        acc, top, total = _go_on(acc, top, total, s, v)
    for start in range(0, samples, BN):
        n = start + tl.arange(0, BN)
        spot = piece.to(tl.int64) * samples + n
        keys = tl.load(S_ROWS + spot, mask=n < samples, other=-1)
        blocks = tl.load(S_BLOCKS + spot, mask=n < samples, other=-1)
        logs = tl.load(S_LOGS + spot, mask=n < samples, other=0.0) * 1.4426950408889634
        met = (keys >= 0) & (blocks != own)
        to = tl.where(keys >= 0, keys, 0).to(tl.int64)
        k_t = tl.load(K + to[None, :] * D + d[:, None])
        v = tl.load(V + to[:, None] * D + d[None, :])
        s = _scores(q, k_t, tl.where(met, logs, 0.0)[None, :], met[None, :], scale)
        acc, top, total = _go_on(acc, top, total, s, v)
    safe = tl.where(total == 0.0, 1.0, total)
    lse = (top + tl.log2(safe)) * 0.6931471805599453
    tl.store(OUT + at[:, None] * D + d[None, :], acc / safe[:, None], mask=real[:, None])
    tl.store(LSE + at, tl.where(total == 0.0, float("-inf"), lse), mask=real)


@triton.jit
@no_type_check
def delta_kernel(OUT, G, DELTA, length, D: tl.constexpr, BM: tl.constexpr):
    """The output times its gradient, summed over each row."""
    rows = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    spot = rows[:, None] * D + tl.arange(0, D)[None, :]
    out = tl.load(OUT + spot, mask=(rows < length)[:, None], other=0.0).to(tl.float32)
    g = tl.load(G + spot, mask=(rows < length)[:, None], other=0.0).to(tl.float32)
    tl.store(DELTA + rows, tl.sum(out * g, 1), mask=rows < length)


@triton.jit
@no_type_check
def query_kernel(
    Q, K, V, G, LSE, DELTA, DQ, Q_ROWS, K_ROWS, S_ROWS, S_BLOCKS, S_LOGS,
    scale, num_blocks, height, width, samples, chunks,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    block, chunk = pid // chunks, pid % chunks
    piece, own = block // num_blocks, block % num_blocks
    d = tl.arange(0, D)
    m = chunk * BM + tl.arange(0, BM)
    rows = tl.load(Q_ROWS + block.to(tl.int64) * height + m, mask=m < height, other=-1)
    real = rows >= 0
    at = tl.where(real, rows, 0).to(tl.int64)
    q = tl.load(Q + at[:, None] * D + d[None, :], mask=real[:, None], other=0.0)
    g = tl.load(G + at[:, None] * D + d[None, :], mask=real[:, None], other=0.0)
    lse = tl.load(LSE + at, mask=real, other=float("inf")) * 1.4426950408889634
    delta = tl.load(DELTA + at, mask=real, other=0.0)
    dq = tl.zeros((BM, D), tl.float32)
    for start in range(0, width, BN):
        n = start + tl.arange(0, BN)
        keys = tl.load(K_ROWS + block.to(tl.int64) * width + n, mask=n < width, other=-1)
        met = keys >= 0
        to = tl.where(met, keys, 0).to(tl.int64)
        k = tl.load(K + to[:, None] * D + d[None, :])
        v = tl.load(V + to[:, None] * D + d[None, :])
        p = tl.exp2(_scores(q, tl.trans(k), 0.0, met[None, :], scale) - lse[:, None])
        ds = p * (tl.dot(g, tl.trans(v), input_precision="ieee") - delta[:, None])
        dq += tl.dot(ds.to(k.dtype), k, input_precision="ieee")
    for start in range(0, samples, BN):
        n = start + tl.arange(0, BN)
        spot = piece.to(tl.int64) * samples + n
        keys = tl.load(S_ROWS + spot, mask=n < samples, other=-1)
        blocks = tl.load(S_BLOCKS + spot, mask=n < samples, other=-1)
        logs = tl.load(S_LOGS + spot, mask=n < samples, other=0.0) * 1.4426950408889634
        met = (keys >= 0) & (blocks != own)
        to = tl.where(keys >= 0, keys, 0).to(tl.int64)
        k = tl.load(K + to[:, None] * D + d[None, :])
        v = tl.load(V + to[:, None] * D + d[None, :])
        logs = tl.where(met, logs, 0.0)[None, :]
        p = tl.exp2(_scores(q, tl.trans(k), logs, met[None, :], scale) - lse[:, None])
        ds = p * (tl.dot(g, tl.trans(v), input_precision="ieee") - delta[:, None])
        dq += tl.dot(ds.to(k.dtype), k, input_precision="ieee")
    dq *= scale * 0.6931471805599453
    spot = at[:, None] * D + d[None, :]
    dq += tl.load(DQ + spot, mask=real[:, None], other=0.0)
    tl.store(DQ + spot, dq, mask=real[:, None])


@triton.jit
@no_type_check
def _key_step(
    dk, dv, k, v, Q, G, LSE, DELTA, rows, log_weight, met, scale, d, D: tl.constexpr
):  # fmt: skip
    """Gradients that a tile of keys gets from a tile of queries; scores are transposed."""
    real = rows >= 0
    at = tl.where(real, rows, 0).to(tl.int64)
    q = tl.load(Q + at[:, None] * D + d[None, :], mask=real[:, None], other=0.0)
    g = tl.load(G + at[:, None] * D + d[None, :], mask=real[:, None], other=0.0)
    lse = tl.load(LSE + at, mask=real, other=float("inf")) * 1.4426950408889634
    delta = tl.load(DELTA + at, mask=real, other=0.0)
    p = tl.exp2(_scores(k, tl.trans(q), log_weight, met, scale) - lse[None, :])
    dv += tl.dot(p.to(g.dtype), g, input_precision="ieee")
    ds = p * (tl.dot(v, tl.trans(g), input_precision="ieee") - delta[None, :])
    dk += tl.dot(ds.to(q.dtype), q, input_precision="ieee")
    return dk, dv


@triton.jit
@no_type_check
def block_key_kernel(
    Q, K, V, G, LSE, DELTA, DK, DV, Q_ROWS, K_ROWS,
    scale, height, width, chunks,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    block, chunk = (pid // chunks).to(tl.int64), pid % chunks
    d = tl.arange(0, D)
    n = chunk * BN + tl.arange(0, BN)
    keys = tl.load(K_ROWS + block * width + n, mask=n < width, other=-1)
    met = keys >= 0
    to = tl.where(met, keys, 0).to(tl.int64)
    k = tl.load(K + to[:, None] * D + d[None, :], mask=met[:, None], other=0.0)
    v = tl.load(V + to[:, None] * D + d[None, :], mask=met[:, None], other=0.0)
    dk = tl.zeros((BN, D), tl.float32)
    dv = tl.zeros((BN, D), tl.float32)
    for start in range(0, height, BM):
        m = start + tl.arange(0, BM)
        rows = tl.load(Q_ROWS + block * height + m, mask=m < height, other=-1)
        dk, dv = _key_step(dk, dv, k, v, Q, G, LSE, DELTA, rows, 0.0, met[:, None], scale, d, D)
    dk *= scale * 0.6931471805599453
    spot = to[:, None] * D + d[None, :]
    dk += tl.load(DK + spot, mask=met[:, None], other=0.0)
    dv += tl.load(DV + spot, mask=met[:, None], other=0.0)
    tl.store(DK + spot, dk, mask=met[:, None])
    tl.store(DV + spot, dv, mask=met[:, None])


@triton.jit
@no_type_check
def sample_key_kernel(
    Q, K, V, G, LSE, DELTA, DK, DV, Q_ROWS, S_ROWS, S_BLOCKS, S_LOGS,
    scale, length, height, samples, span, pieces,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Gradients [SPLITS, P, M, D] of a tile of samples, from a span of the rectangle's queries."""
    chunk, piece = tl.program_id(0), tl.program_id(1).to(tl.int64)
    split = tl.program_id(2).to(tl.int64)
    d = tl.arange(0, D)
    n = chunk * BN + tl.arange(0, BN)
    spot = piece * samples + n
    keys = tl.load(S_ROWS + spot, mask=n < samples, other=-1)
    blocks = tl.load(S_BLOCKS + spot, mask=n < samples, other=-1)
    logs = tl.load(S_LOGS + spot, mask=n < samples, other=0.0) * 1.4426950408889634
    there = keys >= 0
    logs = tl.where(there, logs, 0.0)
    to = tl.where(there, keys, 0).to(tl.int64)
    k = tl.load(K + to[:, None] * D + d[None, :], mask=there[:, None], other=0.0)
    v = tl.load(V + to[:, None] * D + d[None, :], mask=there[:, None], other=0.0)
    dk = tl.zeros((BN, D), tl.float32)
    dv = tl.zeros((BN, D), tl.float32)
    first = split * span
    for start in range(0, span, BM):
        m = first + start + tl.arange(0, BM)
        inside = (m < length) & (m < first + span)
        rows = tl.load(Q_ROWS + piece * length + m, mask=inside, other=-1)
        met = there[:, None] & (blocks[:, None] != (m // height)[None, :])
        dk, dv = _key_step(dk, dv, k, v, Q, G, LSE, DELTA, rows, logs[:, None], met, scale, d, D)
    dk *= scale * 0.6931471805599453
    into = (split * pieces + piece) * samples * D + n.to(tl.int64)[:, None] * D + d[None, :]
    tl.store(DK + into, dk, mask=(n < samples)[:, None])
    tl.store(DV + into, dv, mask=(n < samples)[:, None])
