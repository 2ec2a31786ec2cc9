"""Plant coherence errors of known types in a text that has none.

What: m of n sentences are replaced, each by one that is wrong in a known way: said before, moved
from afar, about something never introduced, against what was said, or garbled.
Source: the types are those of Chang et al. (2023), arXiv 2310.00785, table 1; planting them is this
project's own, so that a judge can be tested without human annotations.
Differs from real errors: they are plain; a judge that misses these misses real ones too.
Cost: linear in the sentences.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from unspool.errors import ConfigError

PLANTED = ("duplication", "discontinuity", "entity omission", "inconsistency", "language")
_STRANGERS = ("Velmora", "Tarkwin", "the Ossian lever", "Brellic", "the Quarn accord", "Idrusk")
_VERB = re.compile(r"\b(is|are|can|must|may|will|has|have|was|were)\b(?! not)")
_NOT = {"has": "never has", "have": "never have"}


@dataclass(frozen=True, slots=True)
class Planted:
    """A summary with errors, and which sentence has which."""

    sentences: tuple[str, ...]
    errors: dict[int, str]
    """Number of a sentence to the type of its error."""

    @property
    def text(self) -> str:
        return " ".join(self.sentences)

    @property
    def score(self) -> float:
        """What a judge must find."""
        return 1 - len(self.errors) / len(self.sentences)


def plant(
    sentences: Sequence[str], m: int, *, seed: int | str = 0, far: Sequence[str] = ()
) -> Planted:
    """Plant `m` errors in a list of clean sentences.

    Args:
        sentences: At least two; the first stays as it is.
        m: How many, 0 to one less than there are sentences.
        seed: Of places and types.
        far: Sentences of another text, for discontinuities; without them there are none.

    Raises:
        ConfigError: There are too few sentences for so many errors.
    """
    if not 0 <= m < max(1, len(sentences)):
        raise ConfigError(
            f"{m} errors do not fit {len(sentences)} sentences: at most {len(sentences) - 1} can "
            f"be planted, since the first stays."
        )
    draw = random.Random(f"{seed}:plant")
    out = list(sentences)
    errors: dict[int, str] = {}
    for place in sorted(draw.sample(range(1, len(sentences)), m)):
        out[place], errors[place] = plant_at(sentences, place, draw, far)
    return Planted(tuple(out), errors)


def plant_at(
    sentences: Sequence[str], place: int, draw: random.Random, far: Sequence[str] = ()
) -> tuple[str, str]:
    """The wrong sentence for a place after the first, and the type of its error."""
    kinds = [kind for kind in PLANTED if kind != "discontinuity" or far]
    draw.shuffle(kinds)
    for kind in kinds:
        made = _made(kind, place, sentences, far, draw)
        if made is not None and (kind == "duplication" or made not in sentences):
            return made, kind
    return sentences[draw.randrange(place)], "duplication"


def _made(
    kind: str, place: int, sentences: Sequence[str], far: Sequence[str], draw: random.Random
) -> str | None:
    """The sentence that takes the place; None if this type cannot be made here."""
    if kind == "duplication":
        return sentences[draw.randrange(place)]
    if kind == "discontinuity":
        return draw.choice(list(far))
    if kind == "entity omission":
        words = sentences[place].split()
        stranger = draw.choice(_STRANGERS)
        return f"After what {stranger} did, {words[0].lower()} {' '.join(words[1:])}"
    if kind == "inconsistency":
        before = [each for each in sentences[:place] if _VERB.search(each)]
        return _VERB.sub(_denied, draw.choice(before), count=1) if before else None
    words = sentences[place].rstrip(".").split()
    if len(words) < 4:
        return None
    mixed = draw.sample(words, len(words))
    return None if mixed == words else " ".join(mixed) + "."


def _denied(match: re.Match[str]) -> str:
    return _NOT.get(match[1], f"{match[1]} not")
