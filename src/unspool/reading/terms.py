"""Words of a text as a search counts them: lower case, light stems, parts of identifiers."""

from __future__ import annotations

import re
from collections.abc import Sequence

_STOP_WORDS = """
    a about after all also an and any are as at be been before but by can could did do does done
    each for from get gets give given gives had has have how i if in into is it its let like long
    made make makes many may me might more most much must my no nor not of on one only or other our
    out over shall she should so some such than that the their them then there these they this
    those to under up upon us use used uses using very was we were what when where whether which
    while who whom whose why will with would you your
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""Words that carry no topic; most question words are among them."""

_WORD = re.compile(r"[^\W_]+(?:[_.\-/][^\W_]+)*", re.UNICODE)
_PART = re.compile(r"[^\W_]+", re.UNICODE)
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f]")


def terms(text: str) -> list[str]:
    """Terms of a text, in order: stems of words, and the parts of compounds beside them."""
    found: list[str] = []
    for match in _WORD.finditer(text.lower()):
        word = match.group()
        if _UNSPACED.search(word):  # no spaces between words: pairs of characters do as well
            found += [word[i : i + 2] for i in range(max(1, len(word) - 1))]
            continue
        parts = _PART.findall(word)
        if len(parts) > 1:
            found.append(word)
        found += [stem(part) for part in parts if part not in STOP_WORDS]
    return found


def stem(word: str) -> str:
    """The word without an English plural, -ed, -ing or -ly; short words stay as they are."""
    if len(word) <= 3 or not word.isascii() or not word.isalpha():
        return word
    for ending, put in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) + len(put) >= 3:
            word = word[: len(word) - len(ending)] + put
            break
    if len(word) > 4 and word[-1] == word[-2] and word[-1] not in "lsz":
        word = word[:-1]  # "stopped" -> "stopp" -> "stop"
    return word[:-1] if len(word) > 4 and word.endswith("e") else word


_ENDINGS: Sequence[tuple[str, str]] = (
    ("ations", "ate"),
    ("ation", "ate"),
    ("ies", "y"),
    ("sses", "ss"),
    ("ings", ""),
    ("ing", ""),
    ("edly", ""),
    ("ied", "y"),
    ("ed", ""),
    ("ally", "al"),
    ("ly", ""),
    ("us", "us"),
    ("ss", "ss"),
    ("is", "is"),
    ("es", "e"),
    ("s", ""),
)
