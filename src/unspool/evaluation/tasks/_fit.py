"""Fit a generated prompt to a length: how many pairs, words or candidates go in.

What: a search over a count by the size that it gives, with few measurements, since measuring a long
prompt in tokens is what making one costs. The size of one more unit is learnt from sample to
sample.
Source: RULER's generator fits in the same way but measures at every step.
Differs: the result fits, always, and leaves less room than an average unit takes.
Cost: one or two measurements a sample after the first.
"""

from __future__ import annotations

from collections.abc import Callable


class Fitter:
    """Counts for one limit; each call starts from what the last one found."""

    def __init__(self, limit: int, *, low: int = 0, most: int | None = None) -> None:
        """Fit to `limit`, with at least `low` and at most `most` units."""
        self.limit = limit
        self.low = low
        self.most = most
        self._guess = low
        self._unit = 0.0

    def __call__(self, size_of: Callable[[int], int]) -> int:
        """A count whose size is at most the limit; `low - 1` if not even `low` fits.

        Args:
            size_of: Size of the whole prompt with so many units; must not fall as they grow.
        """
        below, above = self.low - 1, self.most + 1 if self.most is not None else None
        known: tuple[int, int] | None = None
        count = self._guess if above is None else min(self._guess, above - 1)
        while below + 1 != above and (above is None or below < count < above):
            size = size_of(count)
            known = self._learn(known, count, size)
            room = self.limit - size
            if room >= 0:
                below = count
                if self._unit and room < self._unit:
                    break
                count += max(1, int(room / self._unit) if self._unit else count)
                if above is not None:
                    count = min(count, above - 1)
            else:
                above = count
                back = int(-room / self._unit) + 1 if self._unit else (count - below) // 2
                count = max(count - max(1, back), below + 1)
        if below >= self.low:
            self._guess = below
        return below

    def _learn(self, known: tuple[int, int] | None, count: int, size: int) -> tuple[int, int]:
        """The size of a unit, from two counts of one call."""
        if known is not None and known[0] != count:
            slope = (size - known[1]) / (count - known[0])
            if slope > 0:
                self._unit = slope
        return count, size
