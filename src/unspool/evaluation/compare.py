"""Two runs on the same samples: the difference, how sure it is, and at which lengths it lies.

Source: the paired randomisation test (Fisher 1935; Noreen 1989): under the null hypothesis the two
scores of a sample could as well stand the other way round, so signs of the differences are drawn.
Differs from comparing two intervals: pairs are kept, which is what makes small differences visible.
Exact over all 2^n signs up to 14 pairs that differ, otherwise 10,000 draws with a seed, counted as
(1 + hits) / (1 + draws) so that p is never 0.
Cost: O(draws * pairs that differ).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unspool.errors import InputError
from unspool.evaluation.intervals import bootstrap

_EXACT = 14
_DRAWS = 10_000
_SLICE = 1 << 22


@dataclass(frozen=True, slots=True)
class Comparison:
    """Second run minus first, in percentage points."""

    n: int
    """Pairs."""
    first: float
    second: float
    difference: float
    low: float
    high: float
    """95% bootstrap interval of the difference, over pairs."""
    p: float
    """Two-sided permutation test."""

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def compare(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> Comparison:
    """Compare paired scores in 0-1; entry i of both is the same sample."""
    a = np.asarray(first, dtype=np.float64)
    b = np.asarray(second, dtype=np.float64)
    if len(a) != len(b) or not len(a):
        raise InputError(
            f"Paired runs need the same samples, at least one: got {len(a)} and {len(b)}."
        )
    change = b - a
    low, high = bootstrap(change.tolist(), seed=seed)
    return Comparison(
        n=len(a),
        first=_percent(float(a.mean())),
        second=_percent(float(b.mean())),
        difference=_percent(float(change.mean())),
        low=_percent(low),
        high=_percent(high),
        p=permutation_p(change, seed=seed),
    )


def permutation_p(change: NDArray[np.float64], *, seed: int = 0) -> float:
    """How often random signs give a mean difference at least as large as the observed one."""
    moved = change[change != 0]
    if not len(moved):
        return 1.0
    observed = abs(float(moved.sum())) - 1e-12
    if len(moved) <= _EXACT:
        signs = np.array(list(product((-1.0, 1.0), repeat=len(moved))))
        return float(np.mean(np.abs(signs @ moved) >= observed))
    random = np.random.default_rng(seed)
    hits, step = 0, max(1, _SLICE // len(moved))
    for done in range(0, _DRAWS, step):
        shape = (min(step, _DRAWS - done), len(moved))
        signs = random.integers(0, 2, size=shape) * 2.0 - 1.0
        hits += int(np.sum(np.abs(signs @ moved) >= observed))
    return (1 + hits) / (1 + _DRAWS)


def strata(
    first: Mapping[tuple[str, str, str], float],
    second: Mapping[tuple[str, str, str], float],
    *,
    seed: int = 0,
) -> dict[str, dict[str, Comparison]]:
    """Comparisons by task, for all its samples and for each length level.

    Args:
        first: (task, level, sample) to score in 0-1.
        second: The same of the other run; only samples of both are compared.
        seed: Of draws.

    Raises:
        InputError: The runs have no sample in common.
    """
    shared = [key for key in first if key in second]
    if not shared:
        raise InputError(
            "The two runs have no sample in common. Run both with the same tasks, lengths, limit "
            "and seed."
        )
    found: dict[str, dict[str, Comparison]] = {}
    for task in dict.fromkeys(key[0] for key in shared):
        keys = [key for key in shared if key[0] == task]
        groups = {"all": keys}
        for level in dict.fromkeys(key[1] for key in keys):
            groups.setdefault(level, [key for key in keys if key[1] == level])
        found[task] = {
            name: compare([first[k] for k in group], [second[k] for k in group], seed=seed)
            for name, group in groups.items()
        }
    return found


def _percent(value: float) -> float:
    return round(100 * value, 6)
