"""From scores of samples to the numbers of a report: by level, by depth, by cell, with intervals.

A cell without samples is missing; there are no numbers that stand for "nothing". Everything here
depends on texts, scores and token counts only, so a resumed run gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unspool.evaluation.effective import effective_length
from unspool.evaluation.intervals import mean_of
from unspool.evaluation.spec import LengthLevel, Metric


@dataclass(frozen=True, slots=True)
class Scored:
    """One answer with its numbers."""

    task: str
    level: str
    sample: str
    repeat: int
    depth: float | None
    scores: Mapping[str, float]
    truncated: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = "stop"

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "level": self.level,
            "sample": self.sample,
            "repeat": self.repeat,
            "depth": self.depth,
            "scores": dict(self.scores),
            "truncated_tokens": self.truncated,
        }


def summary(rows: Sequence[Scored], metric: Metric, *, seed: int = 0) -> dict[str, Any]:
    """The numbers of one group of answers.

    `mean` and its interval are of the main score in percent; `metric` is what the benchmark's own
    aggregation gives, on its own scale.
    """
    found = mean_of([row.scores["score"] for row in rows], seed=seed).to_json()
    found["metric"] = dict(metric.aggregate([row.scores for row in rows]))
    found["truncated_samples"] = sum(row.truncated > 0 for row in rows)
    found["truncated_tokens"] = sum(row.truncated for row in rows)
    found["prompt_tokens"] = sum(row.prompt_tokens for row in rows)
    found["completion_tokens"] = sum(row.completion_tokens for row in rows)
    found["stopped_by_length"] = sum(row.finish_reason == "length" for row in rows)
    return found


def task_summary(
    rows: Sequence[Scored],
    metric: Metric,
    levels: Sequence[LengthLevel | None],
    rules: Sequence[str],
    *,
    monotone: bool = True,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything a report says of one task.

    Args:
        rows: Its answers.
        metric: Of the task.
        levels: The levels it was run at; None stands for natural lengths.
        rules: Of effective length.
        monotone: See `effective_length`.
        seed: Of intervals.
    """
    by_level = _groups(rows, lambda row: row.level)
    by_depth = _groups([r for r in rows if r.depth is not None], lambda row: row.depth)
    cells = _groups([r for r in rows if r.depth is not None], lambda row: (row.level, row.depth))
    lengths = {level.name: level.nominal for level in levels if level is not None}
    scores = {
        lengths[name]: [row.scores["score"] for row in group]
        for name, group in by_level.items()
        if name in lengths
    }
    return {
        "overall": summary(rows, metric, seed=seed),
        "levels": {
            name: {**summary(group, metric, seed=seed), "length": lengths.get(name)}
            for name, group in by_level.items()
        },
        "depths": [
            {"depth": depth, **mean_of(_main(group), seed=seed).to_json()}
            for depth, group in sorted(by_depth.items())
        ],
        "cells": [
            {"level": level, "depth": depth, **mean_of(_main(group), seed=seed).to_json()}
            for (level, depth), group in sorted(
                cells.items(), key=lambda cell: (lengths.get(cell[0][0], 0), cell[0])
            )
        ],
        "effective_length": [
            effective_length(scores, rule, monotone=monotone, seed=seed).to_json()
            for rule in rules
            if len(scores) > 1
        ],
    }


def _main(rows: Iterable[Scored]) -> list[float]:
    return [row.scores["score"] for row in rows]


def _groups(rows: Sequence[Scored], key: Callable[[Scored], Any]) -> dict[Any, list[Scored]]:
    groups: dict[Any, list[Scored]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups
