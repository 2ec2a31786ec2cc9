"""The plan of a run: every sample, its prompt's size and digest, before any model is called.

What: samples are drawn, built, fitted and counted once and written to `samples.jsonl`; the requests
themselves are built again, one at a time, when they are due, so memory does not grow with the run.
Source: the dry runs of build tools: everything is known before anything is paid.
Differs from common harnesses: a prompt that does not fit stops the run here, before a token is
paid, and what is shortened is counted per sample.
Cost: one tokenisation of each prompt, and one more of those that are shortened.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from unspool.errors import ConfigError, InputError
from unspool.evaluation import _io
from unspool.evaluation.cost import Cost
from unspool.evaluation.fit import Fitter
from unspool.evaluation.spec import LengthLevel, Request, Sample, Source, TaskSpec
from unspool.evaluation.tasks.base import Task

SAMPLES = "samples.jsonl"
DEFAULT_SAMPLES = 25
"""Samples a level where they are generated and no limit is given."""

Progress = Callable[[str, int | float, int | float | None], None]
"""Called with stage, how much is done, and of how much if that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What decides the requests of a run, besides the model."""

    lengths: tuple[str, ...] = ()
    """As typed: `8k`, `2000`. Empty: each task's own levels."""
    limit: int | None = None
    """Most samples a task and level. None: all of a release, 25 where they are generated."""
    depths: tuple[float, ...] = ()
    """Depths to use in place of the tasks' own; tasks that have none are left alone."""
    seed: int = 0
    keep: str | None = None
    """`head`, `tail` or `ends`: what is kept of prompts that are too long. None: the tasks' own
    policies."""
    chat: str = "auto"
    temperature: float = 0.0
    repeats: int = 1
    """Answers a sample; more than one needs a temperature."""
    data: str | None = None
    """The original release: a folder, zip or file, or `hub`."""
    texts: str | None = None
    """A file or folder of texts that generators build from."""

    def __post_init__(self) -> None:
        for name, least in (("limit", 1), ("repeats", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} must be >= {least}, got {value}.")
        if self.keep not in (None, "head", "tail", "ends"):
            raise ConfigError(f"keep must be head, tail or ends, got {self.keep!r}.")
        if self.chat not in ("auto", "never", "always"):
            raise ConfigError(f"chat must be auto, never or always, got {self.chat!r}.")
        if self.repeats > 1 and not self.temperature:
            raise ConfigError(
                f"repeats is {self.repeats} and temperature 0: every repeat would be the same. "
                f"Set a temperature."
            )
        if not all(0 <= depth <= 1 for depth in self.depths):
            raise ConfigError(f"Depths are shares from 0 to 1, got {list(self.depths)}.")

    def source(self) -> Source:
        if self.data is not None:
            return Source(kind="release", path=self.data)
        return Source(kind="generate", path=self.texts)


@dataclass(frozen=True, slots=True)
class Item:
    """One request of a plan."""

    task: str
    level: str
    sample: str
    repeat: int
    digest: str
    prompt_tokens: int | None
    reserve: int
    truncated: int
    sends: int
    """Times that the prompt is sent: an endpoint takes one request a continuation."""
    shared: int
    """Tokens that its prompt has in common with the beginning of the one planned before it."""
    offset: int
    """Of the sample's line in `samples.jsonl`."""

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.task, self.level, self.sample, self.digest


def levels_of(spec: TaskSpec, lengths: Sequence[str]) -> list[LengthLevel | None]:
    """The levels that a run asks of a task, each once; None is its natural lengths."""
    if lengths:
        return list(dict.fromkeys(LengthLevel.parse(text, spec.unit) for text in lengths))
    return list(spec.levels) or [None]


def adjusted(tasks: Sequence[Task], settings: RunSettings) -> list[Task]:
    """The tasks with the depths of the settings where they have depths at all."""
    if not settings.depths:
        return list(tasks)
    return [t.with_depths(settings.depths) if t.spec.depths else t for t in tasks]


def draw(
    task: Task, level: LengthLevel | None, settings: RunSettings, fitter: Fitter
) -> Iterator[Sample]:
    """The samples of one task and level, checked for ids that repeat."""
    source = settings.source()
    limit = settings.limit
    if limit is None:
        limit = sys.maxsize if source.kind == "release" else DEFAULT_SAMPLES
        depths = len(task.spec.depths) or 1
        limit = max(limit, depths)
    seen: set[str] = set()
    size = fitter.sizer(task.spec, level)
    for sample in task.samples(level, limit, seed=settings.seed, source=source, size=size):
        if sample.id in seen:
            raise InputError(
                f"{task.spec.name} gives two samples the id {sample.id!r} at level {sample.level}."
            )
        if level is not None and sample.level != level.name:
            raise InputError(
                f"{task.spec.name} gives sample {sample.id!r} the level {sample.level!r} where "
                f"{level.name!r} was asked for."
            )
        seen.add(sample.id)
        yield sample
    if not seen:
        where = f" at level {level.name}" if level else ""
        raise InputError(f"{task.spec.name} has no samples{where}. Check the data or the length.")


def request_for(
    task: Task, sample: Sample, fitter: Fitter, settings: RunSettings, item: Item
) -> Request:
    """The request of a sample, exactly as it was planned."""
    if item.truncated:
        request = fitter.fit(task, sample).request
    else:
        request = fitter.unshortened(task, sample)
    return decoding(request, settings, item.repeat)


def decoding(request: Request, settings: RunSettings, repeat: int) -> Request:
    """The request with the run's temperature; greedy requests have no seed to differ by."""
    if not settings.temperature or request.kind != "generate":
        return request
    return replace(
        request, temperature=settings.temperature, seed=settings.seed + repeat, repeat=repeat
    )


def write_plan(
    file: BinaryIO,
    tasks: Sequence[Task],
    settings: RunSettings,
    fitter: Fitter,
    progress: Progress | None = None,
) -> list[Item]:
    """Write the samples of a run and return its requests in the order of the file."""
    items: list[Item] = []
    done = offset = 0
    beginnings = _Beginnings(fitter)
    for task in tasks:
        for level in levels_of(task.spec, settings.lengths):
            for sample in draw(task, level, settings, fitter):
                record = _planned(task, sample, fitter, settings, beginnings)
                row = _io.line(record)
                file.write(row)
                items += items_of(record, offset)
                offset += len(row)
                done += 1
                if progress is not None:
                    progress("planning", done, None)
    return items


class _Beginnings:
    """How many tokens a prompt shares with the one before it."""

    def __init__(self, fitter: Fitter) -> None:
        self._fitter = fitter
        self._before = ""
        self._known: tuple[str, int] = ("", 0)

    def shared(self, text: str) -> int:
        """Tokens of the common beginning, where it is at least half of the text; else 0."""
        before, self._before = self._before, text
        half = len(text) // 2
        if self._fitter.tokenizer is None or not text or before[:half] != text[:half]:
            return 0
        low, high = half, min(len(before), len(text))
        while low < high:
            middle = (low + high + 1) // 2
            if before[low:middle] == text[low:middle]:
                low = middle
            else:
                high = middle - 1
        if self._known[0] != text[:low]:
            self._known = (text[:low], self._fitter.count(text[:low]))
        return self._known[1]


def _planned(
    task: Task, sample: Sample, fitter: Fitter, settings: RunSettings, beginnings: _Beginnings
) -> dict[str, Any]:
    fitted = fitter.fit(task, sample)
    request = fitted.request
    if request.kind != "generate" and not request.continuations:
        raise InputError(
            f"Sample {sample.id!r} of {task.spec.name} has no continuation to score: a "
            f"{request.kind} task needs references or choices."
        )
    texts = (
        [request.prompt]
        if isinstance(request.prompt, str)
        else [turn["content"] for turn in request.prompt]
    )
    lengths = {
        **sample.lengths,
        "chars": sum(map(len, texts)),
        "words": sum(len(text.split()) for text in texts),
    }
    if fitted.prompt_tokens is not None:
        lengths["tokens"] = fitted.prompt_tokens
    repeats = settings.repeats if request.kind == "generate" else 1
    endpoint = fitter.tokenizer is None or not fitter.counts_for_model
    return {
        "task": task.spec.name,
        "digests": [decoding(request, settings, repeat).digest for repeat in range(repeats)],
        "prompt_tokens": fitted.prompt_tokens,
        "reserve": fitted.reserve,
        "truncated": request.dropped_tokens,
        "sends": max(1, len(request.continuations)) if endpoint else 1,
        "shared": beginnings.shared("\n".join(texts)),
        "sample": replace(sample, lengths=lengths).to_json(),
    }


def items_of(record: dict[str, Any], offset: int) -> list[Item]:
    """The requests of one line of `samples.jsonl`."""
    sample = record["sample"]
    return [
        Item(
            record["task"],
            sample["level"],
            sample["id"],
            repeat,
            digest,
            record["prompt_tokens"],
            record["reserve"],
            record["truncated"],
            record["sends"],
            record["shared"],
            offset,
        )
        for repeat, digest in enumerate(record["digests"])
    ]


def read_plan(path: Path) -> list[Item]:
    """The requests of a plan that was written before."""
    return [item for offset, row in _io.read_lines(path) for item in items_of(row, offset)]


def sample_at(file: BinaryIO, offset: int) -> Sample:
    """The sample whose line begins at an offset."""
    file.seek(offset)
    return Sample.from_json(orjson.loads(file.readline())["sample"])


def planned_cost(items: Sequence[Item], kinds: dict[str, str]) -> dict[tuple[str, str], Cost]:
    """What the requests will cost at most, by task and level."""
    costs: dict[tuple[str, str], Cost] = {}
    for item in items:
        cost = costs.setdefault((item.task, item.level), Cost())
        prompt = None if item.prompt_tokens is None else item.prompt_tokens * item.sends
        output = item.reserve if kinds[item.task] == "generate" else 0
        cost.add(prompt, output, truncated=item.truncated)
        cost.shared_tokens += item.shared
    return costs
