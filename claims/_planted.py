"""Long prompts with facts planted in them, and the tokens that ask for a fact and answer."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from typing import Any

_PLACES = (
    "harbour gate", "north tower", "boat house", "old mill", "east cellar", "bell room",
    "salt store", "map room", "rope walk", "signal hut", "chapel door", "fish market",
    "coal yard", "ferry office", "clock shop", "glass house", "grain loft", "ice house",
    "lamp room", "tide pool", "upper lock", "wine vault", "wool barn", "stone bridge",
    "tram depot", "pump house", "paper mill", "pilot house", "post office", "print shop",
    "quarry hut", "record room", "sail loft", "school attic", "silk store", "station vault",
    "steam works", "tea house", "tool shed", "weigh house",
)  # fmt: skip


@dataclass(frozen=True)
class Planted:
    """A text with facts, and one (question, answer) a fact, all as token ids."""

    ids: list[int]
    after: list[int]
    """What follows in the source, for the loss of a continuation."""
    questions: list[tuple[list[int], list[int]]]


@cache
def source_ids(tokenizer: Any) -> list[int]:
    """The Python language reference as one run of tokens."""
    from claims.data import python_reference

    folder = python_reference()
    text = "\n\n".join(p.read_text(encoding="utf-8") for p in sorted(folder.glob("*.txt")))
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def plant(tokenizer: Any, *, start: int, tokens: int, facts: int, after: int, seed: int) -> Planted:
    """A prompt of about `tokens` tokens from the reference, with facts spread over it.

    Args:
        tokenizer: The model's.
        start: Token of the reference to begin with.
        tokens: Of the prompt.
        facts: Sentences to plant; at most 40.
        after: Tokens that follow the prompt.
        seed: Of places and codes.
    """
    rng = random.Random(seed)
    everything = source_ids(tokenizer)
    chosen = rng.sample(_PLACES, facts)
    codes = [f"{rng.randrange(10**5):05d}" for _ in chosen]

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False).input_ids)

    sentences = [
        encode(f"\n\nThe access code of the {place} is {code}. Remember it.\n\n")
        for place, code in zip(chosen, codes, strict=True)
    ]
    room = tokens - sum(map(len, sentences))
    body = everything[start : start + room]
    ids: list[int] = []
    for number, sentence in enumerate(sentences):
        here = [room * i // (facts + 1) for i in (number, number + 1)]
        ids += [*body[here[0] : here[1]], *sentence]
    ids += body[room * facts // (facts + 1) :]
    questions = [
        (
            encode(
                f"\n\nQuestion: What is the access code of the {place}?\n"
                f"Answer: The access code of the {place} is"
            ),
            encode(f" {code}"),
        )
        for place, code in zip(chosen, codes, strict=True)
    ]
    return Planted(ids, everything[start + room : start + room + after], questions)
