"""How well a detector tells two classes apart, at each length.

Source: F1 with machine as the positive class and the larger logit as decision, as in Tian et al.
(2023), section 4; the area under the curve as the Mann-Whitney statistic; Wilson (1927) intervals.
Cost: one sort of the scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from unspool.errors import ConfigError, InputError
from unspool.forensics.detect.calibration import EDGES
from unspool.forensics.detect.examples import Example
from unspool.forensics.detect.multiscaling import split

if TYPE_CHECKING:
    from unspool.forensics.detect.detector import Detector, Score

Unit = Literal["text", "sentence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """One range of lengths. A figure that its texts cannot give is None."""

    low: int
    high: int | None
    human: int
    machine: int
    f1: float | None
    """Decided by the larger logit."""
    auc: float | None
    fpr: float | None
    """Share of human texts that the larger logit calls machine, with its 95% interval."""
    fpr_low: float | None
    fpr_high: float | None
    tpr: float | None
    flagged_human: float | None
    """Share of human texts above the calibrated threshold, of all, undecided lengths included."""
    flagged_machine: float | None
    undecided: float
    """Share of texts whose length is too short to say."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All texts, then each range of lengths that has any."""

    whole: Metrics
    lengths: tuple[Metrics, ...]
    skipped: int
    """Texts without a score."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def evaluate(
    detector: Detector,
    examples: Sequence[Example],
    *,
    unit: Unit = "text",
    edges: Sequence[int] = EDGES,
    on_overflow: Literal["error", "truncate", "window"] = "error",
) -> Evaluation:
    """Score labelled texts and compare.

    Args:
        detector: A trained one.
        examples: Texts of one class are enough for that class's figures.
        unit: Whole texts, or every sentence of them alone.
        edges: Tokens that ranges of lengths end before.
        on_overflow: As for `Detector.score`.

    Raises:
        InputError: No text has a score.
        ConfigError: There is no such unit.
    """
    if unit not in ("text", "sentence"):
        raise ConfigError(f"unit must be text or sentence, got {unit!r}.")
    texts, labels = [], []
    for example in examples:
        for part in [example.text] if unit == "text" else split(detector.cleaned(example.text)):
            texts.append(part)
            labels.append(example.label)
    scores = detector.score(texts, on_overflow=on_overflow)
    kept = [i for i, s in enumerate(scores) if s.machine is not None]
    if not kept:
        raise InputError("None of the texts can be scored.")
    y = np.array([labels[i] for i in kept], dtype=np.int64)
    return summarise([scores[i] for i in kept], y, edges, len(scores) - len(kept))


def summarise(
    scores: Sequence[Score], labels: NDArray[np.int64], edges: Sequence[int], skipped: int
) -> Evaluation:
    """Figures of scored texts, in all and by length."""
    lengths = np.array([s.tokens for s in scores])
    cuts = [0, *edges]
    parts = []
    for low, high in zip(cuts, [*edges, None], strict=True):
        mask = (lengths >= low) & (lengths < (math.inf if high is None else high))
        inside = [int(i) for i in np.flatnonzero(mask)]
        if inside:
            parts.append(_metrics([scores[i] for i in inside], labels[inside], low, high))
    return Evaluation(_metrics(scores, labels, 0, None), tuple(parts), skipped)


def _metrics(
    scores: Sequence[Score], labels: NDArray[np.int64], low: int, high: int | None
) -> Metrics:
    p = np.array([s.machine for s in scores], dtype=np.float64)
    flagged = np.array([bool(s.flagged) for s in scores])
    human, machine = labels == 0, labels == 1
    both = bool(human.any() and machine.any())
    called = p > 0.5
    interval = wilson(int(called[human].sum()), int(human.sum()))
    return Metrics(
        low=low,
        high=high,
        human=int(human.sum()),
        machine=int(machine.sum()),
        f1=f1(labels, called) if both else None,
        auc=auc(labels, p) if both else None,
        fpr=_share(called[human]),
        fpr_low=interval[0] if human.any() else None,
        fpr_high=interval[1] if human.any() else None,
        tpr=_share(called[machine]),
        flagged_human=_share(flagged[human]),
        flagged_machine=_share(flagged[machine]),
        undecided=float(np.mean([s.flagged is None for s in scores])),
    )


def _share(values: NDArray[np.bool_]) -> float | None:
    return float(values.mean()) if len(values) else None


def f1(labels: NDArray[np.int64], called: NDArray[np.bool_]) -> float:
    """F1 of the class 1; 0 where nothing is right."""
    right = int((called & (labels == 1)).sum())
    wrong = int(called.sum()) + int((labels == 1).sum()) - 2 * right
    return 2 * right / (2 * right + wrong) if right else 0.0


def auc(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> float:
    """Probability that a machine text scores above a human one, ties counted half."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    ones = int((labels == 1).sum())
    zeros = len(labels) - ones
    above = float(ranks[labels == 1].sum()) - ones * (ones + 1) / 2
    return above / (ones * zeros)


def wilson(hits: int, total: int) -> tuple[float, float]:
    """95% interval of a share; (0, 1) of nothing."""
    if not total:
        return 0.0, 1.0
    z = 1.959963984540054
    share = hits / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    reach = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    reach /= 1 + z * z / total
    # Rounding must not put the end of an interval on the wrong side of its share.
    return max(0.0, min(share, middle - reach)), min(1.0, max(share, middle + reach))
