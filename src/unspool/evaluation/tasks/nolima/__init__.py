"""NoLiMa-style needles: the question shares no word with the sentence that answers it.

What: one sentence among prose says something of a person, and the question asks for the person by
what follows from it: a landmark for its city (`onehop`) or country (`twohop`). `literal` asks in
the words of the sentence, to show what matching alone does. `_choice` ranks the names.
Source: Modarressi et al. (2025), arXiv 2502.05167, sections 3 and 4. Effective length by rule
`nolima`: 85% of the best score at up to 1k tokens.
Differs from the release: pairs and names are our own; the haystack is prose of any text without the
sentences that share a word with the question, where it has books filtered by a model; half of the
needles have the name at the end.
Cost: O(length) text a sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from unspool.evaluation.spec import (
    LengthLevel,
    Parts,
    Response,
    Sample,
    Source,
    TaskSpec,
    fingerprint,
    mean_percent,
)
from unspool.evaluation.tasks._grown import LEVELS, Ground, Grown, Made
from unspool.evaluation.tasks._prose import NAMES, plain_sentences, scattered, turned
from unspool.evaluation.tasks.base import Task
from unspool.evaluation.tasks.nolima.facts import FACTS, Fact
from unspool.reading.terms import terms

PREFIX = "Read the text below; a question follows. It can be answered from the text.\n\n"
QUERY = "\n\n{question} Answer with the name alone."
ANSWER = " The name is"
CHOICES = 10
_SHORT = tuple(LengthLevel("tokens", n) for n in (256, 512))


@dataclass(frozen=True, slots=True)
class Named:
    """1 if the name is in the answer; of choices, if it is the likeliest."""

    id: str = "nolima@1"
    packages: tuple[str, ...] = ()

    def score(self, sample: Sample, response: Response) -> dict[str, float]:
        if sample.choices:
            best = max(range(len(response.logprobs)), key=lambda i: (response.logprobs[i], -i))
            return {"score": float(sample.choices[best] in sample.references)}
        return {"score": float(sample.references[0].strip() in response.text)}

    def aggregate(self, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return {"score": mean_percent(scores)}


@dataclass(frozen=True, slots=True, kw_only=True)
class NoLiMa(Grown):
    """One fact among prose, and a question about it."""

    hops: Literal["literal", "near", "far"]

    def make(self, ground: Ground, count: int) -> Made:
        """See `Grown.make`; a unit is a sentence of prose."""
        draw = ground.draw()
        fact = FACTS[draw.randrange(len(FACTS))]
        names = draw.sample(NAMES, CHOICES)
        needle = (fact.needle, fact.turned)[draw.randrange(2)].format(name=names[0])
        pool = _apart(fact, ground.source.path)
        filler = turned(pool, draw.randrange(len(pool)), count)
        lines = scattered(filler, [needle], draw, ground.depth)
        ranked = self.spec.kind == "choice"
        return Made(
            Parts(
                PREFIX,
                " ".join(lines),
                QUERY.format(question=getattr(fact, self.hops)),
                ANSWER,
            ),
            (f" {names[0]}",),
            tuple(sorted(f" {name}" for name in names)) if ranked else (),
            {"needle": needle},
        )


@lru_cache(maxsize=64)
def _apart(fact: Fact, path: str | None) -> list[str]:
    """Sentences that share no word with the fact, its questions or a name; all if none does not."""
    taken = set(terms(" ".join(fact).replace("{name}", " "))) | set(terms(" ".join(NAMES)))
    pool = _with_terms(path)
    return [each for each, held in pool if taken.isdisjoint(held)] or [each for each, _ in pool]


@lru_cache(maxsize=2)
def _with_terms(path: str | None) -> list[tuple[str, frozenset[str]]]:
    return [(each, frozenset(terms(each))) for each in plain_sentences(Source(path=path))]


def _task(name: str, hops: Literal["literal", "near", "far"], choice: bool = False) -> NoLiMa:
    spec = TaskSpec(
        name=f"nolima/{name}",
        ability="association",
        kind="choice" if choice else "generate",
        max_new_tokens=32,
        levels=(*_SHORT, *LEVELS),
        depths=(0.0, 0.25, 0.5, 0.75, 1.0),
        metric=Named().id,
        prompt_fingerprint=fingerprint(PREFIX, QUERY, ANSWER, *(t for f in FACTS for t in f)),
    )
    return NoLiMa(spec=spec, metric=Named(), hops=hops)


TASKS: dict[str, Task] = {
    "onehop": _task("onehop", "near"),
    "twohop": _task("twohop", "far"),
    "literal": _task("literal", "literal"),
    "onehop_choice": _task("onehop_choice", "near", True),
    "twohop_choice": _task("twohop_choice", "far", True),
    "literal_choice": _task("literal_choice", "literal", True),
}
