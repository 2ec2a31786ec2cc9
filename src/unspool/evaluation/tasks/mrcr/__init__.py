"""MRCR-style recall: several near-equal requests in a conversation; repeat the answer to the i-th.

What: a conversation asks for short pieces of writing by form and subject; one such pair comes 2, 4
or 8 times, each time with another answer, and the model has to repeat one of them word for word
behind a random string.
Source: Vodrahalli et al. (2024), "Michelangelo", arXiv 2409.12640, section 3, and OpenAI's release
of MRCR, whose grading this is: 0 unless the answer begins with the string, else the ratio of
`difflib.SequenceMatcher` on what follows it.
Differs from the release: answers are made from word lists by seed, where it has a model's; the
conversation stands in one prompt as text, where it is a list of messages.
Cost: O(length) text a sample; grading is quadratic in the answer.
"""

from __future__ import annotations

import random
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

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
from unspool.evaluation.tasks.base import Task

PREFIX = "Below is a conversation. Read it; a question about it follows.\n\n"
QUERY = (
    "\n\nWrite {mark} and then, word for word, the {ordinal} {form} about {subject} that the "
    "assistant wrote. Write nothing else."
)
ANSWER = "\n"
FORMS = ("poem", "riddle", "short speech", "letter", "news item", "scene", "recipe", "diary entry")
SUBJECTS = (
    "bridges", "clouds", "coffee", "dogs", "gardens", "islands", "lamps", "letters", "markets",
    "mirrors", "mountains", "owls", "rain", "rivers", "shoes", "snow", "tea", "trains", "windows",
    "winter",
)  # fmt: skip
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
_OPENINGS = (
    "Long ago", "At noon", "Near the harbour", "Under a grey sky", "In the last hour",
    "Behind the old mill", "On the seventh day", "Far from home", "Between two storms",
    "Before anyone woke",
)  # fmt: skip
_WHO = (
    "a tailor", "the miller", "an old captain", "two sisters", "the night watchman", "a choir",
    "my neighbour", "the youngest clerk", "a travelling painter", "some children",
)  # fmt: skip
_DID = (
    "counted", "forgot", "sang about", "painted", "dreamt of", "argued over", "waited for",
    "wrote down", "carried home", "laughed at",
)  # fmt: skip
_HOW = (
    "without a word", "as if for the first time", "until the bell rang", "with cold hands",
    "against all advice", "for seven coins", "by candlelight", "while the kettle hummed",
    "and told nobody", "in perfect order",
)  # fmt: skip
_SENTENCES = 4
_MARK = 10


@dataclass(frozen=True, slots=True)
class Ratio:
    """0 unless the answer begins with the random string; else how alike the rest is."""

    id: str = "mrcr@1"
    packages: tuple[str, ...] = ()

    def score(self, sample: Sample, response: Response) -> dict[str, float]:
        mark = str(sample.meta["mark"])
        if not response.text.startswith(mark):
            return {"score": 0.0, "marked": 0.0}
        said = response.text.removeprefix(mark)
        wanted = sample.references[0].removeprefix(mark)
        return {"score": SequenceMatcher(None, said, wanted).ratio(), "marked": 1.0}

    def aggregate(self, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return {"score": mean_percent(scores)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mrcr(Grown):
    """A conversation with so many near-equal requests."""

    needles: int

    def make(self, ground: Ground, count: int) -> Made:
        """See `Grown.make`; a unit is a request for something else, with its answer."""
        draw = ground.draw()
        form, subject = draw.choice(FORMS), draw.choice(SUBJECTS)
        mark = "".join(draw.choices(string.ascii_letters + string.digits, k=_MARK))
        wanted = ground.number % self.needles
        seen: set[str] = set()
        answers = [_piece(subject, draw, seen) for _ in range(self.needles)]
        order = random.Random(f"{ground.seed}:order")
        turns = []
        for _ in range(count):
            other = (form, subject)
            while other == (form, subject):
                other = (draw.choice(FORMS), draw.choice(SUBJECTS))
            turns.append(_turn(*other, _piece(other[1], draw, seen)))
        places = sorted(order.randint(0, count) for _ in answers)
        for moved, (place, answer) in enumerate(zip(places, answers, strict=True)):
            turns.insert(place + moved, _turn(form, subject, answer))
        query = QUERY.format(mark=mark, ordinal=ORDINALS[wanted], form=form, subject=subject)
        return Made(
            Parts(PREFIX, "\n\n".join(turns), query, ANSWER),
            (mark + answers[wanted],),
            meta={"mark": mark, "ordinal": wanted + 1},
        )


def _turn(form: str, subject: str, answer: str) -> str:
    return f"User: Write a {form} about {subject}.\nAssistant: {answer}"


def _piece(subject: str, draw: random.Random, seen: set[str]) -> str:
    """A few sentences about a subject that were not written before."""
    while True:
        lines = [
            f"{draw.choice(_OPENINGS)}, {draw.choice(_WHO)} {draw.choice(_DID)} {subject} "
            f"{draw.choice(_HOW)}."
            for _ in range(_SENTENCES)
        ]
        text = " ".join(lines)
        if text not in seen:
            seen.add(text)
            return text


def _task(needles: int) -> Mrcr:
    spec = TaskSpec(
        name=f"mrcr/{needles}needle",
        ability="recall",
        max_new_tokens=256,
        levels=(LengthLevel("tokens", 2048), *LEVELS[2:]),
        metric=Ratio().id,
        prompt_fingerprint=fingerprint(PREFIX, QUERY, ANSWER, *FORMS, *SUBJECTS),
    )
    return Mrcr(spec=spec, metric=Ratio(), needles=needles)


TASKS: dict[str, Task] = {f"{n}needle": _task(n) for n in (2, 4, 8)}
