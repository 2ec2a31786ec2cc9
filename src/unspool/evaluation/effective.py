"""Effective length: the longest level at which a model still does the task, by a published rule.

Source: `ruler`: the largest level with a score of at least 85.6, that of Llama-2-7B at 4k (Hsieh
et al. 2024, section 4); `nolima`: at least 85% of the base score, taken from the levels 250, 500
and 1k (Modarressi et al. 2025, section 4); `threshold:X`: at least X percent (the contours of
Needle Threading, Roberts et al. 2024, use 75).
Differs from the papers: every shorter level has to pass too, unless `monotone=False`; the base
score is the best of the levels up to 1k, since the averaging of the paper could not be verified;
and there is an interval, from drawing the samples of each level anew.
Cost: O(levels) and, for the interval, O(draws * samples).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unspool.errors import ConfigError
from unspool.evaluation.intervals import DRAWS, resampled_means

RULES = ("ruler", "nolima", "threshold:75")
_RULER = 85.6
_SHARE = 0.85
_BASE = 1024


@dataclass(frozen=True, slots=True)
class Effective:
    """The longest level that passes; None if none does."""

    rule: str
    length: int | None
    threshold: float | None
    """The score that had to be reached, in percent; None if there is no base level."""
    base: float | None = None
    """The base score of `nolima`."""
    low: int | None = None
    high: int | None = None
    """95% interval; None means that no level passes."""
    monotone: bool = True

    def to_json(self) -> dict[str, Any]:
        return {
            "rule": self.rule,
            "length": self.length,
            "threshold": self.threshold,
            "base": self.base,
            "low": self.low,
            "high": self.high,
            "monotone": self.monotone,
        }


def effective_length(
    scores: Mapping[int, Sequence[float]], rule: str, *, monotone: bool = True, seed: int = 0
) -> Effective:
    """The effective length by one rule.

    Args:
        scores: Nominal length to the scores (0-1) of its samples; levels without samples are left
            out.
        rule: `ruler`, `nolima` or `threshold:X` with X in percent.
        monotone: Every shorter level must pass too.
        seed: Of the interval.

    Raises:
        ConfigError: The rule is unknown.
    """
    fixed = threshold_of(rule)
    levels = sorted(length for length, values in scores.items() if len(values))
    means = {length: 100 * float(np.mean(scores[length])) for length in levels}
    length, threshold, base = _longest(means, fixed, monotone)
    if not levels:
        return Effective(rule, None, threshold, base, monotone=monotone)
    draws = np.stack(
        [
            100 * resampled_means(np.asarray(scores[each], dtype=np.float64), seed=seed + 7919 * i)
            for i, each in enumerate(levels)
        ]
    )
    found = np.sort(_longest_of_draws(np.array(levels), draws, fixed, monotone))
    low, high = int(found[int(0.025 * DRAWS)]), int(found[int(0.975 * DRAWS)])
    return Effective(rule, length, threshold, base, low or None, high or None, monotone)


def threshold_of(rule: str) -> float | None:
    """The fixed threshold of a rule in percent; None for `nolima`, which takes it from the data.

    `threshold:0.75` and `threshold:75` are the same: what is at most 1 is a share.
    """
    if rule == "nolima":
        return None
    if rule == "ruler":
        return _RULER
    name, _, value = rule.partition(":")
    try:
        threshold = float(value)
    except ValueError:
        threshold = -1.0
    if name != "threshold" or not 0 < threshold <= 100:
        raise ConfigError(
            f"A rule of effective length is ruler, nolima or threshold:X with X in percent, or "
            f"as a share of 1, got {rule!r}."
        )
    return 100 * threshold if threshold <= 1 else threshold


def _longest(
    means: Mapping[int, float], fixed: float | None, monotone: bool
) -> tuple[int | None, float | None, float | None]:
    """The longest level that passes, the threshold, and the base score it was taken from."""
    base = None
    threshold = fixed
    if threshold is None:
        base = max((score for length, score in means.items() if length <= _BASE), default=None)
        if base is None:
            return None, None, None
        threshold = _SHARE * base
        if base <= 0:  # nothing is done at any length, so no length is effective
            return None, threshold, base
    longest = None
    for length in sorted(means):
        if means[length] >= threshold - 1e-9:
            longest = length
        elif monotone:
            break
    return longest, threshold, base


def _longest_of_draws(
    levels: NDArray[np.int64], draws: NDArray[np.float64], fixed: float | None, monotone: bool
) -> NDArray[np.int64]:
    """The longest level that passes in each draw (a column of means by level); 0 if none does."""
    if fixed is None:
        base = levels <= _BASE
        if not base.any():
            return np.zeros(draws.shape[1], dtype=np.int64)
        best = draws[base].max(axis=0)
        needed: NDArray[np.float64] | float = np.where(best > 0, _SHARE * best, np.inf)
    else:
        needed = fixed
    passes = draws >= needed - 1e-9
    if monotone:
        passes = np.logical_and.accumulate(passes, axis=0)
    found: NDArray[np.int64] = np.where(passes, levels[:, None], 0).max(axis=0)
    return found
