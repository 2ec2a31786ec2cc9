"""LongBench on retrieved contexts: the best chunks of a text in place of the text.

What: the context is cut into chunks of about 200 units at sentence ends, ranked by BM25 against the
question, and the best 7 are joined, best first. The scorer of this variant keeps every line.
Source: Bai et al. (2023), section 4.3; the folder `retrieval` of the release, setting C200_7.
Differs from the released code: BM25 ranks words and single Chinese characters (there: every
character of a text counts as a word, since strings are given where lists are expected); chunks are
ours, see `passages`. Contriever and embeddings are left out.
Cost: one small index a text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from unspool._optional import require
from unspool.evaluation.tasks.base import Task
from unspool.evaluation.tasks.longbench.metric import LongBenchMetric
from unspool.evaluation.tasks.longbench.passages import chunks, unit_list
from unspool.evaluation.tasks.longbench.task import LongBenchTask, make_task

UNITS, TOP = 200, 7
RETRIEVABLE = (
    "multifieldqa_en", "qasper", "2wikimqa", "dureader", "hotpotqa", "narrativeqa", "musique",
    "multifieldqa_zh",
)  # fmt: skip
"""Data sets that the release runs on retrieved contexts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievedTask(LongBenchTask):
    """A data set whose contexts are shortened by retrieval."""

    units: int = UNITS
    top: int = TOP

    def shown(self, context: str, question: str) -> tuple[str, dict[str, int]]:
        """The best chunks, and how many there were."""
        pieces = chunks(context, self.units)
        kept = ranked(pieces, question)[: self.top]
        return "".join(pieces[i] for i in kept), {"chunks": len(pieces), "chunks_kept": len(kept)}


def ranked(pieces: list[str], question: str) -> list[int]:
    """Indices of texts, the best match for a question first; equal ones in their order."""
    if len(pieces) < 2:
        return list(range(len(pieces)))
    bm25s = require("bm25s", extra="read", purpose="ranking chunks of a text")
    index = bm25s.BM25()
    index.index([unit_list(piece) for piece in pieces], show_progress=False)
    known = index.vocab_dict
    words = [word for word in unit_list(question) if word in known]
    if not words:
        return list(range(len(pieces)))
    scores = index.get_scores(words)
    return sorted(range(len(pieces)), key=lambda i: (-float(scores[i]), i))


def make_retrieved(dataset: str) -> RetrievedTask:
    """The task of a data set on retrieved contexts."""
    task = make_task(dataset)
    metric = LongBenchMetric(dataset=dataset, first_line=False)
    spec = replace(
        task.spec,
        name=f"longbench-retrieved/{dataset}",
        metric=metric.id,
        data_source=f"{task.spec.data_source}; best {TOP} chunks of {UNITS} units by BM25",
    )
    return RetrievedTask(
        spec=spec,
        metric=metric,
        release=task.release,
        dataset=dataset,
        template=task.template,
    )


RETRIEVED_TASKS: dict[str, Task] = {name: make_retrieved(name) for name in RETRIEVABLE}
