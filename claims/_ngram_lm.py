"""What the claim of the ∞-gram language model computes: estimates, mixtures, intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LAMBDAS = np.concatenate([[0.0], np.geomspace(0.001, 0.1, 15), np.linspace(0.12, 0.98, 44)])
"""Weights of the n-gram estimate that are tried; 0 leaves the neural model alone."""


@dataclass(frozen=True, slots=True)
class Estimates:
    """What one n-gram model says of every scored token: one entry a token."""

    prob: Floats
    """Its probability of the token that came."""
    best: Bools
    """Whether that was above one half, the paper's measure of a right prediction."""
    sparse: Bools
    """Whether it gave all probability to one token, whichever came."""
    length: NDArray[np.int64]
    """Tokens of context it used; the effective n is one more."""


def estimates(ix: Any, texts: Sequence[Sequence[int]], order: int | None) -> Estimates:
    """The ∞-gram estimate of every token but the first of each text, from the tokens before it.

    `order` n looks at n - 1 tokens at most and backs off from there (an n-gram); None at all.
    """
    prob, sparse, length = [], [], []
    for ids in texts:
        row = np.asarray(ids, dtype=np.uint32)
        contexts = [row[max(0, t - order + 1) if order else 0 : t] for t in range(1, len(row))]
        for t, found in enumerate(ix.infgram_batch(contexts), start=1):
            used, count, symbols, counts = found
            at = int(np.searchsorted(symbols, int(row[t])))
            hit = at < len(symbols) and int(symbols[at]) == int(row[t])
            prob.append(int(counts[at]) / count if hit else 0.0)
            sparse.append(len(symbols) == 1)
            length.append(int(used))
    p = np.array(prob)
    return Estimates(p, p > 0.5, np.array(sparse), np.array(length))


def fit(gram: Estimates, neural: Floats) -> tuple[float, float]:
    """The weights of sparse and of other steps that give the highest likelihood, each by itself."""

    def best(chosen: Bools) -> float:
        if not chosen.any():
            return 0.0
        p, q = gram.prob[chosen], neural[chosen]
        losses = [-np.log(w * p + (1 - w) * q).mean() for w in LAMBDAS]
        return float(LAMBDAS[int(np.argmin(losses))])

    return best(gram.sparse), best(~gram.sparse)


def mix(gram: Estimates, neural: Floats, weights: tuple[float, float]) -> Floats:
    """λ P∞ + (1 - λ) P, with one λ for sparse steps and one for the others (section 4 there)."""
    weight = np.where(gram.sparse, weights[0], weights[1])
    mixed: Floats = weight * gram.prob + (1 - weight) * neural
    return mixed


def bootstrap(
    losses_a: Floats, losses_b: Floats, owner: NDArray[np.int64], seed: int, rounds: int = 2000
) -> tuple[float, float, float]:
    """Relative drop of perplexity from a to b and its 95% interval, documents drawn anew."""
    groups = [np.flatnonzero(owner == g) for g in np.unique(owner)]
    sums = np.array([[losses_a[g].sum(), losses_b[g].sum(), len(g)] for g in groups])
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(groups), (rounds, len(groups)))
    drawn = sums[picks].sum(axis=1)
    drops = 1 - np.exp((drawn[:, 1] - drawn[:, 0]) / drawn[:, 2])
    whole = sums.sum(axis=0)
    low, high = np.quantile(drops, [0.025, 0.975])
    return float(1 - np.exp((whole[1] - whole[0]) / whole[2])), float(low), float(high)


def by_length(gram: Estimates, edges: Sequence[int]) -> list[dict[str, float]]:
    """Tokens and accuracy in each range of effective n: [edge, next edge)."""
    n = gram.length + 1
    rows = []
    for low, high in zip(edges, [*edges[1:], 10**9], strict=True):
        here = (n >= low) & (n < high)
        if here.any():
            accuracy = float(gram.best[here].mean())
            rows.append({"from": low, "to": high, "tokens": int(here.sum()), "accuracy": accuracy})
    return rows
