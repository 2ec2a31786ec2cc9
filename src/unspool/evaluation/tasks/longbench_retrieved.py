"""LongBench's question answering on the best chunks of each text."""

from unspool.evaluation.tasks.longbench import RETRIEVED_TASKS as TASKS

__all__ = ["TASKS"]
