"""LongBench-E: 13 data sets of LongBench with items spread over three lengths."""

from unspool.evaluation.tasks.longbench import EVEN_TASKS as TASKS

__all__ = ["TASKS"]
