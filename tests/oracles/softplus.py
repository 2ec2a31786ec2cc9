"""Softplus attention by loops over rows and keys in float64, from the formulas alone."""

from __future__ import annotations

import math

import numpy as np


def softplus_rows(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    visible: np.ndarray,
    *,
    p: float,
    offset: float,
    reweight: bool,
    scale: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(outputs [T, Dv], weights [T, S]) of one head; `visible` is bool [T, S]."""
    rows, keys = visible.shape
    size = q.shape[1]
    weights = np.zeros((rows, keys))
    for i in range(rows):
        there = [j for j in range(keys) if visible[i, j]]
        n = len(there)
        if n == 0:
            continue
        factor = math.log(size) * math.log(n) / math.sqrt(size) if scale is None else scale
        positive = {}
        for j in there:
            z = factor * float(np.dot(q[i], k[j]))
            positive[j] = z + math.log1p(math.exp(-z)) if z > 0 else math.log1p(math.exp(z))
        total = sum(positive.values())
        first = {j: positive[j] / total for j in there}
        if reweight:
            above = {j: max(n * first[j] - offset, 0.0) for j in there}
            most = max(above.values())
            if most > 1e-9:
                powers = {j: (above[j] / most) ** p for j in there}
                first = {j: powers[j] / sum(powers.values()) for j in there}
        for j in there:
            weights[i, j] = first[j]
    return weights @ v, weights
