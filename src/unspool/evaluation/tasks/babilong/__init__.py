"""BABILong-style reasoning: the facts of a small story, scattered in order through a long text.

What: eight kinds of question, numbered as in bAbI: one, two and three supporting facts (`qa1` to
`qa3`), two- and three-argument relations (`qa4`, `qa5`), yes or no (`qa6`), counting (`qa7`), lists
(`qa8`).
Source: Kuratov et al. (2024), arXiv 2406.10149; an answer is right if it names the expected label
and no other label of its kind, labels of the question left out, as in the released `metrics.py`.
Differs from the release: stories are our own and made by seed, the first eight of twenty kinds; the
text is prose of any source, not books; the instruction is our own, without worked examples.
Cost: O(length) text a sample.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unspool.evaluation.spec import (
    LengthLevel,
    Parts,
    Response,
    Sample,
    TaskSpec,
    fingerprint,
    mean_percent,
)
from unspool.evaluation.tasks._grown import LEVELS, Ground, Grown, Made
from unspool.evaluation.tasks._prose import plain_sentences, scattered, turned
from unspool.evaluation.tasks.babilong.worlds import KINDS, PEOPLE, PLACES, THINGS, Story, story
from unspool.evaluation.tasks.base import Task

PREFIX = (
    "The text below hides sentences about a few people, places and things, in the order in which "
    "they happened. Answer the question from these sentences only; what was said last is so "
    "now.\n\n"
)
QUERY = "\n\nQuestion: {question} Answer in as few words as possible."
ANSWER = "Answer:"
_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True, slots=True)
class Labels:
    """1 if the first sentence of the answer names every expected label and no other."""

    id: str = "babilong@1"
    packages: tuple[str, ...] = ()

    def score(self, sample: Sample, response: Response) -> dict[str, float]:
        """Words are compared whole and in lower case; only what is before the first full stop,
        and of the question what is before its mark."""
        said = set(_WORD.findall(response.text.lower().strip().split(".")[0]))
        asked = set(_WORD.findall(str(sample.meta["question"]).lower().split("?")[0]))
        wanted = {each.lower() for each in sample.references}
        labels = {str(each).lower() for each in sample.meta["classes"]}
        found = said & labels
        return {"score": float(found - (asked - wanted) == wanted)}

    def aggregate(self, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return {"score": mean_percent(scores)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Babilong(Grown):
    """A story of one kind among prose."""

    kind: str

    def make(self, ground: Ground, count: int) -> Made:
        """See `Grown.make`; a unit is a sentence of prose."""
        told = self.story(ground)
        draw = random.Random(f"{ground.seed}:places")
        pool = plain_sentences(ground.source)
        filler = turned(pool, draw.randrange(len(pool)), count)
        return Made(
            Parts(
                PREFIX,
                " ".join(scattered(filler, list(told.facts), draw)),
                QUERY.format(question=told.question),
                f"\n{ANSWER}",
            ),
            told.answers,
            meta={
                "question": told.question,
                "facts": list(told.facts),
                "classes": list(told.labels),
            },
        )

    def story(self, ground: Ground) -> Story:
        """The story of a sample."""
        return story(self.kind, random.Random(f"{ground.seed}:{self.kind}"))


def _task(kind: str) -> Babilong:
    spec = TaskSpec(
        name=f"babilong/{kind}",
        ability="reasoning",
        max_new_tokens=20,
        levels=(LengthLevel("tokens", 512), *LEVELS),
        metric=Labels().id,
        prompt_fingerprint=fingerprint(PREFIX, QUERY, ANSWER, *PEOPLE, *PLACES, *THINGS),
    )
    return Babilong(spec=spec, metric=Labels(), kind=kind)


TASKS: dict[str, Task] = {kind: _task(kind) for kind in KINDS}
