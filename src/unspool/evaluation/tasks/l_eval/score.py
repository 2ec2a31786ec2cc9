"""Scores of a prediction file, and which sub-task it belongs to.

Source: `auto_eval.py` of the release, which looks for names of sub-tasks in the file's path.
Differs from the released code: only the file's own name is searched.
Cost: that of the metrics.
"""

from __future__ import annotations

from pathlib import Path

from unspool.errors import ConfigError, InputError
from unspool.evaluation.tasks._release import prediction_lines
from unspool.evaluation.tasks.l_eval.facts import SUPPORTED, TASKS
from unspool.evaluation.tasks.l_eval.metric import LEvalMetric
from unspool.evaluation.tasks.l_eval.task import LEvalTask, make_task

_MARKS = (
    ("coursera", "coursera"),
    ("quality", "quality"),
    ("tpo", "tpo"),
    ("gsm", "gsm100"),
    ("codeU", "codeU"),
    ("topic_retrieval_longchat", "topic_retrieval_longchat"),
    ("sci_fi", "sci_fi"),
)
"""Parts of a name that say how it is scored, in the order in which they are looked for."""


def task_of(path: str | Path) -> LEvalTask:
    """The sub-task that a prediction file is of, by its name, else by what its lines say.

    Raises:
        InputError: Neither says it.
    """
    file = Path(path)
    for mark, name in _MARKS:
        if mark in file.name:
            return make_task(name)
    name = file.name.split(".")[0]
    if name in TASKS:
        return make_task(name)
    for _, record in prediction_lines(file):
        kind = record.get("evaluation")
        if kind in SUPPORTED and kind != "exam":
            return make_task("financial_qa" if kind == "f1" else "gov_report_summ")
    raise InputError(
        f"{file.name} names no sub-task of L-Eval, and its lines do not say how they are scored. "
        f"Name one of {', '.join(TASKS)}."
    )


def score_file(path: str | Path, task: str | None = None) -> dict[str, float]:
    """The numbers that the release prints for a prediction file.

    Args:
        path: JSON lines with query, gt, MODEL_pred and evaluation.
        task: Its sub-task; by default `task_of`.

    Raises:
        ConfigError: There is no such sub-task.
        InputError: A line is not a prediction, or no line can be scored by a program.
    """
    if task is not None and task not in TASKS:
        raise ConfigError(f"L-Eval has no sub-task {task!r}. It has {', '.join(TASKS)}.")
    chosen = make_task(task) if task is not None else task_of(path)
    metric = LEvalMetric.of(chosen.sub_tasks[0])
    scores = [metric.score(p.sample, p.response) for p in chosen.read_predictions(Path(path))]
    if not scores:
        raise InputError(
            f"No line of {Path(path).name} can be scored by a program; compare it with another "
            f"model's file before a judge."
        )
    return metric.aggregate(scores)
