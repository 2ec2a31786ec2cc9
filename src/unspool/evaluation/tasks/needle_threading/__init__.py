"""Needle threading: lookups and pointer chasing in a haystack of random UUIDs.

Roberts et al. (2024), arXiv 2411.05000. Six tasks, their generator, the readers of the published
rows, the scoring rules, and the effective length contour.
"""

from __future__ import annotations

from unspool.evaluation.tasks.base import Task
from unspool.evaluation.tasks.needle_threading.config import DEPTHS, NeedleConfig
from unspool.evaluation.tasks.needle_threading.contour import (
    Contour,
    effective_length,
    tokenizer_table,
)
from unspool.evaluation.tasks.needle_threading.data import load
from unspool.evaluation.tasks.needle_threading.haystack import (
    NeedleRow,
    build,
    make,
    uuids,
)
from unspool.evaluation.tasks.needle_threading.metric import Found, score_list, score_single
from unspool.evaluation.tasks.needle_threading.solve import solve, verify
from unspool.evaluation.tasks.needle_threading.task import task

TASKS: dict[str, Task] = {
    found.spec.name.partition("/")[2]: found
    for found in (
        task("single_needle"),
        task("single_needle", form="choice"),
        task("multiple_needles", n_needles=5, name="multiple_needles"),
        task(
            "multiple_needles",
            n_needles=5,
            placement="clustered",
            name="multiple_needles_clustered",
        ),
        task("conditional_needles", n_needles=5, name="conditional_needles"),
        task(
            "conditional_needles",
            n_needles=5,
            placement="clustered",
            name="conditional_needles_clustered",
        ),
        task("single_thread", thread_length=5, name="single_thread"),
        task("single_thread", thread_length=5, direction="backward", name="single_thread_backward"),
        task("single_thread", thread_length=5, direction="random", name="single_thread_random"),
        task("single_thread", thread_length=5, form="choice", name="single_thread_choice"),
        task(
            "single_thread",
            thread_length=5,
            direction="backward",
            form="choice",
            name="single_thread_backward_choice",
        ),
        task("multi_thread", thread_length=5, n_threads=3, name="multi_thread"),
        task("branched_thread", thread_length=5, branches=2, name="branched_thread"),
    )
}

__all__ = [
    "DEPTHS",
    "TASKS",
    "Contour",
    "Found",
    "NeedleConfig",
    "NeedleRow",
    "build",
    "effective_length",
    "load",
    "make",
    "score_list",
    "score_single",
    "solve",
    "task",
    "tokenizer_table",
    "uuids",
    "verify",
]
