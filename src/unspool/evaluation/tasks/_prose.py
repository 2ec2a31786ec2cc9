"""Material that generated prompts are made of: plain sentences of any text, made words, names."""

from __future__ import annotations

import random
import re
from functools import cache

from unspool.corpus.split import sentences
from unspool.errors import InputError
from unspool.evaluation.spec import Source
from unspool.evaluation.tasks._texts import texts
from unspool.evaluation.tasks.base import GENERATED
from unspool.types import Document

_SENTENCE = re.compile(r"[A-Z][A-Za-z' -]+[,;]?( [A-Za-z(\"'][^\n*`=>|]*)[a-z)]\.")
_SHORTEST, _LONGEST = 40, 300

NAMES = (
    "Abena", "Bruno", "Celia", "Darius", "Elif", "Farid", "Greta", "Hiro", "Ines", "Jonas",
    "Katya", "Liam", "Mira", "Nadia", "Oskar", "Petra", "Quentin", "Rosa", "Stefan", "Tara",
)  # fmt: skip
_ADJECTIVES = (
    "amber", "bitter", "brisk", "calm", "copper", "crooked", "damp", "distant", "dusty", "eager",
    "early", "faint", "fierce", "gentle", "gilded", "hollow", "humble", "icy", "idle", "jagged",
    "keen", "late", "little", "lofty", "lonely", "marble", "mellow", "misty", "narrow", "noble",
    "odd", "pale", "patient", "plain", "proud", "quick", "quiet", "rapid", "rusty", "silent",
    "silver", "sleepy", "slender", "solid", "steep", "stern", "sunny", "tender", "vivid", "woven",
)  # fmt: skip
_NOUNS = (
    "anchor", "apple", "arrow", "badger", "barrel", "basket", "beacon", "bridge", "candle",
    "canyon", "castle", "cedar", "comet", "compass", "cradle", "desert", "drum", "eagle", "ember",
    "falcon", "feather", "fern", "forest", "garden", "glacier", "hammer", "harbour", "island",
    "kettle", "ladder", "lantern", "lemon", "meadow", "mirror", "needle", "orchard", "otter",
    "pebble", "pepper", "pillow", "raven", "ribbon", "river", "saddle", "sparrow", "thimble",
    "tunnel", "turnip", "violin", "willow",
)  # fmt: skip
_ONSETS = (
    "b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "br", "dr", "gl", "kr",
    "pl", "st", "tr",
)  # fmt: skip
_VOWELS = ("a", "e", "i", "o", "u", "ai")


def plain_sentences(source: Source = GENERATED) -> list[str]:
    """Plain sentences of texts, each once, in order: no code, no headings, no tables.

    Raises:
        InputError: There is none.
    """
    if source.path is None:
        return list(_of_the_reference())
    found = _plain(texts(source))
    if not found:
        raise InputError(
            f"{source.path} holds no plain sentence of {_SHORTEST} to {_LONGEST} characters to "
            f"build samples from. Give prose."
        )
    return found


@cache
def _of_the_reference() -> tuple[str, ...]:
    return tuple(_plain(texts(GENERATED)))


def _plain(documents: list[Document]) -> list[str]:
    found: dict[str, None] = {}
    for document in documents:
        data = document.text.encode()
        for start, end in sentences(document.text):
            piece = " ".join(data[start:end].decode().split())
            if _SHORTEST <= len(piece) <= _LONGEST and _SENTENCE.fullmatch(piece):
                found.setdefault(piece)
    return list(found)


def turned(pool: list[str], first: int, count: int) -> list[str]:
    """`count` sentences from a place on, round and round."""
    return [pool[(first + i) % len(pool)] for i in range(count)]


def keys(draw: random.Random, count: int) -> list[str]:
    """Different keys of two words, such as `amber-harbour`; with a number once those are used."""
    most = len(_ADJECTIVES) * len(_NOUNS)
    numbers = draw.sample(range(most), min(count, most))
    found = [f"{_ADJECTIVES[i % 50]}-{_NOUNS[i // 50]}" for i in numbers]
    while len(found) < count:
        found.append(f"{found[len(found) % most]}-{len(found) // most}")
    return found


def made_words(draw: random.Random, count: int) -> list[str]:
    """Different words that mean nothing, of two or three syllables."""
    found: dict[str, None] = {}
    while len(found) < count:
        parts = draw.randint(2, 3)
        found.setdefault("".join(draw.choice(_ONSETS) + draw.choice(_VOWELS) for _ in range(parts)))
    return list(found)


def scattered(
    filler: list[str], planted: list[str], draw: random.Random, depth: float | int | None = None
) -> list[str]:
    """Filler with sentences planted in their order: at random places, or all at one depth."""
    if depth is not None:
        places = [round(depth * len(filler))] * len(planted)
    else:
        places = sorted(draw.randint(0, len(filler)) for _ in planted)
    out: list[str] = []
    at = 0
    for place, piece in zip(places, planted, strict=True):
        out += filler[at:place]
        out.append(piece)
        at = place
    return out + filler[at:]
