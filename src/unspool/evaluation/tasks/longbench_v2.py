"""LongBench v2: 503 questions with four choices."""

from unspool.evaluation.tasks.longbench import V2_TASKS as TASKS

__all__ = ["TASKS"]
