"""BooookScore: how coherent a summary is, sentence by sentence, without a reference.

Chang et al. (2023), arXiv 2310.00785. Judge, released annotations, planted errors; the two ways to
summarise are `unspool.reading.summarize`.
"""

from __future__ import annotations

from unspool.evaluation.tasks.booookscore.calibrate import Calibration, calibrate
from unspool.evaluation.tasks.booookscore.judge import (
    Annotation,
    Coherence,
    read_batch,
    read_one,
    score,
    sentences_of,
)
from unspool.evaluation.tasks.booookscore.plant import Planted, plant
from unspool.evaluation.tasks.booookscore.released import Book, score_annotations
from unspool.evaluation.tasks.booookscore.task import TASKS
from unspool.evaluation.tasks.booookscore.wording import TYPES

__all__ = [
    "TASKS",
    "TYPES",
    "Annotation",
    "Book",
    "Calibration",
    "Coherence",
    "Planted",
    "calibrate",
    "plant",
    "read_batch",
    "read_one",
    "score",
    "score_annotations",
    "sentences_of",
]
