"""Squeezed attention by plain loops in float64. Never imports unspool."""

from __future__ import annotations

from typing import Any

import numpy as np


def cluster_shares(queries: Any, centroids: Any, counts: Any, scale: float) -> Any:
    """S_i [K], averaged over queries [N, D]: each key's share if keys lay at their centroids."""
    total = np.zeros(len(centroids))
    for query in queries:
        weights = np.array([np.exp(query @ c * scale) for c in centroids])
        total += weights / (weights @ counts)
    return total / len(queries)


def kept_tokens(
    queries: Any, keys: Any, labels: Any, window: int, threshold: float, scale: float
) -> set[int]:
    """Tokens that a block of one key head's queries meets.

    Args:
        queries: [G, T, D] of the query heads that share the keys; the largest share counts.
        keys: [n, D].
        labels: [n - window].
        window: Last tokens, always met, as token 0 is.
        threshold: Shares above it are kept.
        scale: On the scores.
    """
    number = int(labels.max()) + 1
    members = [np.nonzero(labels == i)[0] for i in range(number)]
    centroids = np.array([keys[m].mean(0) if len(m) else 0 * keys[0] for m in members])
    counts = np.array([len(m) for m in members])
    best = np.max([cluster_shares(q, centroids, counts, scale) for q in queries], axis=0)
    kept = {0, *range(len(keys) - window, len(keys))}
    for i in range(number):
        if best[i] > threshold:
            kept |= set(members[i].tolist())
    return kept


def attention(query: Any, keys: Any, values: Any, kept: set[int], scale: float) -> Any:
    """Softmax attention of one query over some of the keys."""
    index = sorted(kept)
    scores = np.array([query @ keys[j] * scale for j in index])
    weights = np.exp(scores - scores.max())
    return (weights / weights.sum()) @ values[index]
