"""Lines: a record of labelled numbers of any length, and the number of one label to be given back.

What: each line has a label of two words and a number of five digits; one line is asked for.
Source: Pal et al. (2023), "Giraffe", section 4 (LongChat-Lines), after the lines of LongEval.
Differs from the release: worded here; labels and numbers are drawn from a seed without repeats, so
one line is right and no other; the place of the line that is asked for is set, which gives scores
by depth (the release draws it).
Cost: linear in the lines; about twenty tokens a line.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from unspool.errors import ConfigError, InputError
from unspool.evaluation.spec import LengthLevel, Parts, Sample, Sizer, Source
from unspool.evaluation.tasks._fit import Fitter
from unspool.evaluation.tasks.base import GENERATED, Task
from unspool.evaluation.tasks.giraffe.words import ADJECTIVES, NOUNS

MOST_LINES = len(ADJECTIVES) * len(NOUNS)
"""Labels that there are."""
PREFIX = (
    "Here is a record of lines. Each has a label and, as its REGISTER_CONTENT, a number. Keep them "
    "in mind: the number of one label will be asked for.\n\n"
)
QUERY = (
    "\nThe record ends here. What is the REGISTER_CONTENT of line {label}? Give the number only."
)
ANSWER = "\nThe REGISTER_CONTENT of line {label} is <"
_LINE = "line {label}: REGISTER_CONTENT is <{number}>\n"
WORDING = (PREFIX, _LINE, QUERY, ANSWER)


class Record(NamedTuple):
    """A record and the question about it."""

    text: str
    label: str
    """Of the line that is asked for."""
    number: int
    """The answer."""
    line: int
    """Which line that is, from 0."""

    @property
    def parts(self) -> Parts:
        """The prompt in its pieces."""
        query, answer = QUERY.format(label=self.label), ANSWER.format(label=self.label)
        return Parts(PREFIX, self.text, query, answer)


def make_lines(n_lines: int, seed: int | str, *, depth: float | int | None = None) -> Record:
    """A record of so many lines, the same for the same seed.

    Args:
        n_lines: Lines of the record, at most `MOST_LINES`.
        seed: Of labels, numbers and, without a depth, of the line that is asked for.
        depth: Where that line stands, from 0 (first) to 1 (last).

    Raises:
        ConfigError: There are not so many labels, or the depth is not between 0 and 1.
    """
    if not 1 <= n_lines <= MOST_LINES:
        raise ConfigError(
            f"A record has 1 to {MOST_LINES:,} lines, each with its own label, got {n_lines:,}."
        )
    if depth is not None and not 0 <= depth <= 1:
        raise ConfigError(f"depth is a share of the record, 0 to 1, got {depth}.")
    draw = random.Random(f"lines:{seed}")
    asked = draw.random() if depth is None else depth
    line = min(int(asked * n_lines), n_lines - 1) if depth is None else round(asked * (n_lines - 1))
    labels = [
        f"{ADJECTIVES[code // len(NOUNS)]}-{NOUNS[code % len(NOUNS)]}"
        for code in draw.sample(range(MOST_LINES), n_lines)
    ]
    numbers = draw.sample(range(10_000, 100_000), n_lines)
    text = "".join(
        _LINE.format(label=label, number=number)
        for label, number in zip(labels, numbers, strict=True)
    )
    return Record(text, labels[line], numbers[line], line)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines(Task):
    """Records as long as a level allows, asked at the depths of the spec."""

    def samples(
        self,
        level: LengthLevel | None,
        n: int,
        *,
        seed: int = 0,
        source: Source = GENERATED,
        size: Sizer = len,
    ) -> Iterator[Sample]:
        """See `Task.samples`; nothing is read."""
        level = level or self.spec.levels[0]
        depths = self.spec.depths or (None,)
        fit = Fitter(level.upper, low=1, most=MOST_LINES)
        for i in range(n):
            depth, own = depths[i % len(depths)], f"{seed}:{level.name}:{i}"

            def measure(lines: int, depth: float | None = depth, own: str = own) -> int:
                return size(_whole(make_lines(lines, own, depth=depth)))

            lines = fit(measure)
            if lines < 1:
                raise InputError(
                    f"{self.spec.name} takes {measure(1)} {level.unit} with one line and its "
                    f"answer, and level {level.name} holds {level.upper}. Choose a longer level."
                )
            record = make_lines(lines, own, depth=depth)
            yield Sample(
                id=f"{level.name}-{i}",
                parts=record.parts,
                references=(str(record.number),),
                level=level.name,
                depth=depth,
                lengths={"lines": lines},
                seed=seed,
                meta={"label": record.label, "line": record.line},
            )


def _whole(record: Record) -> str:
    parts = record.parts
    return parts.prefix + parts.context + parts.query + parts.answer_prefix
