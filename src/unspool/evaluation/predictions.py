"""Scoring without a model: files of predictions, of the original releases or of our own form.

Our own form is what `make` writes with one field more: each line has `sample` and `prediction` (a
text) or `response` (a whole `Response`). Everything else is read by the task.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from unspool.errors import InputError, PathNotFound
from unspool.evaluation.aggregate import Scored, task_summary
from unspool.evaluation.effective import RULES
from unspool.evaluation.report import score_one
from unspool.evaluation.spec import LengthLevel, Prediction, Response, Sample
from unspool.evaluation.tasks.base import Task


def score_predictions(
    task: Task, path: Path, *, rules: Sequence[str] = RULES, monotone: bool = True, seed: int = 0
) -> dict[str, Any]:
    """The numbers of a file of predictions.

    Args:
        task: What was predicted.
        path: A file of the original release of the task, or of our own form.
        rules: Of effective length, where the file has several levels.
        monotone: See `effective_length`.
        seed: Of intervals.

    Raises:
        PathNotFound: There is no such file.
        InputError: It is empty, or a line is not a prediction; the message names it.
    """
    rows = [
        Scored(
            task.spec.name,
            prediction.sample.level,
            prediction.sample.id,
            0,
            prediction.sample.depth,
            score_one(task.metric, prediction.sample, prediction.response),
            prediction.response.truncated_tokens,
            prediction.response.prompt_tokens,
            prediction.response.completion_tokens,
            prediction.response.finish_reason,
        )
        for prediction in read(task, path)
    ]
    if not rows:
        raise InputError(f"{path.name} holds no predictions, so there is nothing to score.")
    levels = [_level(task, name) for name in dict.fromkeys(row.level for row in rows)]
    found = task_summary(rows, task.metric, levels, rules, monotone=monotone, seed=seed)
    return {
        "task": task.spec.name,
        "predictions": len(rows),
        "metric": task.metric.id,
        **found,
    }


def read(task: Task, path: Path) -> Iterator[Prediction]:
    """The predictions of a file, whichever form it has."""
    if not path.exists():
        raise PathNotFound(f"There is no file of predictions at {path}.")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{path.name} is empty: it holds no predictions, so there is no score.")
    return _own(path) if path.is_file() and _is_own(path) else task.read_predictions(path)


def _is_own(path: Path) -> bool:
    with path.open("rb") as file:
        first = next((line for line in file if line.strip()), b"")
    try:
        row = orjson.loads(first)
    except orjson.JSONDecodeError:
        return False
    return isinstance(row, dict) and isinstance(row.get("sample"), dict)


def _own(path: Path) -> Iterator[Prediction]:
    seen: set[tuple[str, str]] = set()
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = orjson.loads(line)
                sample = Sample.from_json(row["sample"])
                response = (
                    Response.from_json(row["response"])
                    if "response" in row
                    else Response(text=_text(row))
                )
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"Line {number} of {path.name} is not a prediction: {error}. It needs a "
                    f"sample, as 'unspool evaluate make' writes it, and a text under prediction."
                ) from error
            key = (sample.level, sample.id)
            if key in seen:
                raise InputError(
                    f"Line {number} of {path.name} predicts sample {sample.id!r} of level "
                    f"{sample.level} a second time."
                )
            seen.add(key)
            yield Prediction(sample, response)


def _text(row: dict[str, Any]) -> str:
    text = row["prediction"]
    if not isinstance(text, str):
        raise TypeError(f"prediction is {type(text).__name__}, not a text")
    return text


def _level(task: Task, name: str) -> LengthLevel | None:
    """The level of a name where it says a length, for effective lengths."""
    for level in task.spec.levels:
        if level.name == name:
            return level
    try:
        return LengthLevel.parse(name, task.spec.unit)
    except ValueError:
        return None
