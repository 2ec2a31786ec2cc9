"""LongICLBench: classification with many labels, learnt from demonstrations in the prompt.

Li et al. (2024), arXiv 2404.02060. The six data sets and their prediction files, demonstrations for
any labelled data, the released metrics, and the study of positions.
"""

from __future__ import annotations

from unspool.evaluation.tasks.long_icl.build import Demonstrations, build
from unspool.evaluation.tasks.long_icl.positions import PositionReport, nearest, position_report
from unspool.evaluation.tasks.long_icl.score import (
    Icl,
    entity_counts,
    micro,
    relation_counts,
    said_entities,
    said_label,
    said_relations,
)
from unspool.evaluation.tasks.long_icl.select import (
    at_most_each,
    by_rounds,
    by_scan,
    first_labels,
    merge_dialogues,
)
from unspool.evaluation.tasks.long_icl.sources import Labelled, labelled, modules
from unspool.evaluation.tasks.long_icl.task import TASKS, labelled_task

__all__ = [
    "TASKS",
    "Demonstrations",
    "Icl",
    "Labelled",
    "PositionReport",
    "at_most_each",
    "build",
    "by_rounds",
    "by_scan",
    "entity_counts",
    "first_labels",
    "labelled",
    "labelled_task",
    "merge_dialogues",
    "micro",
    "modules",
    "nearest",
    "position_report",
    "relation_counts",
    "said_entities",
    "said_label",
    "said_relations",
]
