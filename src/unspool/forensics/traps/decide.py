"""From scores to a decision: was the text read, how sure is that, and how many traps it takes.

What: the area under the curve of all traps against all controls with a bootstrap interval over
pairs; a one-sided sign-flip test within pairs, exact because a coin decided which of each pair was
planted; the detection rate at 1% false alarms; the power at 5% and the fewest pairs for 0.8.
Source: Meeus et al. (2024), section 4.3 (AUC); Fisher (1935), section 21 (sign flips); Mann and
Whitney (1947).
Differs from the paper: it reports AUC over many documents; the decision for one publisher is added.
Cost: flips are enumerated up to 16 pairs, else 9,999 are drawn; power by resampling pairs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unspool.errors import ConfigError, InputError
from unspool.forensics.traps.score import METHODS

_EXACT = 16
_DRAWS = 9_999
_LEVEL = 0.05
_POWER = 0.8
_MOST_PAIRS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the scores of some pairs say."""

    group: Mapping[str, int]
    method: str
    pairs: int
    auc: float
    """Chance that a control scores higher than a trap, ties half."""
    auc_low: float
    auc_high: float
    """95% bootstrap interval over pairs."""
    p_value: float
    """Of scores as low if the traps had never been read."""
    detected_at_1pct: float
    """Share of traps below the lowest 1% of the controls."""
    power: float | None
    """Chance that as many pairs like these give p <= 0.05; None with fewer than two pairs."""
    smallest: int | None
    """Fewest pairs like these for a power of 0.8; None: none up to 2,000."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def decide(
    records: Sequence[Mapping[str, Any]],
    *,
    method: str = "ratio",
    by: Sequence[str] = ("length", "repeat"),
    seed: int = 0,
) -> list[Decision]:
    """Decide for each group of pairs; `by=()` is one decision on all.

    Args:
        records: What `score` returned.
        method: ratio, log_ratio, loss or min_k.
        by: Fields of a record: length, repeat, bucket.
        seed: Of bootstrap, flips and power.

    Raises:
        ConfigError: There is no such method or field.
        InputError: There are no records, or they lack the method.
    """
    if method not in METHODS:
        raise ConfigError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
    for key in by:
        if key not in ("length", "repeat", "bucket"):
            raise ConfigError(f"by takes length, repeat and bucket, got {key!r}.")
    if not records:
        raise InputError("There are no scores to decide on.")
    groups: dict[tuple[int, ...], list[tuple[float, float]]] = defaultdict(list)
    for record in records:
        try:
            pair = (float(record["trap"][method]), float(record["control"][method]))
            groups[tuple(int(record[key]) for key in by)].append(pair)
        except (KeyError, TypeError) as error:
            raise InputError(
                f"The scores hold no {method!r} for pair {record.get('id')!r}. Ratios need a "
                f"reference model."
            ) from error
    return [
        _decide(dict(zip(by, key, strict=True)), method, np.array(groups[key]), seed)
        for key in sorted(groups)
    ]


def _decide(group: dict[str, int], method: str, pairs: NDArray[np.float64], seed: int) -> Decision:
    traps, controls = pairs[:, 0], pairs[:, 1]
    draw = np.random.default_rng(seed)
    resampled = []
    for _ in range(1000):
        chosen = draw.integers(len(pairs), size=len(pairs))
        resampled.append(auc(traps[chosen], controls[chosen]))
    low, high = (float(x) for x in np.quantile(resampled, [0.025, 0.975]))
    gains = difference(pairs, method)
    return Decision(
        group=group,
        method=method,
        pairs=len(pairs),
        auc=auc(traps, controls),
        auc_low=low,
        auc_high=high,
        p_value=sign_flip(gains, seed),
        detected_at_1pct=detected(traps, controls, 0.01),
        power=power(gains, len(gains), seed) if len(gains) > 1 else None,
        smallest=smallest(gains, seed) if len(gains) > 1 else None,
    )


def difference(pairs: NDArray[np.float64], method: str) -> NDArray[np.float64]:
    """Control minus trap of each pair; of perplexity ratios, of their logarithms, which one wild
    text cannot rule."""
    values = np.log(pairs) if method == "ratio" else pairs
    found: NDArray[np.float64] = values[:, 1] - values[:, 0]
    return found


def auc(traps: NDArray[np.float64], controls: NDArray[np.float64]) -> float:
    """Share of (trap, control) pairs in which the control scores higher, ties half."""
    order = np.sort(traps)
    below = np.searchsorted(order, controls, side="left")
    upto = np.searchsorted(order, controls, side="right")
    return float((below + upto).sum() / 2 / (len(traps) * len(controls)))


def detected(traps: NDArray[np.float64], controls: NDArray[np.float64], rate: float) -> float:
    """Share of traps that score below a threshold which at most `rate` of the controls pass."""
    threshold = np.sort(controls)[math.floor(rate * len(controls))]
    return float((traps < threshold).mean())


def sign_flip(gains: NDArray[np.float64], seed: int) -> float:
    """One-sided p-value of the sum of gains under random signs; enumerated up to 16 pairs."""
    n = len(gains)
    observed = float(gains.sum())
    # Sums of the same numbers in another order may differ in the last bits.
    slack = 1e-12 * float(np.abs(gains).sum())
    if n <= _EXACT:
        masks = np.arange(1 << n)[:, None] >> np.arange(n) & 1
        return float(((1 - 2 * masks) @ gains >= observed - slack).mean())
    draw = np.random.default_rng([seed, 1])
    hits = 0
    for start in range(0, _DRAWS, 1000):
        signs = draw.integers(0, 2, size=(min(1000, _DRAWS - start), n)) * 2 - 1
        hits += int((signs @ gains >= observed - slack).sum())
    return (1 + hits) / (1 + _DRAWS)


def power(gains: NDArray[np.float64], count: int, seed: int, draws: int = 300) -> float:
    """Chance that `count` pairs drawn from these give p <= 0.05.

    Up to 8 pairs flips are enumerated; beyond, the sum is compared with its normal limit.
    """
    if count < 1:
        raise ConfigError(f"count must be >= 1, got {count}.")
    sample = np.random.default_rng([seed, count]).choice(gains, size=(draws, count))
    sums = sample.sum(1)
    if count <= 8:
        signs = 1 - 2 * (np.arange(1 << count)[:, None] >> np.arange(count) & 1)
        slack = 1e-12 * np.abs(sample).sum(1)
        return float((((sample @ signs.T) >= (sums - slack)[:, None]).mean(1) <= _LEVEL).mean())
    spread = np.sqrt((sample**2).sum(1))
    return float((sums >= 1.6448536269514722 * spread)[spread > 0].sum() / draws)


def smallest(gains: NDArray[np.float64], seed: int) -> int | None:
    """Fewest pairs that reach a power of 0.8: doubling, then bisection."""
    low, high = 4, 5  # four flips give p >= 1/16
    while power(gains, high, seed) < _POWER:
        low, high = high, high * 2
        if high > _MOST_PAIRS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if power(gains, middle, seed) >= _POWER:
            high = middle
        else:
            low = middle
    return high
