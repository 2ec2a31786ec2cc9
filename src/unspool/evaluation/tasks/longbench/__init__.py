"""LongBench: 21 bilingual data sets, scored to the last digit as the release scores them.

`TASKS` holds the data sets (`longbench/NAME`), `EVEN_TASKS` the 13 of LongBench-E
(`longbench-e/NAME`), `RETRIEVED_TASKS` question answering on retrieved contexts
(`longbench-retrieved/NAME`), `TWIN_TASKS` generated ones (`longbench-twin/NAME`), `V2_TASKS`
LongBench v2.
"""

from unspool.evaluation.tasks.base import Task
from unspool.evaluation.tasks.longbench.facts import DATASETS, EVEN
from unspool.evaluation.tasks.longbench.metric import LongBenchMetric
from unspool.evaluation.tasks.longbench.retrieved import RETRIEVED_TASKS
from unspool.evaluation.tasks.longbench.score import Summary, score, score_file, summarise, summary
from unspool.evaluation.tasks.longbench.task import TWINS, LongBenchTask, make_task
from unspool.evaluation.tasks.longbench.twins import TwinTask, make_twin
from unspool.evaluation.tasks.longbench.v2 import V2_TASKS

TASKS: dict[str, Task] = {name: make_task(name) for name in DATASETS}
EVEN_TASKS: dict[str, Task] = {name: make_task(name, even=True) for name in EVEN}
TWIN_TASKS: dict[str, Task] = {name: make_twin(name) for name in TWINS.values()}

__all__ = [
    "EVEN_TASKS",
    "RETRIEVED_TASKS",
    "TASKS",
    "TWIN_TASKS",
    "V2_TASKS",
    "LongBenchMetric",
    "LongBenchTask",
    "Summary",
    "TwinTask",
    "score",
    "score_file",
    "summarise",
    "summary",
]
