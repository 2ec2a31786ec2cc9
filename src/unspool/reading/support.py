"""Is an answer supported by what was read: which of its words occur there, and where.

What: content words of the answer, compared by stem with the words of the passages. A word that
occurs in none of them is marked; passages that hold more of the answer come first.
Source: lexical overlap as a check of faithfulness; no model judges.
Differs from entailment: an answer made of words that were read can still be wrong, and a synonym is
marked though it is right. The mark says where to look, no more.
Cost: one pass over the passages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from unspool.reading.terms import terms
from unspool.types import Passage

_WORD = re.compile(r"[^\W_]+(?:[_.\-/'’][^\W_]+)*")
_JOINED = re.compile(r"[_.\-/]")


def unsupported_words(answer: str, passages: Sequence[str]) -> tuple[str, ...]:
    """Content words of an answer that occur in none of the passages, in order, each once."""
    read = set().union(*(terms(text) for text in passages)) if passages else set()
    found: dict[str, None] = {}
    for match in _WORD.finditer(answer):
        word = match.group()
        own = terms(word)
        # Of a compound the parts count: "key-value" is supported where key and value are.
        if any(t not in read and len(t) > 1 and not _JOINED.search(t) for t in own):
            found.setdefault(word)
    return tuple(found)


def rank_by_support(answer: str, question: str, passages: Sequence[Passage]) -> tuple[Passage, ...]:
    """Passages that hold most of the answer's own words first, then by score."""
    own = set(terms(answer)) - set(terms(question))

    def key(passage: Passage) -> tuple[int, float, str, int]:
        span = passage.span
        return (-len(own & set(terms(span.text))), -passage.score, span.document, span.start)

    return tuple(sorted(passages, key=key))
