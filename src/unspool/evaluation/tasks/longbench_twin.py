"""Generated twins of LongBench's synthetic and code tasks, for any text and length."""

from unspool.evaluation.tasks.longbench import TWIN_TASKS as TASKS

__all__ = ["TASKS"]
