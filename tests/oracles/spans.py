"""Spans of blocks and windows from their definition, one pair at a time, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any


def meets(i: int, j: int, block: int, previous: int, kind: str = "block") -> bool:
    """Whether query i meets key j."""
    if j > i:
        return False
    if kind == "window":
        return i - j < block
    return i // block - j // block <= previous


def softmax_loops(q: Any, k: Any, v: Any, sees: Callable[[int, int], bool]) -> Any:
    """Attention over the pairs that see each other, [B, Hq, T, Dv]."""
    out = q.new_zeros(*q.shape[:3], v.shape[-1]).double()
    groups = q.shape[1] // k.shape[1]
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for i in range(q.shape[2]):
                seen = [j for j in range(k.shape[2]) if sees(i, j)]
                scores = [
                    float(q[b, h, i].double() @ k[b, h // groups, j].double())
                    / math.sqrt(q.shape[3])
                    for j in seen
                ]
                most = max(scores)
                weights = [math.exp(s - most) for s in scores]
                for j, weight in zip(seen, weights, strict=True):
                    out[b, h, i] += weight / sum(weights) * v[b, h // groups, j].double()
    return out
