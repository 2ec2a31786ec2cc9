"""What a benchmark module holds: tasks, each a spec, samples, a prompt, a metric.

A module `unspool.evaluation.tasks.BENCHMARK` has a mapping `TASKS` from the part of the name after
the slash to a `Task`, and a line in `_registry.py`. `passkey.py` is the smallest complete one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from unspool.errors import ConfigError, Unsupported
from unspool.evaluation.spec import (
    LengthLevel,
    Metric,
    Prediction,
    Release,
    Request,
    Room,
    Sample,
    Sizer,
    Source,
    TaskSpec,
)

NO_ROOM = Room()
GENERATED = Source()


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task of a benchmark. Override `samples`, and `build` or `read_predictions` if needed."""

    spec: TaskSpec
    metric: Metric
    release: Release | None = None

    def samples(
        self,
        level: LengthLevel | None,
        n: int,
        *,
        seed: int = 0,
        source: Source = GENERATED,
        size: Sizer = len,
    ) -> Iterator[Sample]:
        """The first `n` samples of a level, the same for the same arguments.

        Sample i does not depend on `n`: a longer run holds the samples of a shorter one.

        Args:
            level: The length that is wanted; None where the samples have natural lengths.
            n: Most samples to give; fewer only if the source holds no more.
            seed: Of whatever is drawn.
            source: Generated, or the original data.
            size: Size of a finished prompt in the level's unit; see `Sizer`.

        Raises:
            MissingData: The source is not there; the message says where it is to be had and which
                command makes the generated twin.
        """
        raise Unsupported(
            f"{self.spec.name} makes no samples; it only scores files of predictions."
        )

    def build(self, sample: Sample, room: Room = NO_ROOM) -> Request:
        """The request for a sample, before it is shortened and wrapped.

        Args:
            sample: From `samples` or from a file of `unspool evaluate make`.
            room: What must fit; only tasks with `overflow="own"` look at it.
        """
        spec, parts = self.spec, sample.parts
        if spec.kind == "loglikelihood":
            continuations: tuple[str, ...] = sample.references[:1]
        else:
            continuations = sample.choices if spec.kind == "choice" else ()
        return Request(
            kind=spec.kind,
            prompt=parts.prefix + parts.context + parts.query,
            answer_prefix=parts.answer_prefix,
            continuations=continuations,
            max_new_tokens=spec.max_new_tokens,
            stop=spec.stop,
        )

    def read_predictions(self, path: Path) -> Iterator[Prediction]:
        """The lines of a prediction file of the original release, as samples with answers.

        Raises:
            InputError: A line is not what the release writes; the message names line and field.
            Unsupported: There is no such file for this task.
        """
        raise Unsupported(
            f"The original release of {self.spec.name} has no prediction files that are known "
            f"here. Score a file of unspool's own form (see 'unspool evaluate score --help')."
        )

    def with_templates(self, source: str) -> Task:
        """The same task with the prompts of the original release, read from a file of the user's.

        Raises:
            ConfigError: This task has prompts of its own only.
        """
        raise ConfigError(
            f"{self.spec.name} has this project's prompts only, so no templates can be read for it."
        )

    def with_depths(self, depths: tuple[float, ...]) -> Task:
        """The same task with the needed text at other places, 0 to 1."""
        return replace(self, spec=replace(self.spec, depths=depths))
