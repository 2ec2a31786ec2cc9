"""Facts planted in long texts by replacing tokens, and how selectors of passages find them.

A fact replaces as many tokens of the filler as it has, so every segment that does not touch it is
the same in all trials and its scores need to be computed once.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_PLACES = ("harbour office", "north tower", "old mill", "map room", "salt store", "boat house")
_FACT = "\n\nThe access code of the {place} is {code}.\n\n"
_WORDINGS = (
    "What is the access code of the {place}? Answer with the number.",
    "Which number opens the door of the {place}? Answer with the number.",
    "I stand before the {place}. What do I have to type to get in? Answer with the number.",
)
"""The same words as the fact, some of them, and only the place."""
_ASIDES = (
    "\n\nThe access code of a place is changed every spring by the warden.\n\n",
    "\n\nAsk the porter for the access code; nobody writes it down.\n\n",
    "\n\nA door with an access code has no key. What is the number? Only the owner knows.\n\n",
)
"""Distractors: like the question, without an answer."""


@dataclass(frozen=True)
class Needle:
    """A text with facts in it and the question that needs them."""

    ids: list[int]
    question: str
    codes: list[str]
    places: list[tuple[int, int]]
    """Token positions [start, end) of the facts."""

    def answered(self, text: str) -> bool:
        return all(code in text for code in self.codes)

    def kept(self, pieces: Sequence[tuple[int, int]]) -> bool:
        """Whether every fact lies whole in one of the pieces."""
        return all(any(a <= s and e <= b for a, b in pieces) for s, e in self.places)


def question_of(seed: int, facts: int = 1) -> str:
    """The question of a seed, the same at all depths and lengths."""
    if facts == 1:
        return _WORDINGS[seed % len(_WORDINGS)].format(place=_PLACES[seed % len(_PLACES)])
    places = [f"the {_PLACES[(seed + number) % len(_PLACES)]}" for number in range(facts)]
    return f"What are the access codes of {' and of '.join(places)}? Answer with the numbers."


def needle(tokenizer: Any, filler: Sequence[int], depths: Sequence[float], seed: int) -> Needle:
    """A text of the filler's length with one fact a depth and three distractors."""
    draw = random.Random(f"{seed} {depths} {len(filler)}")
    ids = list(filler)
    for number, aside in enumerate(_ASIDES):  # at the same place in every trial of a length
        words = tokenizer.encode(aside, add_special_tokens=False)
        at = round((0.13 + 0.31 * number) * len(ids))
        ids[at : at + len(words)] = words
    codes, places = [], []
    for number, depth in enumerate(depths):
        code = str(draw.randrange(10_000, 100_000))
        place = _PLACES[(seed + number) % len(_PLACES)]
        words = tokenizer.encode(_FACT.format(place=place, code=code), add_special_tokens=False)
        at = round(depth * (len(ids) - len(words)))
        ids[at : at + len(words)] = words
        codes.append(code)
        places.append((at, at + len(words)))
    return Needle(ids, question_of(seed, len(depths)), codes, places)


def bm25(texts: Sequence[str], question: str) -> list[float]:
    """Okapi BM25 of each text for a question (k1 1.2, b 0.75), over stems."""
    from unspool.reading.terms import terms

    counts = [Counter(terms(text)) for text in texts]
    sizes = [sum(count.values()) for count in counts]
    mean = max(1.0, sum(sizes) / len(sizes))
    scores = [0.0] * len(texts)
    for word in dict.fromkeys(terms(question)):
        holding = sum(word in count for count in counts)
        weight = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
        for number, count in enumerate(counts):
            n = count[word]
            scores[number] += (
                weight * n * 2.2 / (n + 1.2 * (0.25 + 0.75 * sizes[number] / mean)) if n else 0.0
            )
    return scores
