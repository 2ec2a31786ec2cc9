"""M4LE: 39 configurations of five abilities, and the conversion of any labelled texts into them.

`TASKS` holds the configurations (`m4le/NAME`), `TWIN_TASKS` the abilities over labelled texts
(`m4le-twin/ABILITY`).
"""

from unspool.evaluation.tasks.base import Task
from unspool.evaluation.tasks.m4le.convert import convert
from unspool.evaluation.tasks.m4le.facts import CONFIGS
from unspool.evaluation.tasks.m4le.metric import M4LEMetric
from unspool.evaluation.tasks.m4le.score import (
    FileScore,
    Headline,
    headline,
    normalised,
    score_file,
)
from unspool.evaluation.tasks.m4le.task import M4LETask, make_task
from unspool.evaluation.tasks.m4le.twins import TWIN_TASKS

TASKS: dict[str, Task] = {name: make_task(name) for name in CONFIGS}

__all__ = [
    "TASKS",
    "TWIN_TASKS",
    "FileScore",
    "Headline",
    "M4LEMetric",
    "M4LETask",
    "convert",
    "headline",
    "normalised",
    "score_file",
]
