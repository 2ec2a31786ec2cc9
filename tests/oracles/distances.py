"""Attention by explicit loops in float64: every pair with a distance of its own. Slow and plain."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np


def turn(x: np.ndarray, position: int, inv_freq: np.ndarray) -> np.ndarray:
    """Rotate one head vector by a position, pairs (j, j + rotary/2)."""
    out = x.astype(np.float64).copy()
    half = len(inv_freq)
    for j in range(half):
        angle = position * float(inv_freq[j])
        a, b = float(x[j]), float(x[half + j])
        out[j] = a * math.cos(angle) - b * math.sin(angle)
        out[half + j] = b * math.cos(angle) + a * math.sin(angle)
    return out


def attention_by_distance(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    inv_freq: np.ndarray,
    distance: Callable[[int, int], int | None],
) -> np.ndarray:
    """Attention in which query i meets key j at `distance(i, j)`; None: it does not see it.

    Args:
        q: [Hq, T, D] raw; the queries are the last T of S positions.
        k: [Hkv, S, D] raw.
        v: [Hkv, S, D].
        inv_freq: [rotary/2].
        distance: Of the pair, or None.
    """
    num_heads, num_queries, head_dim = q.shape
    num_keys = k.shape[1]
    groups = num_heads // k.shape[0]
    out = np.zeros((num_heads, num_queries, v.shape[2]))
    for h in range(num_heads):
        for t in range(num_queries):
            i = num_keys - num_queries + t
            weights, rows = [], []
            for j in range(num_keys):
                d = distance(i, j)
                if d is None:
                    continue
                turned = turn(q[h, t], d, inv_freq)
                weights.append(float(turned @ k[h // groups, j].astype(np.float64)))
                rows.append(v[h // groups, j].astype(np.float64))
            if not weights:
                continue
            scores = np.array(weights) / math.sqrt(head_dim)
            p = np.exp(scores - scores.max())
            out[h, t] = (p / p.sum()) @ np.array(rows)
    return out
