"""Generated relatives of L-Eval's topic retrieval and summaries."""

from unspool.evaluation.tasks.l_eval import TWIN_TASKS as TASKS

__all__ = ["TASKS"]
