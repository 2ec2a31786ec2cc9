"""HiP attention by plain loops in float64. Never imports unspool."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

STANDS = {
    "first": lambda start, size: start,
    "center": lambda start, size: start + size // 2,
    "last": lambda start, size: start + size - 1,
}


def search(
    queries: Any, keys: Any, low: int, near: int, kept: int, size: int, stands: str = "center"
) -> tuple[list[int], int]:
    """Key blocks [low, near) that the tree finds for sampled queries [P, D], and how many blocks
    were looked at."""
    count = max(0, near - low)
    looked = 0
    if kept == 0:
        return [], 0
    edges = [count * i // kept for i in range(kept + 1)]
    groups = [(edges[i], edges[i + 1] - edges[i]) for i in range(kept)]
    groups = [group for group in groups if group[1]]
    while groups and max(length for _, length in groups) > 1:
        halves = []
        for start, length in groups:
            left = length // 2
            halves += [(start, left), (start + left, length - left)]
        halves = [half for half in halves if half[1]]
        scores = []
        for start, length in halves:
            block = low + STANDS[stands](start, length)
            rows = range(block * size, block * size + size)
            scores.append(max(float(q @ keys[row]) for q in queries for row in rows))
            looked += 1
        order = sorted(range(len(halves)), key=lambda i: (-scores[i], i))[:kept]
        groups = [halves[i] for i in sorted(order)]
    return sorted(low + start for start, _ in groups), looked


def blocks_of(num_queries: int, num_keys: int, size: int) -> list[list[int]]:
    """Positions of each block of queries, which begin at multiples of `size`."""
    found: dict[int, list[int]] = {}
    for position in range(num_keys - num_queries, num_keys):
        found.setdefault(position // size, []).append(position)
    return list(found.values())


def met(
    q: Any,
    k: Any,
    *,
    k_tokens: int,
    block_q: int,
    block_k: int,
    window: int,
    sink: int,
    stride: int,
    stands: str = "center",
) -> Any:
    """bool [T, S]: what one head's queries [T, D] meet of the keys [S, D], T at the end of S."""
    num_queries, num_keys = len(q), len(k)
    seen = np.zeros((num_queries, num_keys), dtype=bool)
    for positions in blocks_of(num_queries, num_keys, block_q):
        first, last = positions[0], positions[-1]
        near = max(0, min(last + 1 - window, first)) // block_k
        low = sink // block_k
        asked = [q[p - (num_keys - num_queries)] for p in positions[::-1][::stride]]
        chosen, _ = search(asked, k, low, near, k_tokens // block_k, block_k, stands)
        for position in positions:
            for column in range(position + 1):
                block = column // block_k
                if block < low or block >= near or block in chosen:
                    seen[position - (num_keys - num_queries), column] = True
    return seen


def attend(q: Any, k: Any, v: Any, seen: Any, scale: float, softcap: float | None = None) -> Any:
    """[T, Dv] over the keys that each query meets."""
    out = np.zeros((len(q), v.shape[1]))
    for row in range(len(q)):
        columns = np.nonzero(seen[row])[0]
        scores = np.array([float(q[row] @ k[j]) * scale for j in columns])
        if softcap is not None:
            scores = softcap * np.tanh(scores / softcap)
        weights = np.exp(scores - scores.max())
        out[row] = (weights / weights.sum()) @ v[columns]
    return out


def rounds(count: int, kept: int) -> int:
    """Rounds of a search over `count` blocks."""
    return math.ceil(math.log2(max(1, -(-count // kept))))
