"""L-Eval: 20 sub-tasks over long documents, exact match, F1, ROUGE, and answers judged in pairs.

`TASKS` holds the sub-tasks and the judged subsets (`l-eval/NAME`), `TWIN_TASKS` generated relatives
(`l-eval-twin/NAME`).
"""

from unspool.evaluation.tasks.base import Task
from unspool.evaluation.tasks.l_eval import facts
from unspool.evaluation.tasks.l_eval.judging import JudgeReport, Pair, judge, read_pairs
from unspool.evaluation.tasks.l_eval.metric import LEvalMetric, exact_match
from unspool.evaluation.tasks.l_eval.score import score_file, task_of
from unspool.evaluation.tasks.l_eval.task import LEvalTask, make_subset, make_task
from unspool.evaluation.tasks.l_eval.twins import TWIN_TASKS

TASKS: dict[str, Task] = {
    **{name: make_task(name) for name in facts.TASKS},
    **{f"{subset}-subset": make_subset(subset) for subset in facts.SUBSETS},
}

__all__ = [
    "TASKS",
    "TWIN_TASKS",
    "JudgeReport",
    "LEvalMetric",
    "LEvalTask",
    "Pair",
    "exact_match",
    "judge",
    "read_pairs",
    "score_file",
    "task_of",
]
