"""Tasks whose samples grow to a length: everything but what one sample of a given size holds.

What: `make` gives the sample with so many units of filler; the count is fitted so that the prompt
with its answer fills the level.
Cost: one or two measurements a sample after the first.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from unspool.errors import InputError, Unsupported
from unspool.evaluation.spec import LengthLevel, Parts, Sample, Sizer, Source
from unspool.evaluation.tasks._fit import Fitter
from unspool.evaluation.tasks.base import GENERATED, Task

LEVELS = tuple(LengthLevel("tokens", 1024 << i) for i in range(8))
"""1k to 128k tokens."""


@dataclass(frozen=True, slots=True)
class Made:
    """What a sample holds."""

    parts: Parts
    references: tuple[str, ...]
    choices: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)


class Ground(NamedTuple):
    """What one sample is made from; the same for every count of units."""

    seed: str
    depth: float | None
    number: int
    level: LengthLevel
    source: Source

    def draw(self) -> random.Random:
        """A generator that starts anew."""
        return random.Random(self.seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown(Task):
    """A task that says how a sample of so many units looks."""

    def least(self, level: LengthLevel) -> int:
        """Fewest units."""
        return 0

    def make(self, ground: Ground, count: int) -> Made:
        """The sample with `count` units of filler."""
        raise Unsupported(f"{self.spec.name} does not say what a sample holds.")

    def samples(
        self,
        level: LengthLevel | None,
        n: int,
        *,
        seed: int = 0,
        source: Source = GENERATED,
        size: Sizer = len,
    ) -> Iterator[Sample]:
        """See `Task.samples`; every sample has texts, needles and places of its own."""
        level = level or LEVELS[0]
        depths: tuple[float | None, ...] = self.spec.depths or (None,)
        low = self.least(level)
        fit = Fitter(level.upper, low=low)
        for i in range(n):
            name = f"{self.spec.benchmark}:{seed}:{level.name}:{i}"
            ground = Ground(name, depths[i % len(depths)], i, level, source)
            measured = _Measured(self, ground, size)
            count = fit(measured)
            if count < low:
                raise InputError(
                    f"The shortest sample of {self.spec.name} takes {measured(low):,} "
                    f"{level.unit} with its answer, and level {level.name} holds {level.upper:,}. "
                    f"Choose a longer level."
                )
            made = self.make(ground, count)
            yield Sample(
                id=f"{level.name}-{i}",
                parts=made.parts,
                references=made.references,
                choices=made.choices,
                level=level.name,
                depth=ground.depth,
                lengths={"units": count},
                seed=seed,
                meta=made.meta,
            )


class _Measured:
    """The size of one sample by its count of units."""

    def __init__(self, task: Grown, ground: Ground, size: Sizer) -> None:
        self._task, self._ground, self._size = task, ground, size

    def __call__(self, count: int) -> int:
        parts = self._task.make(self._ground, count).parts
        return self._size(parts.prefix + parts.context + parts.query + parts.answer_prefix)
