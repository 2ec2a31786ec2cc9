"""Leave out of a summary what it says twice, and a last sentence that was not finished.

What: sentences that stand earlier in the same text, word for word or nearly, are dropped, and so is
an unfinished end; `loops` says while an answer is still being written that it goes in circles.
Source: decoding runs into loops (Holtzman et al. 2020, arXiv 1904.09751); small models above all.
Differs from a repetition penalty: the decoding is not touched, so words that must come twice do. A
text that has neither is returned as it is, byte for byte.
Cost: one comparison a pair of sentences of one summary.
"""

from __future__ import annotations

import re

from unspool.corpus.split import sentences
from unspool.reading.summary.workflow import ends_well
from unspool.reading.terms import terms

_ALIKE = 0.75
"""Share of common content words from which two sentences say the same."""
_FEWEST = 4
_ITEM = re.compile(r"[-*\u2022]\s|\d+[.)]\s")
"""Items of a list need no full stop."""
_RUN, _TIMES = 8, 3
"""An answer goes in circles once its last eight words have been said three times."""


def tidy(text: str) -> str:
    """The text with each sentence once and without an unfinished end."""
    text = text.strip()
    pieces = split(text)
    kept = distinct(pieces)
    if len(kept) > 1 and not ends_well(kept[-1]) and not _ITEM.match(kept[-1]):
        kept.pop()
    return text if kept == pieces else " ".join(" ".join(piece.split()) for piece in kept)


def split(text: str) -> list[str]:
    """The sentences of a text, stripped, without empty ones."""
    data = text.encode("utf-8", "replace")
    found = (data[a:b].decode().strip() for a, b in sentences(data.decode()))
    return [piece for piece in found if piece]


def distinct(pieces: list[str]) -> list[str]:
    """The sentences that say something which none before them says."""
    kept: list[str] = []
    seen: list[frozenset[str]] = []
    for piece in pieces:
        words = frozenset(terms(piece))
        if piece in kept or any(alike(words, other) for other in seen):
            continue
        kept.append(piece)
        seen.append(words)
    return kept


def alike(a: frozenset[str], b: frozenset[str]) -> bool:
    """Whether two sentences, as sets of content words, say nearly the same."""
    if min(len(a), len(b)) < _FEWEST:
        return bool(a) and a == b
    return len(a & b) >= _ALIKE * len(a | b)


def loops(text: str) -> bool:
    """Whether an answer that is still being written goes in circles."""
    words = re.findall(r"\S+", text)
    last = words[-_RUN:]
    if len(words) < _RUN * _TIMES:
        return False
    found = sum(words[i : i + _RUN] == last for i in range(len(words) - _RUN + 1))
    return found >= _TIMES
