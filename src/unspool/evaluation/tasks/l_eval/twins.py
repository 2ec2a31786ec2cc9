"""Generated relatives of two kinds of L-Eval tasks, made of any text.

What: `topic_retrieval` is a record of a conversation over many topics and asks for the first,
second or third; `summary` gives a text and asks for a summary of a stated length, its reference
being the first sentences of its paragraphs, of every second, third ... one where they are many, so
that the reference fits the answer. Metrics are those of the release.
Source: An et al. (2023), sections 3.1 (topic retrieval, after LongChat) and 4.1 (lengths).
Differs from the data: topics are titles of documents with pieces of their text; references of
`summary` are extracted, so ROUGE says how much of the lead sentences an answer holds and no more.
Cost: a few measurements of the prompt a sample.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from unspool.errors import InputError
from unspool.evaluation.spec import (
    LengthLevel,
    Parts,
    Request,
    Room,
    Sample,
    Sizer,
    Source,
    TaskSpec,
    fingerprint,
)
from unspool.evaluation.tasks._fit import Fitter
from unspool.evaluation.tasks._passages import paragraphs
from unspool.evaluation.tasks._texts import texts
from unspool.evaluation.tasks.base import GENERATED, NO_ROOM, Task
from unspool.evaluation.tasks.l_eval.facts import MAX_NEW_TOKENS
from unspool.evaluation.tasks.l_eval.metric import LEvalMetric
from unspool.evaluation.tasks.l_eval.prompts import TEXTS, around, system

LEVELS = tuple(LengthLevel("tokens", n) for n in (1024, 2048, 4096, 8192))
_ORDINALS = ("first", "second", "third")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_NATURAL = 8
_LONGEST_LEAD, _LONGEST_REFERENCE = 80, 256
"""Words of a first sentence, and of a reference: what a release's limit of new tokens holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicTask(Task):
    """A conversation over many topics; the answer is the name of an early one."""

    def samples(
        self,
        level: LengthLevel | None,
        n: int,
        *,
        seed: int = 0,
        source: Source = GENERATED,
        size: Sizer = len,
    ) -> Iterator[Sample]:
        """See `Task.samples`; documents of `source.path` are the topics, by id."""
        name = level.name if level else "all"
        pool = [
            (document.id, found[0])
            for document in texts(source)
            if (found := paragraphs([document], fewest=20, most=120))
        ]
        for i in range(n):
            draw = random.Random(f"{seed}:{self.spec.name}:{name}:{i}")
            order = draw.sample(pool, len(pool))
            question = (
                f"What is the {_ORDINALS[i % 3]} topic we discussed? Give the name of the topic "
                "alone."
            )
            before, after = around("topic_retrieval_longchat", question, None)

            def text(
                k: int,
                order: list[tuple[str, str]] = order,
                before: str = before,
                after: str = after,
            ) -> str:
                return before + _conversation(order[:k]) + after

            k = _most(text, len(order), level, size)
            yield Sample(
                id=f"{name}-{i}",
                parts=Parts(before, _conversation(order[:k]), after),
                references=(order[i % 3][0],),
                level=name,
                seed=seed,
                meta={"index": i},
            )

    def build(self, sample: Sample, room: Room = NO_ROOM) -> Request:
        """The default request with the system sentence of the sub-task."""
        request = Task.build(self, sample, room)
        return replace(request, system=system("topic_retrieval_longchat"))


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryTask(Task):
    """A text of several paragraphs; the reference is their first sentences."""

    length_instruction: bool = True

    def samples(
        self,
        level: LengthLevel | None,
        n: int,
        *,
        seed: int = 0,
        source: Source = GENERATED,
        size: Sizer = len,
    ) -> Iterator[Sample]:
        """See `Task.samples`; `source.path` holds texts."""
        name = level.name if level else "all"
        pool = [p for p in paragraphs(texts(source)) if len(_lead(p).split()) <= _LONGEST_LEAD]
        if len(pool) < 3:
            raise InputError(
                f"The texts hold {len(pool)} paragraphs that begin with a sentence of at most "
                f"{_LONGEST_LEAD} words; a summary needs 3."
            )
        for i in range(n):
            draw = random.Random(f"{seed}:{self.spec.name}:{name}:{i}")
            start = draw.randrange(len(pool))
            order = pool[start:] + pool[:start]  # neighbours, so that it reads as one text

            def text(k: int, order: list[str] = order) -> str:
                before, after = self._around(order[:k])
                return before + "\n\n".join(order[:k]) + after

            k = _most(text, len(order), level, size)
            before, after = self._around(order[:k])
            yield Sample(
                id=f"{name}-{i}",
                parts=Parts(before, "\n\n".join(order[:k]), after),
                references=(_leads(order[:k]),),
                level=name,
                seed=seed,
            )

    def _around(self, shown: list[str]) -> tuple[str, str]:
        words = len(_leads(shown).split()) if self.length_instruction else None
        return around("gov_report_summ", "Summarise the document.", words)

    def build(self, sample: Sample, room: Room = NO_ROOM) -> Request:
        """The default request with the system sentence of open tasks."""
        return replace(Task.build(self, sample, room), system=system("gov_report_summ"))

    def without_length_instruction(self) -> SummaryTask:
        """The same task, the model not being told how long to answer."""
        return replace(self, length_instruction=False)


def _conversation(topics: list[tuple[str, str]]) -> str:
    return "\n\n".join(
        f"USER: I would like to discuss the topic of {title}.\nASSISTANT: {text}"
        for title, text in topics
    )


def _lead(paragraph: str) -> str:
    return str(_SENTENCE_END.split(paragraph)[0])


def _leads(shown: list[str]) -> str:
    """First sentences of paragraphs, evenly, as many as fit the longest reference."""
    leads = [_lead(text) for text in shown]
    step = 1
    while sum(len(lead.split()) for lead in leads[::step]) > _LONGEST_REFERENCE:
        step += 1
    return " ".join(leads[::step])


def _most(render: Callable[[int], str], high: int, level: LengthLevel | None, size: Sizer) -> int:
    """Most topics or paragraphs, 3 or more, that fit the level."""
    if high < 3:
        raise InputError(f"The texts hold {high} topics; three are needed.")
    if level is None:
        return min(_NATURAL, high)
    found = Fitter(level.upper, low=3, most=high)(lambda k: size(render(k)))
    if found < 3:
        raise InputError(f"Three topics or paragraphs do not fit {level.upper} {level.unit}.")
    if found == high:
        raise InputError(
            f"The texts hold {high} topics or paragraphs, which do not fill this level. Give more "
            f"text, or choose a shorter length."
        )
    return found


def _spec(name: str, ability: str, metric: LEvalMetric, new_tokens: int) -> TaskSpec:
    return TaskSpec(
        name=f"l-eval-twin/{name}",
        ability=ability,
        max_new_tokens=new_tokens,
        levels=LEVELS,
        metric=metric.id,
        data_source="generated: a relative, not the data set",
        prompt_fingerprint=fingerprint(*TEXTS),
    )


_TOPIC = LEvalMetric.of("topic_retrieval_longchat")
_SUMMARY = LEvalMetric.of("gov_report_summ")
TWIN_TASKS: dict[str, Task] = {
    "topic_retrieval": TopicTask(
        spec=_spec("topic_retrieval", "closed", _TOPIC, 64), metric=_TOPIC
    ),
    "summary": SummaryTask(
        spec=replace(_spec("summary", "open", _SUMMARY, MAX_NEW_TOKENS), version=2),
        metric=_SUMMARY,
    ),
}
