"""Cache compression by brute force, in float64 and plain loops. Never imports unspool."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np


def snapkv_kept(
    k: Any, queries: Any, keep: int, kernel: int, valid: Any, scale: float
) -> list[list[int]]:
    """Columns that each key-value head of one sequence keeps.

    Args:
        k: [Hkv, S, D].
        queries: [Hq, W, D] of the last W columns.
        keep: Tokens a head.
        kernel: Odd width of the running mean.
        valid: [S], False at padding.
        scale: On the scores.
    """
    num_kv_heads, length, _ = k.shape
    groups, window = queries.shape[0] // num_kv_heads, queries.shape[1]
    kept = []
    for head in range(num_kv_heads):
        votes = np.zeros(length - window)
        for member in range(groups):
            for row in range(window):
                column = length - window + row
                if not valid[column]:
                    continue
                seen = [j for j in range(column + 1) if valid[j]]
                scores = np.array(
                    [queries[head * groups + member, row] @ k[head, j] * scale for j in seen]
                )
                weights = np.exp(scores - scores.max())
                weights /= weights.sum()
                for j, weight in zip(seen, weights, strict=True):
                    if j < length - window:
                        votes[j] += weight
        half = kernel // 2
        smooth = [
            sum(votes[max(0, j - half) : j + half + 1]) / kernel for j in range(length - window)
        ]
        older = [j for j in range(length - window) if valid[j]]
        older.sort(key=lambda j: -smooth[j])
        newest = [j for j in range(length - window, length) if valid[j]]
        kept.append(sorted(older[: keep - window]) + newest)
    return kept


def think_loss(k: Any, queries: Any, dropped: tuple[int, ...]) -> float:
    """Squared Frobenius norm by which scores of one head change without some channels.

    Args:
        k: [S, D].
        queries: [W, D].
        dropped: Channels left out.
    """
    rest = [j for j in range(k.shape[1]) if j not in dropped]
    return float(((queries @ k.T - queries[:, rest] @ k[:, rest].T) ** 2).sum())


def think_bound(k: Any, queries: Any, dropped: tuple[int, ...]) -> float:
    """The sum over channels of the squared norm of each one's own part."""
    return sum(float((np.outer(queries[:, j], k[:, j]) ** 2).sum()) for j in dropped)


def best_subset(loss: Any, channels: int, pruned: int) -> tuple[int, ...]:
    """The subset of channels with the smallest loss, by trying each."""
    return min(itertools.combinations(range(channels), pruned), key=loss)
