"""Needle threading as tasks: generated at any length, read from the published rows, or as choices.

What: the six tasks with the settings of the paper's middle, in generation and, for one value, in
choice mode (the right value among 16 of the haystack), which small models can do.
Source: Roberts et al. (2024), arXiv 2411.05000, section 3 and appendix.
Differs from the paper: lengths are characters of the haystack, as there; a length in tokens bounds
the whole prompt with its answer. Choice mode is an addition: a model that cannot copy 36 characters
may still rank them.
Cost: a haystack in characters costs nothing to fit; in tokens, one or two counts a sample.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from unspool.errors import ConfigError, InputError
from unspool.evaluation.spec import (
    LengthLevel,
    Parts,
    Prediction,
    Sample,
    Sizer,
    Source,
    TaskSpec,
    fingerprint,
)
from unspool.evaluation.tasks._fit import Fitter
from unspool.evaluation.tasks.base import GENERATED, Task
from unspool.evaluation.tasks.needle_threading import data
from unspool.evaluation.tasks.needle_threading.config import PAIR_CHARS, NeedleConfig, NeedleTask
from unspool.evaluation.tasks.needle_threading.haystack import NeedleRow, build, question
from unspool.evaluation.tasks.needle_threading.metric import Found
from unspool.evaluation.tasks.needle_threading.solve import read_pairs

Form: TypeAlias = Literal["generate", "choice"]

CANDIDATES = 16
"""Values that a choice is made among."""
LEVELS = tuple(
    LengthLevel("chars", n)
    for n in (2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000, 1_024_000)
)
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
_CUES = {"value": "\nValue:", "list": "\nValues:", "choice": '\nValue: "'}
_TOKENS_A_VALUE = 48
_JOINTS = 4
"""Tokens that may come or go where two texts are joined."""
_WORDING = (
    question(NeedleConfig(task="single_needle", pairs=1), ["K"]),
    question(NeedleConfig(task="multiple_needles", pairs=1), ["K"]),
    question(NeedleConfig(task="conditional_needles", pairs=1), ["K"]),
    question(NeedleConfig(task="single_thread", pairs=1), ["K"]),
    question(NeedleConfig(task="multi_thread", pairs=1), ["K"]),
    question(NeedleConfig(task="branched_thread", pairs=1), ["K"]),
    *_CUES.values(),
)


class _Measured(NamedTuple):
    """The last haystack that was counted."""

    haystack: str
    pairs: int
    """0 or less: none."""
    size: int
    """Without the question."""

    def fits(self, made: Sample, size: Sizer, limit: int) -> bool:
        """Whether the same haystack with another question fills the limit, without counting it."""
        parts = made.parts
        if parts.context != self.haystack:
            return False
        # A question starts on a line of its own, so sizes add up, but for a token or two.
        total = self.size + size(parts.query + parts.answer_prefix)
        return limit - 2 * self.size // self.pairs <= total <= limit - _JOINTS


def _text(parts: Parts) -> str:
    return parts.prefix + parts.context + parts.query + parts.answer_prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedleThreading(Task):
    """One of the six tasks with its settings."""

    base: NeedleConfig
    """Everything but length, depth and seed."""
    form: Form = "generate"
    candidates: int = CANDIDATES

    def samples(
        self,
        level: LengthLevel | None,
        n: int,
        *,
        seed: int = 0,
        source: Source = GENERATED,
        size: Sizer = len,
    ) -> Iterator[Sample]:
        """See `Task.samples`. Sample i has depth i mod the depths and repeat i // their number.

        The haystack of a repeat is the same at every depth, as in the published data. Published
        rows are taken in their order, those of the level's context length if one is given.
        """
        if source.kind == "release":
            yield from self._published(level, n, source)
            return
        level = level or LEVELS[0]
        depths: tuple[float | None, ...] = self.spec.depths or (None,)
        fit = Fitter(level.upper, low=self.base.planted)
        last = _Measured("", 0, 0)
        for i in range(n):
            depth, repeat = depths[i % len(depths)], i // len(depths)
            if level.unit == "chars":
                row = self._checked(level.nominal // PAIR_CHARS, depth, seed + repeat, level)
                yield self.sample(row, level.name, depth, i)
                continue
            if last.pairs:
                row = self._row(last.pairs, depth, seed + repeat)
                made = self.sample(row, level.name, depth, i)
                if last.fits(made, size, level.upper):
                    yield made
                    continue
            last = self._fitted(fit, size, depth, seed + repeat, i)
            row = self._checked(last.pairs, depth, seed + repeat, level)
            yield self.sample(row, level.name, depth, i)

    def _checked(self, pairs: int, depth: float | None, seed: int, level: LengthLevel) -> NeedleRow:
        if pairs < self.base.planted:
            raise InputError(
                f"{self.spec.name} plants {self.base.planted} pairs of {PAIR_CHARS} characters, "
                f"and a level of {level.name} {level.unit} holds {max(0, pairs)} beside the "
                "question. Choose a longer level."
            )
        return self._row(pairs, depth, seed)

    def _fitted(
        self, fit: Fitter, size: Sizer, depth: float | None, seed: int, number: int
    ) -> _Measured:
        """The haystack that fills the limit, and what it measured."""
        known: dict[int, int] = {}

        def size_of(pairs: int) -> int:
            parts = self.sample(self._row(pairs, depth, seed), "", depth, number).parts
            known[pairs] = size(_text(parts))
            return known[pairs]

        pairs = fit(size_of)
        if pairs < self.base.planted:
            return _Measured("", pairs, 0)
        parts = self.sample(self._row(pairs, depth, seed), "", depth, number).parts
        rest = size(parts.query + parts.answer_prefix)
        return _Measured(parts.context, pairs, known[pairs] - rest)

    def _row(self, pairs: int, depth: float | None, seed: int) -> NeedleRow:
        return build(replace(self.base, pairs=pairs, depth=depth, seed=seed))

    def sample(self, row: NeedleRow, level: str, depth: float | None, number: int) -> Sample:
        """A sample of a row; `choice` adds other values of the haystack."""
        listed = not isinstance(row.values, str)
        answers = (row.values,) if isinstance(row.values, str) else tuple(row.values)
        choices: tuple[str, ...] = ()
        if self.form == "choice":
            choices = _candidates(row, answers[0], self.candidates, f"{row.repeat_number}/{number}")
        cue = _CUES["choice" if choices else "list" if listed else "value"]
        return Sample(
            id=f"{level}-{number}",
            parts=Parts("", row.haystack, f"\n{row.question}", cue),
            references=answers,
            choices=choices,
            level=level,
            depth=depth,
            lengths={"haystack_chars": row.context_length, "pairs": row.num_kv_pairs},
            seed=row.repeat_number,
            meta={
                "listed": listed,
                "keys": row.keys,
                "needles": row.num_needles,
                "placement": row.needle_placement,
                "thread_length": row.thread_length,
                "direction": row.thread_direction,
                "threads": row.num_threads,
            },
        )

    def _published(self, level: LengthLevel | None, n: int, source: Source) -> Iterator[Sample]:
        if source.path is None:
            raise data.missing(self.base.task, "given")
        rows = data.load(source.path, self.base.task)
        if level is not None:
            rows = [row for row in rows if row.context_length == level.nominal]
        for number, row in enumerate(rows[:n]):
            depth = data.depth_of(row)
            name = LengthLevel("chars", row.context_length).name
            yield self.sample(row, level.name if level else name, depth, number)

    def read_predictions(self, path: Path) -> Iterator[Prediction]:
        """See `data.read_predictions`: only the single needle has an example that writes one."""
        if self.base.task != "single_needle" or self.form != "generate":
            # Task is a slotted dataclass, which a bare super() cannot see.
            return Task.read_predictions(self, path)
        return data.read_predictions(path)


def task(
    kind: NeedleTask,
    *,
    form: Form = "generate",
    name: str = "",
    candidates: int = CANDIDATES,
    unit: str = "chars",
    **settings: Any,
) -> NeedleThreading:
    """A task with settings of one's own.

    Args:
        kind: One of the six.
        form: Write the answer, or rank it among 16 values of the haystack (single answers only).
        name: What comes after `needle-threading/`; default: the kind and the settings.
        candidates: Values that a choice is made among; fewer if the haystack holds fewer.
        unit: `chars` of the haystack, or `tokens` of the whole prompt.
        **settings: Fields of `NeedleConfig` other than length, depth and seed.

    Raises:
        ConfigError: A list is to be chosen, or a setting cannot work.
    """
    if candidates < 2:
        raise ConfigError(f"candidates must be >= 2, got {candidates}.")
    base = NeedleConfig(task=kind, pairs=1 << 40, **settings)
    listed = kind in ("multiple_needles", "conditional_needles", "multi_thread")
    if form == "choice" and listed:
        raise ConfigError(f"{kind} asks for a list, which is not chosen among values.")
    values = base.n_threads if kind == "multi_thread" else base.n_needles
    said = [f"{value}" if isinstance(value, str) else f"{key}{value}"
            for key, value in sorted(settings.items())]  # fmt: skip
    said += ["choice"] if form == "choice" else []
    spec = TaskSpec(
        name=f"needle-threading/{name or '_'.join([kind, *said])}",
        ability="threads" if "thread" in kind else "needles",
        kind=form,
        max_new_tokens=16 + _TOKENS_A_VALUE * values if listed else 100,
        unit=unit,
        levels=LEVELS if unit == "chars" else (),
        depths=DEPTHS if _has_depth(base) else (),
        metric=Found().id,
        prompt_fingerprint=fingerprint(*_WORDING),
        licence="MIT",
    )
    return NeedleThreading(
        spec=spec,
        metric=Found(),
        release=data.release(kind),
        base=base,
        form=form,
        candidates=candidates,
    )


def _has_depth(base: NeedleConfig) -> bool:
    if base.task in ("single_thread", "branched_thread"):
        return base.direction in ("forward", "random")
    return base.task == "single_needle" or (
        base.task != "multi_thread" and base.placement == "clustered"
    )


def _candidates(row: NeedleRow, answer: str, most: int, seed: str) -> tuple[str, ...]:
    """The answer among other values of the haystack, those of its thread first, in drawn order."""
    pairs = dict(read_pairs(row.haystack))
    draw = random.Random(f"candidates/{seed}")
    thread: list[str] = []
    key = row.keys if isinstance(row.keys, str) else row.keys[0]
    while key in pairs and len(thread) < row.thread_length:
        key = pairs[key]
        thread.append(key)
    others = sorted(set(pairs.values()) - set(thread) - {answer})
    near = [value for value in thread if value != answer][: most - 1]
    far = draw.sample(others, min(most - 1 - len(near), len(others)))
    found = [answer, *near, *far]
    draw.shuffle(found)
    return tuple(found)
