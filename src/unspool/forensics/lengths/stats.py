"""What lengths say: spread between prompts, within a prompt, between models.

Source: Perez-Ramirez et al. (2025), "CASTILLO", section 4; Kaplan and Meier (1958) for answers that
were cut; Shrout and Fleiss (1979), ICC(1), for the shares of variance; Kendall (1945), tau-b.
Differs from the released analysis: an answer that was cut is a lower bound, so quantiles by
Kaplan-Meier stand beside the plain ones; models are compared on the prompts they share.
Cost: one sort a group; tau-b is quadratic in the number of shared prompts.
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
from unspool.forensics.lengths.rows import Row
from unspool.forensics.lengths.sanitize import Filter, is_degenerate


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStats:
    """The lengths of one group of rows, in tokens."""

    group: Mapping[str, str]
    rows: int
    answers: int
    mean: float
    std: float
    """Of all answers, of the population."""
    cv: float
    p25: float
    p50: float
    p75: float
    p99: float
    median_uncut: float | None
    """Kaplan-Meier median, answers that were cut counted as lower bounds; None: beyond the cap."""
    degenerate: float
    """Share of rows in which an answer ran away."""
    partial: float | None
    """Share of those in which not every answer did."""
    truncated: float
    """Share of answers that were cut at the cap."""
    within_std: float
    """Mean over prompts of the standard deviation of a prompt's answers."""
    within_cv: float
    """Mean over prompts of standard deviation / mean."""
    icc: float | None
    """Share of the variance that lies between prompts; None with fewer than two prompts."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def stats(rows: Sequence[Row], *, by: Sequence[str] = ("model", "dataset")) -> list[GroupStats]:
    """Statistics of each group, groups in the order of their names.

    Raises:
        InputError: There are no rows.
        ConfigError: `by` names something that rows do not have.
    """
    if not rows:
        raise InputError("There are no rows to describe.")
    for key in by:
        if key not in ("model", "dataset", "category"):
            raise ConfigError(f"by takes model, dataset and category, got {key!r}.")
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(str(getattr(row, key)) for key in by)].append(row)
    return [_describe(dict(zip(by, names, strict=True)), groups[names]) for names in sorted(groups)]


def _describe(group: dict[str, str], rows: Sequence[Row]) -> GroupStats:
    sizes = np.concatenate([np.asarray(row.output_sizes, dtype=np.float64) for row in rows])
    cut = np.concatenate(
        [[row.cap is not None and size > row.cap for size in row.output_sizes] for row in rows]
    )
    filters = [Filter.for_cap(row.cap) for row in rows]
    bad = [(r, f) for r, f in zip(rows, filters, strict=True) if is_degenerate(r, f)]
    partial = [min(r.output_sizes) < f.hard for r, f in bad]
    mean, std = float(sizes.mean()), float(sizes.std())
    p25, p50, p75, p99 = (float(x) for x in np.percentile(sizes, (25, 50, 75, 99)))
    spreads = [float(np.std(row.output_sizes)) for row in rows]
    return GroupStats(
        group=group,
        rows=len(rows),
        answers=len(sizes),
        mean=mean,
        std=std,
        cv=std / mean,
        p25=p25,
        p50=p50,
        p75=p75,
        p99=p99,
        median_uncut=survival_quantile(sizes, ~cut, 0.5),
        degenerate=len(bad) / len(rows),
        partial=sum(partial) / len(partial) if partial else None,
        truncated=float(cut.mean()),
        within_std=float(np.mean(spreads)),
        within_cv=float(
            np.mean([s / np.mean(r.output_sizes) for s, r in zip(spreads, rows, strict=True)])
        ),
        icc=intraclass([row.output_sizes for row in rows]),
    )


def survival(
    sizes: NDArray[np.float64], ended: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Kaplan-Meier: lengths at which answers end, and the share that is longer than each.

    Args:
        sizes: Lengths, or lower bounds of them.
        ended: False where a length is a lower bound.
    """
    times = np.unique(sizes[ended])
    order = np.sort(sizes)
    at_risk = len(sizes) - np.searchsorted(order, times, side="left")
    ends = np.sort(sizes[ended])
    deaths = np.searchsorted(ends, times, side="right") - np.searchsorted(ends, times, side="left")
    longer = np.cumprod(1 - deaths / at_risk).astype(np.float64)
    return times, longer


