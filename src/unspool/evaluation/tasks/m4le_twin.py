"""M4LE's five abilities over any labelled texts."""

from unspool.evaluation.tasks.m4le import TWIN_TASKS as TASKS

__all__ = ["TASKS"]
