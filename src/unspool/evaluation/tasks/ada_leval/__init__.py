"""Ada-LEval: put text segments in order, and pick the accepted answer, at any length.

Wang et al. (2024), arXiv 2404.06480. Generators over any texts or question threads, the released
items and tables, the released scoring rules and strict ones, and the random baseline.
"""

from __future__ import annotations

from unspool.evaluation.tasks.ada_leval.baseline import Chance, chance, choices_by_position
from unspool.evaluation.tasks.ada_leval.bestanswer import Thread, make_bestanswer
from unspool.evaluation.tasks.ada_leval.likelihood import Ranked, rank_orders
from unspool.evaluation.tasks.ada_leval.score import (
    judge_bestanswer,
    judge_tsort,
    score_bestanswer,
    score_tsort,
)
from unspool.evaluation.tasks.ada_leval.sources import read_threads, standard_library
from unspool.evaluation.tasks.ada_leval.task import TASKS
from unspool.evaluation.tasks.ada_leval.tsort import make_tsort

__all__ = [
    "TASKS",
    "Chance",
    "Ranked",
    "Thread",
    "chance",
    "choices_by_position",
    "judge_bestanswer",
    "judge_tsort",
    "make_bestanswer",
    "make_tsort",
    "rank_orders",
    "read_threads",
    "score_bestanswer",
    "score_tsort",
    "standard_library",
]
