"""RULER's eight needle tasks: values that belong to keys, in noise, in prose, or among needles.

What: kinds of haystack (`noise` repeats five sentences, `prose` are sentences of a text, `needles`
are needles with other keys), of keys and values (words, numbers, UUIDs), and how many of each.
Source: Hsieh et al. (2024), arXiv 2404.06654, section 3 and table 2, appendix B.
Differs from the release: own wording; keys are two words of a list of our own; prose is that of the
language reference of Python or of a path, not essays.
Cost: O(length) text a sample.
"""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass
from typing import Literal, TypeAlias

from unspool.evaluation.spec import LengthLevel, Parts
from unspool.evaluation.tasks._grown import Ground, Grown, Made
from unspool.evaluation.tasks._prose import keys, plain_sentences, scattered, turned

Haystack: TypeAlias = Literal["noise", "prose", "needles"]
Content: TypeAlias = Literal["words", "numbers", "uuids"]

NOISE = (
    "The path is dry.",
    "The wind is mild.",
    "The lake is clear.",
    "We go on from here.",
    "Then we return.",
)
PREFIX = "Some secret {what} are hidden in the text below. Remember them; you will be asked.\n\n"
NEEDLE = "One of the secret {what} of {key} is: {value}."
QUERY = "\n\nWhat are all the secret {what} of {keys} in the text above?"
ANSWER = " The secret {what} of {keys} in the text are"
_NAMES = {"words": "words", "numbers": "numbers", "uuids": "codes"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Needles(Grown):
    """Find the values of one or several keys."""

    haystack: Haystack
    key_content: Content = "words"
    value_content: Content = "numbers"
    others: int = 0
    """Needles with other keys, in prose."""
    values: int = 1
    """Values of each key."""
    queries: int = 1
    """Keys that are asked for."""

    def least(self, level: LengthLevel) -> int:
        """No filler is needed."""
        return 0

    def make(self, ground: Ground, count: int) -> Made:
        """See `Grown.make`; a unit is a sentence, or a needle with another key."""
        draw = ground.draw()
        what = _NAMES[self.value_content]
        more = count if self.haystack == "needles" else self.others
        names = _content(self.key_content, draw, self.queries)
        asked = [(k, v) for k in names for v in _content(self.value_content, draw, self.values)]
        rest = random.Random(f"{ground.seed}:others")
        known = set(names)
        distant = [k for k in _content(self.key_content, rest, more + len(names)) if k not in known]
        other_keys = distant[:more]
        other_values = _content(self.value_content, rest, more)
        others = [_needle(what, k, v) for k, v in zip(other_keys, other_values, strict=True)]
        needles = [_needle(what, k, v) for k, v in asked]
        if self.haystack == "needles":
            filler = others
        else:
            needles += others
            draw.shuffle(needles)
            filler = self._filler(ground, draw, count)
        single = len(needles) == 1
        lines = scattered(filler, needles, draw, ground.depth if single or not others else None)
        named = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
        return Made(
            Parts(
                PREFIX.format(what=what),
                ("\n" if self.haystack != "prose" else " ").join(lines),
                QUERY.format(what=what, keys=named),
                ANSWER.format(what=what, keys=named),
            ),
            tuple(v for _, v in asked),
            meta={"keys": list(names)},
        )

    def _filler(self, ground: Ground, draw: random.Random, count: int) -> list[str]:
        if self.haystack == "noise":
            return [NOISE[i % len(NOISE)] for i in range(count)]
        pool = plain_sentences(ground.source)
        return turned(pool, draw.randrange(len(pool)), count)


def _needle(what: str, key: str, value: str) -> str:
    return NEEDLE.format(what=what, key=key, value=value)


def _content(kind: Content, draw: random.Random, count: int) -> list[str]:
    """Different keys or values. The first ones do not depend on how many there are."""
    found: dict[str, None] = {}
    if kind == "words":
        found = dict.fromkeys(keys(random.Random(draw.random()), max(count, 1)))
    while len(found) < count:
        if kind == "numbers":
            found.setdefault(str(draw.randint(1_000_000, 9_999_999)))
        else:
            found.setdefault(str(uuid.UUID(int=draw.getrandbits(128), version=4)))
    return list(found)[:count]
