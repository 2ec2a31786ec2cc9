"""Scores and the report of a run folder, made from what is on disk, without a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from unspool.errors import ConfigError, InputError, PathNotFound
from unspool.evaluation import _io
from unspool.evaluation.aggregate import Scored, task_summary
from unspool.evaluation.effective import RULES, threshold_of
from unspool.evaluation.manifest import read_manifest
from unspool.evaluation.plan import SAMPLES, items_of
from unspool.evaluation.spec import LengthLevel, Metric, Response, Sample
from unspool.evaluation.tasks import benchmark_summary
from unspool.evaluation.tasks import task as task_named
from unspool.evaluation.tasks.base import Task

RESPONSES = "responses.jsonl"
SCORES = "scores.jsonl"
REPORT = "report.json"
_FORMAT = 1

Progress = Callable[[str, int | float, int | float | None], None]


@dataclass(frozen=True, slots=True)
class Report:
    """What a run found."""

    data: dict[str, Any]
    """The content of `report.json`."""
    folder: Path

    def to_json(self) -> dict[str, Any]:
        return self.data

    def score(self, task: str, level: str | None = None) -> float:
        """Mean score of a task in percent, over all levels or at one."""
        try:
            found = self.data["tasks"][task]
            return float((found["levels"][level] if level else found["overall"])["mean"])
        except KeyError:
            known = ", ".join(self.data["tasks"])
            where = f" at level {level!r}" if level else ""
            raise ConfigError(
                f"The report has no scores of {task!r}{where}. It has {known}."
            ) from None

    def effective_length(self, task: str, rule: str = "ruler") -> int | None:
        """Effective length of a task by a rule of the report; None if no level passes."""
        for found in self.data["tasks"][task]["effective_length"]:
            if found["rule"] == rule:
                return None if found["length"] is None else int(found["length"])
        raise ConfigError(
            f"The report of {task!r} has no effective length by {rule!r}: it needs at least two "
            f"levels, and the rule among those of the run."
        )


def read_report(folder: Path) -> Report:
    """The report of a run folder."""
    path = folder / REPORT
    if not path.exists():
        read_manifest(folder)  # says it if there is no run at all
        raise PathNotFound(
            f"The run in {folder.name} has no {REPORT} yet. Finish it with the command that began "
            f"it, or score what there is: unspool evaluate score {folder.name}"
        )
    return Report(orjson.loads(path.read_bytes()), folder)


def score_one(metric: Metric, sample: Sample, response: Response) -> dict[str, float]:
    """The metric's numbers of one answer, checked."""
    found = metric.score(sample, response)
    main = found.get("score")
    if main is None or not math.isfinite(main):
        raise ConfigError(
            f"The metric {metric.id} gave the score {main!r} to sample {sample.id}; a score is a "
            f"finite number."
        )
    return found


def answers(folder: Path) -> dict[tuple[str, str, str, str], Response]:
    """Answers by (task, level, sample, request); of one that is there twice the first counts."""
    found: dict[tuple[str, str, str, str], Response] = {}
    path = folder / RESPONSES
    if path.exists():
        for _, row in _io.read_lines(path):
            key = (row["task"], row["level"], row["sample"], row["request"])
            found.setdefault(key, Response.from_json(row["response"]))
    return found


def joined(folder: Path) -> Iterator[tuple[dict[str, Any], Sample, int, Response | None]]:
    """Every planned request, in order: its line of the plan, sample, repeat, and answer if any."""
    got = answers(folder)
    for offset, record in _io.read_lines(folder / SAMPLES):
        sample = Sample.from_json(record["sample"])
        for item in items_of(record, offset):
            yield record, sample, item.repeat, got.get(item.key)


def _registered(name: str, folder: Path) -> Task:
    try:
        return task_named(name)
    except ConfigError as error:
        raise ConfigError(
            f"The run in {folder.name} has a task {name!r} that was made in Python and has no name "
            f"here. Score it there: score_folder(folder, [task])."
        ) from error


def score_folder(
    folder: Path,
    tasks: Sequence[Task] = (),
    *,
    rules: Sequence[str] = RULES,
    monotone: bool = True,
    progress: Progress | None = None,
) -> Report:
    """Score what a run folder holds, and write `scores.jsonl` and `report.json`.

    Args:
        folder: A run folder, finished or not.
        tasks: Tasks that are not in the registry; others are found by name.
        rules: Of effective length.
        monotone: See `effective_length`.
        progress: Called with stage, how much is done, of how much.
    """
    for rule in rules:
        threshold_of(rule)
    manifest = read_manifest(folder)
    by_name = {task.spec.name: task for task in tasks}
    for name in manifest["tasks"]:
        if name not in by_name:
            by_name[name] = _registered(name, folder)
    rows: list[Scored] = []
    planned = 0
    for record, sample, repeat, response in joined(folder):
        planned += 1
        if response is None:
            continue
        metric = by_name[record["task"]].metric
        rows.append(
            Scored(
                record["task"],
                sample.level,
                sample.id,
                repeat,
                sample.depth,
                score_one(metric, sample, response),
                response.truncated_tokens,
                response.prompt_tokens,
                response.completion_tokens,
                response.finish_reason,
            )
        )
        if progress is not None:
            progress("scoring", planned, None)
    if not rows:
        raise InputError(f"The run in {folder.name} has no answers yet, so there is no score.")
    _io.write_atomic(folder / SCORES, (_io.line(row.to_json()) for row in rows))
    data = _report(manifest, by_name, rows, planned, rules, monotone)
    _io.write_atomic(folder / REPORT, [_io.canonical(data)])
    return Report(orjson.loads(_io.canonical(data)), folder)


def _report(
    manifest: dict[str, Any],
    tasks: dict[str, Task],
    rows: Sequence[Scored],
    planned: int,
    rules: Sequence[str],
    monotone: bool,
) -> dict[str, Any]:
    seed = int(manifest["settings"]["seed"])
    found: dict[str, Any] = {}
    for name, spec in manifest["tasks"].items():
        mine = [row for row in rows if row.task == name]
        if not mine:
            continue  # a missing cell stays missing
        levels = [LengthLevel.from_json(each) if each else None for each in spec["levels"]]
        found[name] = {
            **{key: spec[key] for key in _FACTS},
            "levels_unit": levels[0].unit if levels and levels[0] else None,
            **task_summary(mine, tasks[name].metric, levels, rules, monotone=monotone, seed=seed),
        }
    return {
        "format": _FORMAT,
        "model": manifest["model"],
        "settings": manifest["settings"],
        "packages": manifest["packages"],
        "planned": planned,
        "answered": len(rows),
        "missing": planned - len(rows),
        "benchmarks": _benchmarks(found),
        "tasks": found,
    }


_FACTS = (
    "ability",
    "chat",
    "data_source",
    "kind",
    "language",
    "licence",
    "max_new_tokens",
    "metric",
    "prompt_fingerprint",
    "prompt_source",
    "version",
    "wrapped",
)


def _benchmarks(tasks: dict[str, Any]) -> dict[str, Any]:
    """The plain mean over the tasks of each benchmark, and what its release prints over them."""
    groups: dict[str, dict[str, Any]] = {}
    for name, found in tasks.items():
        benchmark, _, short = name.partition("/")
        groups.setdefault(benchmark, {})[short] = found
    return {
        benchmark: {
            "tasks": len(group),
            "mean": round(sum(each["overall"]["mean"] for each in group.values()) / len(group), 6),
            "official": benchmark_summary(benchmark, group),
        }
        for benchmark, group in groups.items()
    }
