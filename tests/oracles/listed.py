"""Attention over listed keys, and its gradients, pair by pair in float64. Never imports unspool."""

from __future__ import annotations

from typing import Any

import numpy as np


def seen(
    num_queries: int,
    num_keys: int,
    *,
    causal: bool = True,
    window: int | None = None,
    right: int | None = None,
    beyond: int | None = None,
    sinks: int = 0,
    q_global: Any = None,
    k_global: Any = None,
    q_positions: Any = None,
    k_positions: Any = None,
    q_documents: Any = None,
    k_documents: Any = None,
    lists: Any = None,
    block_q: int = 1,
    block_k: int = 1,
) -> Any:
    """bool [T, S] of one batch row and head; `lists` holds the key blocks of each query block."""
    out = np.zeros((num_queries, num_keys), dtype=bool)
    for i in range(num_queries):
        at = num_keys - num_queries + i if q_positions is None else int(q_positions[i])
        if q_positions is not None and at < 0:
            continue
        listed = None
        if lists is not None:
            listed = {
                column
                for block in lists[i // block_q]
                for column in range(int(block) * block_k, (int(block) + 1) * block_k)
            }
        for j in range(num_keys):
            key = j if k_positions is None else int(k_positions[j])
            if key < 0 or (listed is not None and j not in listed):
                continue
            away = at - key
            if causal and away < 0:
                continue
            if beyond is not None and away < beyond:
                continue
            outside = (window is not None and away >= window) or (
                right is not None and away < -right
            )
            excused = (
                key < sinks
                or (k_global is not None and k_global[j])
                or (q_global is not None and q_global[i])
            )
            if outside and not excused:
                continue
            if q_documents is not None and q_documents[i] != k_documents[j]:
                continue
            out[i, j] = True
    return out


def _weights(
    q: Any, k: Any, mask: Any, scale: float, softcap: float | None
) -> tuple[Any, Any, Any]:
    """P, log-sum-exp and d score / d (q k^T * scale) of one head."""
    s = q @ k.T * scale
    slope = np.ones_like(s)
    if softcap is not None:
        slope = 1 - np.tanh(s / softcap) ** 2
        s = softcap * np.tanh(s / softcap)
    s = np.where(mask, s, -np.inf)
    top = s.max(-1, initial=-np.inf, keepdims=True)
    e = np.where(mask, np.exp(s - np.where(np.isinf(top), 0, top)), 0)
    total = e.sum(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        lse = (np.log(total) + np.where(np.isinf(top), 0, top))[:, 0]
    return e / np.where(total == 0, 1, total), lse, slope


def attention(
    q: Any, k: Any, v: Any, mask: Any, scale: float, softcap: float | None = None
) -> tuple[Any, Any]:
    """Output [B, Hq, T, Dv] and log-sum-exp [B, Hq, T]; mask is bool [B, Hq, T, S]."""
    q, k, v = (np.asarray(x, dtype=np.float64) for x in (q, k, v))
    batch, heads, queries = q.shape[:3]
    group = heads // k.shape[1]
    out, lse = np.zeros((batch, heads, queries, v.shape[-1])), np.zeros((batch, heads, queries))
    for b in range(batch):
        for h in range(heads):
            p, lse[b, h], _ = _weights(q[b, h], k[b, h // group], mask[b, h], scale, softcap)
            out[b, h] = p @ v[b, h // group]
    return out, lse


def gradients(
    q: Any,
    k: Any,
    v: Any,
    mask: Any,
    scale: float,
    d_out: Any,
    d_lse: Any,
    softcap: float | None = None,
) -> tuple[Any, Any, Any]:
    """dQ, dK and dV of sum(d_out * out) + sum(d_lse * lse)."""
    q, k, v, d_out = (np.asarray(x, dtype=np.float64) for x in (q, k, v, d_out))
    group = q.shape[1] // k.shape[1]
    d_q, d_k, d_v = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            kv = h // group
            p, _, slope = _weights(q[b, h], k[b, kv], mask[b, h], scale, softcap)
            d_p = d_out[b, h] @ v[b, kv].T
            mean = (p * d_p).sum(-1, keepdims=True)
            d_s = p * (d_p - mean + np.asarray(d_lse)[b, h][:, None]) * slope * scale
            d_v[b, kv] += p.T @ d_out[b, h]
            d_q[b, h] = d_s @ k[b, kv]
            d_k[b, kv] += d_s.T @ q[b, h]
    return d_q, d_k, d_v
