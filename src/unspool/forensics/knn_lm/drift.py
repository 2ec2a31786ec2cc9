"""How fast retrieval loses its certainty as a text goes on.

What: entropies of p_kNN and p_LM by place in a continuation, straight lines through them, and the
difference of the two slopes with an interval.
Source: Wang et al. (2023), section 6: on generated text the entropy of the retrieved distribution
rises faster than the model's own.
Differs from the paper: a slope a text by least squares, in nats per 100 tokens; intervals draw
prefixes anew, all seeds of a prefix together.
Cost: closed form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unspool.forensics.knn_lm.generate import Course

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Drift:
    """The entropies of one kind of text. Slopes in nats per 100 tokens, the rest in nats."""

    texts: int
    slope_knn: float
    slope_lm: float
    difference: tuple[float, float, float]
    """slope_knn - slope_lm and its 95% interval."""
    places: tuple[float, ...]
    """Middle of each range of tokens after the prefix."""
    knn: tuple[float, ...]
    """Mean entropy of p_kNN in each range."""
    lm: tuple[float, ...]
    js: tuple[float, ...]
    """Mean Jensen-Shannon divergence in each range."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def drift(
    course: Course,
    prefix_of: Sequence[int] | None = None,
    *,
    bins: int = 16,
    seed: int = 0,
    rounds: int = 2000,
) -> Drift:
    """Slopes and means of entropies along texts.

    Args:
        course: Entropies, [n, L].
        prefix_of: Which prefix each text continues; default: one each.
        bins: Ranges of places.
        seed: Of the interval.
        rounds: Of the interval.
    """
    count, length = course.lm.shape
    owner = np.arange(count) if prefix_of is None else np.asarray(prefix_of)
    knn, lm = slopes(course.knn), slopes(course.lm)
    _, place = np.unique(owner, return_inverse=True)
    parts = int(place.max()) + 1
    by_prefix = np.array([mean((knn - lm)[place == i]) for i in range(parts)])
    by_prefix = by_prefix[np.isfinite(by_prefix)]
    low = high = math.nan
    if len(by_prefix):
        draws = np.random.default_rng(seed).integers(0, len(by_prefix), (rounds, len(by_prefix)))
        low, high = np.quantile(by_prefix[draws].mean(axis=1), [0.025, 0.975])
    edges = np.unique(np.linspace(0, length, bins + 1).round().astype(int))
    ranges = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))

    def means(values: Floats) -> tuple[float, ...]:
        return tuple(mean(values[:, a:b]) for a, b in ranges)

    return Drift(
        texts=count,
        slope_knn=mean(knn),
        slope_lm=mean(lm),
        difference=(mean(by_prefix), float(low), float(high)),
        places=tuple((a + b - 1) / 2 for a, b in ranges),
        knn=means(course.knn),
        lm=means(course.lm),
        js=means(course.js),
    )


def mean(values: Floats) -> float:
    """The mean of the finite values; NaN if there are none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else math.nan


def slopes(values: Floats) -> Floats:
    """The least-squares slope of each row, per 100 places; NaN with fewer than two values."""
    found = np.full(len(values), np.nan)
    for number, row in enumerate(values):
        here = np.flatnonzero(np.isfinite(row))
        if len(here) >= 2:
            x = here - here.mean()
            found[number] = 100 * float((x * row[here]).sum() / (x**2).sum())
    return found
