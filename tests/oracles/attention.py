"""Attention written out in float64 with NumPy, and its gradients by the textbook formulas."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Written(NamedTuple):
    """Output, log-sum-exp, and gradients of q, k and v."""

    out: Array
    lse: Array
    dq: Array
    dk: Array
    dv: Array


def attention(
    q: Array,
    k: Array,
    v: Array,
    seen: Array,
    *,
    scale: float,
    softcap: float | None = None,
    factor: Array | None = None,
    d_out: Array | None = None,
    d_lse: Array | None = None,
) -> Written:
    """One (query head, key head) pair at a time.

    Args:
        q: [B, Hq, T, D] float64.
        k: [B, Hkv, S, D].
        v: [B, Hkv, S, Dv].
        seen: bool, broadcastable to [B, Hq, T, S].
        scale: Factor on the scores.
        softcap: Bound on the scores.
        factor: [B, Hq, T, S] multiplies the weights (dropout).
        d_out: Gradient of the output; None: ones.
        d_lse: Gradient of the log-sum-exp; None: zeros.
    """
    batch, heads, rows, _ = q.shape
    groups = heads // k.shape[1]
    seen = np.broadcast_to(seen, (batch, heads, rows, k.shape[2]))
    out, lse = np.zeros((*q.shape[:3], v.shape[-1])), np.full(q.shape[:3], -np.inf)
    d_out = np.ones_like(out) if d_out is None else d_out
    d_lse = np.zeros_like(lse) if d_lse is None else d_lse
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    for b in range(batch):
        for h in range(heads):
            keys, values = k[b, h // groups], v[b, h // groups]
            raw = scale * np.dot(q[b, h], keys.T)
            z = raw if softcap is None else softcap * np.tanh(raw / softcap)
            e = np.where(seen[b, h], np.exp(z - z.max()), 0.0)
            total = e.sum(1)
            lit = total > 0
            p = e / np.where(lit, total, 1.0)[:, None]
            lse[b, h, lit] = np.log(total[lit]) + z.max()
            used = p if factor is None else p * factor[b, h]
            out[b, h] = used @ values
            dv[b, h // groups] += used.T @ d_out[b, h]
            dp = d_out[b, h] @ values.T
            if factor is not None:
                dp = dp * factor[b, h]
            # the log-sum-exp's own gradient with respect to a score is the weight itself
            dz = p * (dp - (p * dp).sum(1, keepdims=True) + d_lse[b, h][:, None])
            if softcap is not None:
                dz = dz * (1 - np.tanh(raw / softcap) ** 2)
            dq[b, h] = scale * dz @ keys
            dk[b, h // groups] += scale * dz.T @ q[b, h]
    return Written(out, lse, dq, dk, dv)


def pattern(
    rows: int,
    columns: int,
    *,
    causal: bool = False,
    window: int | None = None,
    right: int | None = None,
    beyond: int | None = None,
    sinks: int = 0,
    q_at: Array | None = None,
    k_at: Array | None = None,
    q_documents: Array | None = None,
    k_documents: Array | None = None,
    globals_: Array | None = None,
    blocks: Array | None = None,
    block_q: int = 1,
    block_k: int = 1,
) -> Array:
    """bool [T, S], pair by pair, by the words of each rule. `blocks` is [NQ, NK] of one head."""
    seen = np.zeros((rows, columns), dtype=bool)
    for i in range(rows):
        for j in range(columns):
            at = i + columns - rows if q_at is None else int(q_at[i])
            to = j if k_at is None else int(k_at[j])
            if to < 0 or (q_at is not None and at < 0):
                continue
            ok = not (causal and to > at)
            far = (window is not None and at - to >= window) or (
                right is not None and to - at > right
            )
            excused = to < sinks
            if globals_ is not None:
                first = columns - rows
                excused = excused or bool(globals_[j]) or bool(globals_[first + i])
            ok = ok and (not far or excused)
            ok = ok and (beyond is None or at - to >= beyond)
            if q_documents is not None and k_documents is not None:
                ok = ok and q_documents[i] == k_documents[j]
            if blocks is not None:
                ok = ok and bool(blocks[i // block_q, j // block_k])
            seen[i, j] = ok
    return seen


def philox_word(seed: int, c0: int, c1: int, c2: int) -> int:
    """First word of Philox 4x32-10 for the counter (c0, c1, c2, 0), with Python's integers."""
    c = [c0, c1, c2, 0]
    key = [seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [b >> 32 ^ c[1] ^ key[0], b & 0xFFFFFFFF, a >> 32 ^ c[3] ^ key[1], a & 0xFFFFFFFF]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c[0]
