"""What a margin means at each length: a probability, and a bound that few human texts pass.

What: texts are binned by length; in each bin one temperature turns margins into probabilities, and
the threshold is the order statistic that a new human text of the bin passes with at most the
probability asked for.
Source: Guo et al. (2017), "On Calibration of Modern Neural Networks", section 4.2, for the
temperature; Platt (1999) for targets short of 0 and 1; split conformal prediction (Vovk et al.
2005) for the threshold. The decision layer is our addition to Tian et al. (2023).
Differs from a guarantee: runs of sentences of one text are not independent, so the share holds on
average over texts like those of the validation set, not for any one of them.
Cost: a few dozen passes over the margins of a bin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

EDGES = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
"""Tokens that bins of lengths end before."""
LEAST = 30
"""Fewest texts of each class in a bin; neighbours are merged until they have as many."""
_STEEPEST = 50.0


@dataclass(frozen=True, slots=True)
class Bin:
    """Texts of `low` to below `high` tokens, special tokens included; None: no upper end."""

    low: int
    high: int | None
    human: int
    machine: int
    temperature: float
    threshold: float | None
    """Calibrated probability above which a text is flagged; None: too few human texts to say."""
    fpr: float | None
    """Share of the human texts that are flagged, and of the machine texts."""
    tpr: float | None
    decided: bool
    """Whether the bound finds enough machine texts to be worth a decision."""

    def holds(self, length: int) -> bool:
        return self.low <= length and (self.high is None or length < self.high)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def fit_bins(
    margins: NDArray[np.float64],
    labels: NDArray[np.int64],
    lengths: NDArray[np.int64],
    *,
    target_fpr: float | int,
    min_tpr: float | int,
    edges: Sequence[int] = EDGES,
    least: int = LEAST,
) -> tuple[Bin, ...]:
    """Bins from the shortest to the longest; together they hold every length.

    Args:
        margins: Logit of machine minus logit of human.
        labels: 0 human, 1 machine.
        lengths: Tokens.
        target_fpr: Share of human texts that may be flagged.
        min_tpr: A bin whose threshold finds a smaller share of machine texts is not decided.
        edges: Where bins may end.
        least: Fewest texts of each class in a bin.
    """
    found = []
    for low, high in ranges(labels, lengths, edges, least):
        inside = (lengths >= low) & (lengths < (high if high is not None else math.inf))
        m, y = margins[inside], labels[inside]
        heat = temperature(m, y)
        p = probabilities(m, heat)
        bound = threshold(p[y == 0], target_fpr)
        fpr = tpr = None
        if bound is not None:
            fpr = float((p[y == 0] > bound).mean())
            tpr = float((p[y == 1] > bound).mean()) if (y == 1).any() else None
        found.append(
            Bin(
                low=low,
                high=high,
                human=int((y == 0).sum()),
                machine=int((y == 1).sum()),
                temperature=heat,
                threshold=bound,
                fpr=fpr,
                tpr=tpr,
                decided=tpr is not None and tpr >= min_tpr,
            )
        )
    return tuple(found)


def ranges(
    labels: NDArray[np.int64], lengths: NDArray[np.int64], edges: Sequence[int], least: int
) -> list[tuple[int, int | None]]:
    """Ranges of lengths with at least `least` texts of each class; from 0, without gaps."""
    cuts = [0]
    for edge in edges:
        left = (lengths >= cuts[-1]) & (lengths < edge)
        right = lengths >= edge
        if all(min((labels[side] == y).sum() for y in (0, 1)) >= least for side in (left, right)):
            cuts.append(edge)
    return [(low, high) for low, high in zip(cuts, [*cuts[1:], None], strict=True)]


def temperature(margins: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """The T for which sigmoid(margin / T) has the least cross-entropy.

    The slope 1 / T solves a monotone equation, by bisection, and lies from 1/50 to 50.
    """
    ones, zeros = int((labels == 1).sum()), int((labels == 0).sum())
    targets = np.where(labels == 1, (ones + 1) / (ones + 2), 1 / (zeros + 2))
    low, high = 1 / _STEEPEST, _STEEPEST
    for _ in range(60):
        middle = (low + high) / 2
        if float((margins * (probabilities(margins, 1 / middle) - targets)).sum()) < 0:
            low = middle
        else:
            high = middle
    return 2 / (low + high)


def probabilities(margins: NDArray[np.float64], heat: float | int) -> NDArray[np.float64]:
    """Probability of machine."""
    scaled = np.clip(margins / heat, -500, 500)
    out: NDArray[np.float64] = 1 / (1 + np.exp(-scaled))
    return out


def threshold(human: NDArray[np.float64], target_fpr: float | int) -> float | None:
    """The bound that a new text like these passes with at most `target_fpr`; None: too few."""
    rank = math.ceil((1 - target_fpr) * (len(human) + 1) - 1e-9)
    if rank > len(human) or not len(human):
        return None
    return float(np.sort(human)[rank - 1])


def bin_of(bins: Sequence[Bin], length: int) -> Bin | None:
    """The bin of a length; None without bins."""
    return next((b for b in bins if b.holds(length)), None)
