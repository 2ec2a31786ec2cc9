"""Passkey retrieval: one number hidden at a depth of a long text, asked for at its end.

What: builds prompts of an exact length in tokens around text of the user's own, and scores answers.
Source: Mohtashami & Jaggi (2023), "Landmark Attention", section 4.2.
Differs from the paper's set-up: the filler is real text, the length is exact in tokens, the number
is drawn by seed and length of the digits is fixed, so a guess is right once in 90,000.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unspool.errors import ConfigError

_KEY = "\n\nThe pass key is {key}. Remember it. {key} is the pass key.\n\n"
_ASK = "\n\nWhat is the pass key? The pass key is"


@dataclass(frozen=True, slots=True)
class Passkey:
    """One prompt, the number that answers it, and where it is hidden."""

    ids: list[int]
    key: str
    depth: float
    key_start: int
    """Token position of the hidden sentence."""
    key_end: int

    def found(self, answer: str) -> bool:
        """Whether an answer holds the number, whole."""
        return self.key in "".join(c if c.isdigit() else " " for c in answer).split()


def make_passkey(
    tokenizer: Any, filler: Sequence[int], length: int, depth: float, *, seed: int
) -> Passkey:
    """A prompt of exactly `length` tokens.

    Args:
        tokenizer: Of the model.
        filler: Token ids of real text; repeated if it is shorter than the prompt.
        length: Tokens in all, the question included.
        depth: Where the number is: 0 the beginning, 1 the end.
        seed: Of the number and of where in the filler the text begins.

    Raises:
        ConfigError: The length leaves no room for filler, or the depth is outside 0 … 1.
    """
    if not 0 <= depth <= 1:
        raise ConfigError(f"depth must be between 0 and 1, got {depth}.")
    draw = random.Random(seed)
    key = str(draw.randrange(10_000, 100_000))
    hidden = tokenizer.encode(_KEY.format(key=key), add_special_tokens=False)
    asked = tokenizer.encode(_ASK, add_special_tokens=False)
    room = length - len(hidden) - len(asked)
    if room < 0:
        raise ConfigError(
            f"A passkey prompt needs at least {len(hidden) + len(asked)} tokens, got "
            f"{length}. Give a longer text, or measure without passkeys."
        )
    if not filler:
        raise ConfigError("A passkey prompt needs filler text, got none.")
    offset = draw.randrange(max(1, len(filler) - room))
    text = [filler[(offset + i) % len(filler)] for i in range(room)]
    before = round(depth * room)
    ids = [*text[:before], *hidden, *text[before:], *asked]
    return Passkey(ids, key, depth, before, before + len(hidden))
