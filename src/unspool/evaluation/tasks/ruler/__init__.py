"""RULER's thirteen tasks in words of our own: needles, tracking, counting, questions.

Source: Hsieh et al. (2024), "RULER: What's the Real Context Size of Your Long-Context Language
Models?", arXiv 2404.06654. Effective length by rule `ruler`: 85.6 points.
Differs from the release: see each module; numbers compare with each other, not with published ones.
"""

from __future__ import annotations

from unspool.evaluation.spec import TaskSpec, fingerprint
from unspool.evaluation.tasks._grown import LEVELS, Grown
from unspool.evaluation.tasks.base import Task
from unspool.evaluation.tasks.ruler.aggregate import (
    CWE,
    FWE,
    VT,
    CommonWords,
    FrequentWords,
    Tracking,
)
from unspool.evaluation.tasks.ruler.metric import StringMatch
from unspool.evaluation.tasks.ruler.needles import ANSWER, NEEDLE, NOISE, PREFIX, QUERY, Needles
from unspool.evaluation.tasks.ruler.questions import BORN, QA, RIVER, TRADE, Questions

_WORDING = (*NOISE, PREFIX, NEEDLE, QUERY, ANSWER, *VT, *CWE, *FWE, *QA, BORN, TRADE, RIVER)
_ALL, _ANY = StringMatch(), StringMatch(any_of=True)
_DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


def _spec(
    name: str, ability: str, tokens: int, metric: StringMatch, depths: tuple[float, ...] = ()
) -> TaskSpec:
    return TaskSpec(
        name=f"ruler/{name}",
        ability=ability,
        max_new_tokens=tokens,
        levels=LEVELS,
        depths=depths,
        metric=metric.id,
        prompt_fingerprint=fingerprint(*_WORDING),
    )


def _needles(name: str) -> TaskSpec:
    return _spec(name, "retrieval", 128, _ALL, _DEPTHS if "single" in name else ())


_TASKS: tuple[Grown, ...] = (
    Needles(spec=_needles("niah_single_1"), metric=_ALL, haystack="noise"),
    Needles(spec=_needles("niah_single_2"), metric=_ALL, haystack="prose"),
    Needles(spec=_needles("niah_single_3"), metric=_ALL, haystack="prose", value_content="uuids"),
    Needles(spec=_needles("niah_multikey_1"), metric=_ALL, haystack="prose", others=3),
    Needles(spec=_needles("niah_multikey_2"), metric=_ALL, haystack="needles"),
    Needles(
        spec=_needles("niah_multikey_3"),
        metric=_ALL,
        haystack="needles",
        key_content="uuids",
        value_content="uuids",
    ),
    Needles(spec=_needles("niah_multivalue"), metric=_ALL, haystack="prose", values=4),
    Needles(spec=_needles("niah_multiquery"), metric=_ALL, haystack="prose", queries=4),
    Tracking(spec=_spec("vt", "tracing", 30, _ALL), metric=_ALL),
    CommonWords(spec=_spec("cwe", "aggregation", 120, _ALL), metric=_ALL),
    FrequentWords(spec=_spec("fwe", "aggregation", 50, _ALL), metric=_ALL),
    Questions(spec=_spec("qa_1", "question answering", 32, _ANY), metric=_ANY),
    Questions(spec=_spec("qa_2", "question answering", 32, _ANY), metric=_ANY, hops=2),
)
TASKS: dict[str, Task] = {task.spec.name.partition("/")[2]: task for task in _TASKS}

__all__ = [
    "TASKS",
    "CommonWords",
    "FrequentWords",
    "Needles",
    "Questions",
    "StringMatch",
    "Tracking",
]
