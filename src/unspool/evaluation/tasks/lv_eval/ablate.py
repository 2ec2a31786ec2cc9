"""What each device of LV-Eval does to a score, on the same questions.

What: the twin is asked with all devices and with each left off; questions, lengths and depths are
the same, so differences are paired.
Source: Yuan et al. (2024), arXiv 2402.05136, section 4.3.
Differs from the paper: the twin's facts in place of the annotated ones.
Cost: one run of the questions for each device and one with all; `keywords` needs no run of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from unspool.evaluation.spec import LengthLevel, Response
from unspool.evaluation.tasks.lv_eval import known
from unspool.evaluation.tasks.lv_eval.task import TwinTask
from unspool.types import LanguageModel, Overflow


@dataclass(frozen=True, slots=True)
class Ablation:
    """Mean scores in 0-1 over the same questions."""

    full: float
    """With every device."""
    without: dict[str, float]
    """With one left off."""
    items: int


def ablate(
    model: LanguageModel,
    task: TwinTask,
    level: LengthLevel,
    *,
    n: int = 20,
    without: Sequence[str] = known.DEVICES,
    seed: int = 0,
    on_overflow: Overflow = "error",
) -> Ablation:
    """Ask a twin with and without each device.

    Args:
        model: Anything that writes.
        task: `twin("mixup")` or `twin("factrecall")`.
        level: In words or characters.
        n: Questions.
        without: Devices to leave off, one at a time.
        seed: Of the questions.
        on_overflow: What becomes of a prompt that is longer than the model's window.
    """
    full = _score(model, task, level, n, seed, on_overflow)
    found: dict[str, float] = {
        device: _score(model, replace(task, without=(device,)), level, n, seed, on_overflow)
        for device in without
    }
    return Ablation(full, found, n)


def _score(
    model: LanguageModel,
    task: TwinTask,
    level: LengthLevel,
    n: int,
    seed: int,
    on_overflow: Overflow,
) -> float:
    total = 0.0
    for sample in task.samples(level, n, seed=seed):
        request = task.build(sample)
        (said,) = model.generate(
            [request.prompt], max_tokens=request.max_new_tokens, on_overflow=on_overflow
        )
        total += task.metric.score(sample, Response(text=said.text))["score"]
    return total / n
