"""Change a number everywhere in a document, so that remembering it is of no use.

What: years move by up to ten, other numbers become others with as many digits.
Source: Pal et al. (2023), "Giraffe", section 4 (AlteredNumericQA).
Differs from the released code: a number is matched whole (12 is not in 1920, 3.12 or 12,000), and
one that stands in the document already is not taken as the new one if there is another.
Cost: O(length).
"""

from __future__ import annotations

import random
import re
from typing import NamedTuple

from unspool.errors import InputError

NUMBER = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)*|[0-9]+(?:\.[0-9]+)*")
"""A number with all that belongs to it: thousands in commas, decimals, parts of a version."""
FIRST_YEAR, LAST_YEAR = 1000, 2100
YEAR_SHIFT = 10
_TRIES = 64


class Altered(NamedTuple):
    """A document in which a number is another."""

    document: str
    answer: str
    """The new number."""
    changed: int
    """Occurrences that were changed; none of the old number is left."""


def alter_number(document: str, answer: str, seed: int | str) -> Altered:
    """Replace a number by another wherever it stands in the document.

    A whole number from 1000 to 2100 without a comma counts as a year and moves by 1 to 10, either
    way. Any other keeps its digits' count, commas and points.

    Args:
        document: The text.
        answer: The number as it is written there, such as `1920`, `12,500` or `3.14`.
        seed: Of the draw.

    Raises:
        InputError: The answer is not a number, or does not stand in the document as a whole one.
    """
    old = answer.strip()
    if not NUMBER.fullmatch(old):
        raise InputError(
            f"Only a number can be altered, in digits as 1920 or 12,500, got {answer!r}."
        )
    present = {found[0] for found in NUMBER.finditer(document)}
    if old not in present:
        raise InputError(
            f"{old} does not stand in the document as a number of its own: nothing can be altered."
        )
    draw = random.Random(f"number:{seed}:{old}")
    new = old
    for tried in range(_TRIES):
        candidate = _another(old, draw)
        if candidate != old:
            new = candidate
            if candidate not in present or tried == _TRIES - 1:
                break
    changed = 0

    def replace(found: re.Match[str]) -> str:
        nonlocal changed
        if found[0] != old:
            return found[0]
        changed += 1
        return new

    return Altered(NUMBER.sub(replace, document), new, changed)


def _another(old: str, draw: random.Random) -> str:
    if old.isdigit() and len(old) == 4 and FIRST_YEAR <= int(old) <= LAST_YEAR:
        return str(int(old) + draw.choice([-1, 1]) * draw.randint(1, YEAR_SHIFT))
    digits = [str(draw.randrange(10)) if c.isdigit() else c for c in old]
    if len(old) > 1 and old[0] != "0":  # a leading 0 would be a digit less to whoever reads it
        digits[0] = str(draw.randrange(1, 10))
    return "".join(digits)
