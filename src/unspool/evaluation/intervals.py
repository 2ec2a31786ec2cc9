"""How sure a mean is: Wilson's interval for 0/1 scores, a seeded bootstrap for all others.

Source: Wilson (1927), "Probable inference", eq. 2 (the score interval); Efron (1979), the
percentile bootstrap.
Differs from common harnesses: never a normal approximation, which gives an interval of width 0 to a
cell in which everything is right.
Cost: O(1), and O(draws * n) for the bootstrap, in slices of bounded memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unspool.errors import ConfigError

Z95 = 1.959963984540054
"""97.5% quantile of the normal distribution."""

DRAWS = 2000
_CELLS = 1 << 22


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean in percent, with its size, standard error and 95% interval."""

    n: int
    mean: float
    se: float | None
    """None for a single score."""
    low: float
    high: float
    interval: Literal["wilson", "bootstrap"]

    def to_json(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "mean": self.mean,
            "se": self.se,
            "low": self.low,
            "high": self.high,
            "interval": self.interval,
        }


def mean_of(scores: Sequence[float], *, seed: int = 0) -> Mean:
    """The mean of scores in 0-1, in percent.

    Args:
        scores: At least one.
        seed: Of the bootstrap.
    """
    n = len(scores)
    if n == 0:
        raise ConfigError("There is nothing to average: the list of scores is empty.")
    total = math.fsum(scores)
    mean = total / n
    spread = math.fsum((x - mean) ** 2 for x in scores)
    se = math.sqrt(spread / (n - 1) / n) if n > 1 else None
    if all(x in (0.0, 1.0) for x in scores):
        low, high = wilson(round(total), n)
        kind: Literal["wilson", "bootstrap"] = "wilson"
    else:
        low, high = bootstrap(scores, seed=seed)
        kind = "bootstrap"
    return Mean(
        n, _percent(mean), None if se is None else _percent(se), _percent(low), _percent(high), kind
    )


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95% score interval of a share of `hits` in `n`, in 0-1."""
    if not 0 <= hits <= n or n < 1:
        raise ConfigError(f"A share needs 0 <= hits <= n and n >= 1, got {hits} of {n}.")
    p, z2 = hits / n, Z95 * Z95
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    low = 0.0 if hits == 0 else max(0.0, centre - half)
    return low, 1.0 if hits == n else min(1.0, centre + half)


def bootstrap(values: Sequence[float], *, seed: int, draws: int = DRAWS) -> tuple[float, float]:
    """95% percentile interval of the mean, by drawing the values anew."""
    means = resampled_means(np.asarray(values, dtype=np.float64), seed=seed, draws=draws)
    low, high = np.quantile(means, [0.025, 0.975]).tolist()
    return low, high


def resampled_means(
    values: NDArray[np.float64], *, seed: int, draws: int = DRAWS
) -> NDArray[np.float64]:
    """Means of `draws` samples of the values, drawn with replacement."""
    random = np.random.default_rng(seed)
    n = len(values)
    step = max(1, _CELLS // n)
    parts = [
        values[random.integers(0, n, size=(min(step, draws - done), n))].mean(axis=1)
        for done in range(0, draws, step)
    ]
    found: NDArray[np.float64] = np.concatenate(parts)
    return found


def _percent(value: float) -> float:
    return round(100 * value, 6)
