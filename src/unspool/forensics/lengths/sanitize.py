"""Separate answers that ran away from answers that are long.

Source: Perez-Ramirez et al. (2025), "CASTILLO", section 3.3, and the released filter.
Differs from the released code: the thresholds follow the cap that was in force where it is known
(the released 14,999 and 8,499 only fit a cap of 15,000, and an out-of-memory retry lowers the cap
without a word); rows of several caps at once are refused.
Cost: one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from unspool.errors import ConfigError, InputError
from unspool.forensics.lengths.rows import PERCENTILES, Row, caps_of

DEGENERATE_TEXT = "TEXT DEGENERATION"
_RELEASED_CAP = 15_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """When an answer has run away."""

    hard: int = 14_999
    """An answer of so many tokens was cut."""
    soft: int = 8_499
    """A longer answer, in a row with a large spread, ran away."""
    ratio: float = 2.0
    """A spread is large if the standard deviation is more than so many means."""

    def __post_init__(self) -> None:
        if not 1 <= self.soft <= self.hard or self.ratio <= 0:
            raise ConfigError(
                f"A filter needs 1 <= soft <= hard and ratio > 0, got soft={self.soft}, "
                f"hard={self.hard}, ratio={self.ratio}."
            )

    @classmethod
    def for_cap(cls, cap: int | None) -> Filter:
        """The released thresholds, moved to another cap in proportion; None: as released."""
        if cap is None:
            return cls()
        if cap < 2:
            raise ConfigError(f"cap must be >= 2, got {cap}.")
        return cls(hard=cap - 1, soft=max(1, 8_499 * cap // _RELEASED_CAP))


class Sanitized(NamedTuple):
    """Rows without what ran away, and the rows that held it, unchanged."""

    clean: list[Row]
    degenerate: list[Row]
    removed: int
    """Answers taken out."""
    dropped: int
    """Rows of which no answer was left."""


def sanitize(rows: Sequence[Row], *, settings: Filter | None = None) -> Sanitized:
    """Take out runaway answers; mean, deviation and percentiles are computed anew.

    Args:
        rows: Collected under one cap.
        settings: Thresholds. Default: those of the rows' cap.

    Raises:
        InputError: The rows were collected under several caps.
    """
    caps = caps_of(rows)
    if settings is None:
        if len(caps) > 1:
            known = ", ".join(str(c) for c in sorted(caps, key=str))
            raise InputError(
                f"The rows have several caps ({known}), and each has thresholds of its own. "
                f"Sanitize them apart, or give the thresholds."
            )
        settings = Filter.for_cap(next(iter(caps), None))
    clean: list[Row] = []
    bad: list[Row] = []
    removed = dropped = 0
    for row in rows:
        if not any(_why(row, settings)):
            clean.append(row)
            continue
        bad.append(row)
        left = _kept(row, settings)
        removed += len(row.output_sizes) - len(left)
        if left:
            clean.append(_renewed(row, left))
        else:
            dropped += 1
    return Sanitized(clean, bad, removed, dropped)


def is_degenerate(row: Row, settings: Filter) -> bool:
    """Whether at least one answer of a row ran away."""
    return any(_why(row, settings))


def _why(row: Row, settings: Filter) -> tuple[bool, bool]:
    longest = max(row.output_sizes)
    cut = longest >= settings.hard
    wide = row.output_std > settings.ratio * row.output_mean and longest > settings.soft
    return cut, wide


def _kept(row: Row, settings: Filter) -> tuple[int, ...]:
    cut, wide = _why(row, settings)
    if cut and all(size >= settings.hard for size in row.output_sizes):
        return ()
    if wide:
        return tuple(size for size in row.output_sizes if size <= settings.soft)
    return tuple(size for size in row.output_sizes if size < settings.hard)


def _renewed(row: Row, sizes: tuple[int, ...]) -> Row:
    values = np.asarray(sizes, dtype=np.float64)
    found = np.percentile(values, PERCENTILES)
    return replace(
        row,
        output_sizes=sizes,
        output_mean=float(values.mean()),
        output_std=float(values.std()),
        output_percentiles={f"p{p}": float(x) for p, x in zip(PERCENTILES, found, strict=True)},
        longest_response=DEGENERATE_TEXT,
    )
