"""The three tasks of Giraffe: lines of a record, questions on a text, and altered numbers.

What: `giraffe/lines`, `giraffe/freeform` and `giraffe/altered`, generated at any length.
Source: Pal et al. (2023), "Giraffe", section 4; their data is on the Hugging Face hub only.
Differs from the release: all wording is ours. Without a source, the texts are the language
reference that ships in every Python with one well-known fact put in; with one, they are the user's:
records with `text`, `question` and `answer`, or texts that a fact is put into.
Cost: that of `lines` and `qa`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from unspool.corpus.readers import read_documents
from unspool.errors import InputError
from unspool.evaluation.spec import (
    LengthLevel,
    Sample,
    Sizer,
    Source,
    TaskSpec,
    fingerprint,
)
from unspool.evaluation.tasks.base import GENERATED, Task
from unspool.evaluation.tasks.giraffe import facts, lines, qa
from unspool.evaluation.tasks.giraffe.lines import Lines
from unspool.evaluation.tasks.giraffe.lines import make_lines as make_lines
from unspool.evaluation.tasks.giraffe.numbers import NUMBER
from unspool.evaluation.tasks.giraffe.numbers import alter_number as alter_number
from unspool.evaluation.tasks.giraffe.qa import make_qa as make_qa
from unspool.evaluation.tasks.giraffe.score import Scored
from unspool.evaluation.tasks.giraffe.score import score_first_integer as score_first_integer
from unspool.evaluation.tasks.giraffe.score import score_presence as score_presence

LEVELS = tuple(LengthLevel("tokens", n) for n in (2048, 4096, 8192, 16384))
PLACES: dict[float, qa.AnswerAt] = {0.05: "start", 0.5: "middle", 0.95: "end"}
"""Depths by which the three places of an answer are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions(Task):
    """Questions on texts, three places of the answer by two of the question."""

    altered: bool = False
    """Whether the answer is a number, and every occurrence of it is made another."""

    def samples(
        self,
        level: LengthLevel | None,
        n: int,
        *,
        seed: int = 0,
        source: Source = GENERATED,
        size: Sizer = len,
    ) -> Iterator[Sample]:
        """See `Task.samples`. Sample i has place i mod 3 of the answer; the question stands after
        the text in the first three of six, before it in the others."""
        level = level or self.spec.levels[0]
        depths = self.spec.depths
        given = _records(source.path) if source.path else None
        if given is not None and self.altered:
            given = tuple(item for item in given if NUMBER.fullmatch(item[1].answer.strip()))
            if not given:
                raise InputError("No record of the source has a number for its answer.")
        for i in range(n):
            depth = depths[i % len(depths)]
            question_at = qa.QUESTION_PLACES[1 - i // len(depths) % 2]
            draw = random.Random(f"{seed}:{level.name}:{i // (2 * len(depths))}")
            if given is None:
                document, fact = self._planted(draw, source)
            else:
                document, fact = given[i // (2 * len(depths)) % len(given)]
            answer, changed = fact.answer, 0
            if self.altered:
                document, answer, changed = alter_number(document, answer, draw.random().hex())
            made = qa.make_qa(
                document,
                fact.question,
                answer,
                level.upper,
                _place(depth),
                question_at,
                size=size,
            )
            yield Sample(
                id=f"{level.name}-{i}",
                parts=made.parts,
                references=(made.answer,),
                level=level.name,
                depth=depth,
                seed=seed,
                meta={
                    "answer_at": _place(depth),
                    "question_at": question_at,
                    "answer_depth": made.depth,
                    "original_answer": fact.answer,
                    "changed": changed,
                    "document_chars": len(document),
                    "used_chars": made.end - made.start,
                },
            )

    def _planted(self, draw: random.Random, source: Source) -> tuple[str, facts.Fact]:
        """A well-known fact in the middle of texts that have nothing to do with it."""
        fact = draw.choice(facts.NUMERIC if self.altered else facts.FREE_FORM)
        texts = list(_texts(source.path))
        draw.shuffle(texts)
        half = len(texts) // 2
        joined = [*texts[:half], f"{fact.sentence}\n", *texts[half:]]
        return "\n".join(joined), fact


def _place(depth: float) -> qa.AnswerAt:
    low, high = qa.BANDS["middle"]
    return "start" if depth < low else "end" if depth > high else "middle"


@cache
def _texts(path: str | None) -> tuple[str, ...]:
    """What a fact is put into."""
    if path is None:
        from pydoc_data.topics import topics

        return tuple(topics[name] for name in sorted(topics))
    return tuple(document.text for document in read_documents(path))


@cache
def _records(path: str) -> tuple[tuple[str, facts.Fact], ...] | None:
    """Records with a question and an answer; None if the source holds plain texts."""
    documents = list(read_documents(path))
    if not documents:
        raise InputError(f"{path} holds no texts.")
    asked = [d for d in documents if {"question", "answer"} <= set(d.meta)]
    if not asked:
        return None
    if len(asked) < len(documents):
        lacking = next(d.id for d in documents if d not in asked)
        raise InputError(f"{path}: record {lacking!r} lacks question or answer; others have them.")
    return tuple(
        (d.text, facts.Fact("", str(d.meta["question"]), str(d.meta["answer"]))) for d in asked
    )


def _questions(name: str, altered: bool) -> Questions:
    return Questions(
        spec=TaskSpec(
            name=f"giraffe/{name}",
            ability="questions",
            max_new_tokens=50,
            levels=LEVELS,
            depths=tuple(PLACES),
            metric=Scored("presence").id,
            data_source="the language reference of this Python with one fact put in",
            prompt_fingerprint=fingerprint(*qa.WORDING),
            licence="PSF-2.0",
        ),
        metric=Scored("presence"),
        altered=altered,
    )


TASKS: dict[str, Task] = {
    "lines": Lines(
        spec=TaskSpec(
            name="giraffe/lines",
            ability="retrieval",
            max_new_tokens=16,
            levels=LEVELS,
            depths=(0.0, 0.25, 0.5, 0.75, 1.0),
            metric=Scored("first-integer").id,
            prompt_fingerprint=fingerprint(*lines.WORDING),
        ),
        metric=Scored("first-integer"),
    ),
    "freeform": _questions("freeform", altered=False),
    "altered": _questions("altered", altered=True),
}
