"""LV-Eval: questions with confusing facts and replaced names at five lengths, and twins of them.

Yuan et al. (2024), arXiv 2402.05136. The released data and prediction files, the two-stage metric,
and the devices (replacement, confusing facts, mixing, the pressure test) for any text.
"""

from __future__ import annotations

from unspool.evaluation.tasks.lv_eval.ablate import Ablation, ablate
from unspool.evaluation.tasks.lv_eval.devices import (
    Fact,
    Mixed,
    Replaced,
    confuse,
    mixup,
    pressure_test,
    replace,
)
from unspool.evaluation.tasks.lv_eval.known import CAPITALS, Question, question
from unspool.evaluation.tasks.lv_eval.score import TwoStage, score, score_dir
from unspool.evaluation.tasks.lv_eval.task import TASKS, twin

__all__ = [
    "CAPITALS",
    "TASKS",
    "Ablation",
    "Fact",
    "Mixed",
    "Question",
    "Replaced",
    "TwoStage",
    "ablate",
    "confuse",
    "mixup",
    "pressure_test",
    "question",
    "replace",
    "score",
    "score_dir",
    "twin",
]
