"""Scores of prediction files by bucket, and the normalised score of the paper's table.

What: s / (s + r) for a score s and the reference model's score r of the same task at 1k; the mean
over tasks of a bucket, then over the five buckets of the paper.
Source: `evaluation.py` of the release; Kwan et al. (2023), section 4.3. That r is the score at 1k
is inferred: the reference model has exactly 0.50 there in the published table.
Cost: that of the metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from unspool.errors import ConfigError, InputError
from unspool.evaluation.tasks.m4le.facts import BUCKETS, CONFIGS, config_of
from unspool.evaluation.tasks.m4le.metric import M4LEMetric
from unspool.evaluation.tasks.m4le.task import make_task


class FileScore(NamedTuple):
    """What a prediction file reaches."""

    buckets: Mapping[int, float]
    """Score in 0-1 by length."""
    coverage: float
    """Share of lines that hold an answer; the others count nowhere, as in the release."""


class Headline(NamedTuple):
    """The numbers of the paper's table."""

    buckets: Mapping[int, float]
    """Mean normalised score over tasks."""
    average: float
    """Mean over the buckets."""


def score_file(path: str | Path, config: str | None = None) -> FileScore:
    """The scores of a prediction file of the release.

    Args:
        path: JSON lines: records with `gen_resp`.
        config: Its configuration, by either name; by default the file's name.

    Raises:
        ConfigError: There is no such configuration.
        InputError: A line is no record with answers and a bucket.
    """
    file = Path(path)
    asked = config if config is not None else file.name.removesuffix(".jsonl")
    name = config_of(asked)
    if name is None:
        raise ConfigError(f"M4LE has no configuration {asked!r}. It has {', '.join(CONFIGS)}.")
    metric = M4LEMetric.of(name)
    found = metric.aggregate(
        [metric.score(p.sample, p.response) for p in make_task(name).read_predictions(file)]
    )
    buckets = {int(key): value for key, value in found.items() if key.isdigit()}
    return FileScore(buckets, found["coverage"])


def normalised(score: float, reference: float) -> float:
    """s / (s + r); 0 if both are 0."""
    return score / (score + reference) if score + reference else 0.0


def headline(scores: Mapping[str, Mapping[int, float]], reference: Mapping[str, float]) -> Headline:
    """Normalised means from the scores of tasks by bucket.

    Args:
        scores: Configuration to bucket to score.
        reference: Configuration to the reference model's score at the first bucket.

    Raises:
        InputError: A task has no reference score, or no task has a bucket of the paper.
    """
    lacking = sorted(set(scores) - set(reference))
    if lacking:
        raise InputError(f"There is no reference score of {', '.join(lacking)}.")
    buckets: dict[int, float] = {}
    for bucket in BUCKETS:
        values = [
            normalised(by[bucket], reference[name]) for name, by in scores.items() if bucket in by
        ]
        if values:
            buckets[bucket] = sum(values) / len(values)
    if not buckets:
        raise InputError(f"No task has a score at {', '.join(map(str, BUCKETS))}.")
    return Headline(buckets, sum(buckets.values()) / len(buckets))
