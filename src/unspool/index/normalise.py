"""Changes that a build may make to texts, and then to every str query: nfc, lower, space.

Offsets of an index so built hold in the changed text. Queries given as bytes or ids are never
changed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

_SPACE = re.compile(r"\s+")

_STEPS: dict[str, Callable[[str], str]] = {
    "nfc": lambda text: unicodedata.normalize("NFC", text),
    "lower": str.lower,
    "space": lambda text: _SPACE.sub(" ", text),
}


def normalise(text: str, steps: tuple[str, ...]) -> str:
    """Apply the steps in the order given: composed characters, lower case, single spaces."""
    for step in steps:
        text = _STEPS[step](text)
    return text