def survival_quantile(
    sizes: NDArray[np.float64], ended: NDArray[np.bool_], share: float
) -> float | None:
    """The length that `share` of the answers do not exceed; None if the cap hides it."""
    times, longer = survival(sizes, ended)
    reached = np.flatnonzero(longer <= 1 - share + 1e-12)
    return float(times[reached[0]]) if len(reached) else None


def intraclass(groups: Sequence[Sequence[int]]) -> float | None:
    """ICC(1) of groups of any sizes: the share of variance that lies between them, at least 0."""
    k = len(groups)
    total = sum(map(len, groups))
    if k < 2 or total <= k:
        return None
    values = [np.asarray(g, dtype=np.float64) for g in groups]
    grand = float(np.concatenate(values).mean())
    between = sum(len(g) * (float(g.mean()) - grand) ** 2 for g in values) / (k - 1)
    within = sum(float(((g - g.mean()) ** 2).sum()) for g in values) / (total - k)
    typical = (total - sum(len(g) ** 2 for g in values) / total) / (k - 1)
    spread = max(0.0, (between - within) / typical)
    return spread / (spread + within) if spread + within > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two sets of rows on the prompts that both have."""

    shared: int
    only_first: int
    only_second: int
    mean_ratio: float
    """Geometric mean over prompts of second / first."""
    kendall_means: float | None
    """Tau-b of the prompts' means; None if one side is constant."""
    kendall_stds: float | None
    distance: float
    """Largest difference between the two distributions of lengths (Kolmogorov-Smirnov)."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(first: Sequence[Row], second: Sequence[Row]) -> Comparison:
    """Compare two models (or settings) on the prompts they share.

    Raises:
        InputError: A prompt occurs twice on one side, or fewer than two are shared.
    """
    left, right = _by_prompt(first, "first"), _by_prompt(second, "second")
    shared = sorted(set(left) & set(right))
    if len(shared) < 2:
        raise InputError(f"The two sides share {len(shared)} prompts; a comparison needs 2.")
    means = [[float(np.mean(side[p].output_sizes)) for p in shared] for side in (left, right)]
    stds = [[float(np.std(side[p].output_sizes)) for p in shared] for side in (left, right)]
    sizes = [
        np.concatenate([np.asarray(side[p].output_sizes, dtype=np.float64) for p in shared])
        for side in (left, right)
    ]
    return Comparison(
        shared=len(shared),
        only_first=len(left) - len(shared),
        only_second=len(right) - len(shared),
        mean_ratio=math.exp(float(np.mean(np.log(means[1]) - np.log(means[0])))),
        kendall_means=kendall(*means),
        kendall_stds=kendall(*stds),
        distance=_distance(sizes[0], sizes[1]),
    )


def _by_prompt(rows: Sequence[Row], side: str) -> dict[str, Row]:
    found = {row.prompt_id: row for row in rows}
    if len(found) < len(rows):
        raise InputError(
            f"The {side} rows hold {len(rows) - len(found)} prompts more than once. Give the rows "
            f"of one model and one setting."
        )
    return found


def kendall(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's tau-b; None if either side is constant."""
    a, b = np.asarray(first), np.asarray(second)
    agree = 0.0
    moved = [0.0, 0.0]
    for i in range(len(a) - 1):
        x, y = np.sign(a[i + 1 :] - a[i]), np.sign(b[i + 1 :] - b[i])
        agree += float((x * y).sum())
        moved[0] += float(np.abs(x).sum())
        moved[1] += float(np.abs(y).sum())
    return agree / math.sqrt(moved[0] * moved[1]) if moved[0] and moved[1] else None


def _distance(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    points = np.concatenate([first, second])
    below = [
        np.searchsorted(np.sort(side), points, side="right") / len(side) for side in (first, second)
    ]
    return float(np.abs(below[0] - below[1]).max())
