"""What chance would score: the random baseline of Ada-LEval, its interval and a p-value.

Source: Wang et al. (2024), arXiv 2404.06480, the row "Random Guess" of tables 2 and 3.
Differs from the paper: it gives the mean alone; here the exact distribution of hits, a sum of
independent trials with a chance of its own each (Poisson binomial), gives interval and p-value.
Cost: O(n²) additions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unspool.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Chance:
    """Accuracy that guessing would reach, in 0-1."""

    mean: float
    low: float
    """Lower end of the 95% interval of guessing."""
    high: float
    p_value: float
    """Probability that guessing scores at least as many hits."""


def chance(hits: int, chances: Sequence[float]) -> Chance:
    """Compare hits with guessing at the chance of each item.

    Raises:
        ConfigError: No items, a chance outside 0-1, or more hits than items.
    """
    n = len(chances)
    if not n or not all(0 <= c <= 1 for c in chances):
        raise ConfigError(f"Chances must be a non-empty list in 0-1, got {list(chances)[:5]}.")
    if not 0 <= hits <= n:
        raise ConfigError(f"hits must be between 0 and {n}, got {hits}.")
    of_hits = [1.0]
    for c in chances:
        of_hits = [
            (of_hits[k] * (1 - c) if k < len(of_hits) else 0.0) + (of_hits[k - 1] * c if k else 0.0)
            for k in range(len(of_hits) + 1)
        ]
    total, low, high = 0.0, 0, n
    for k, probability in enumerate(of_hits):
        if total < 0.025:
            low = k
        total += probability
        if total >= 0.975:
            high = k
            break
    return Chance(sum(chances) / n, low / n, high / n, min(1.0, sum(of_hits[hits:])))


def choices_by_position(scores: Sequence[Mapping[str, float]]) -> dict[str, int]:
    """How often each label was said, `???` for none, from the scores of BestAnswer."""
    said = Counter(int(each["said"]) for each in scores if "said" in each)
    return {f"A{n}" if n else "???": count for n, count in sorted(said.items())}
