"""The reader `bm25`: units whose words match a question, and those that hold its rare phrases.

What: BM25 over sentence-aligned units, plus a bonus for units in which a phrase of the question
(two words or more, as typed) occurs that is rare in the text; the exact index counts and finds it.
Source: Robertson and Zaragoza 2009 for BM25; the bonus is our own.
Differs from BM25 with n-grams as terms: phrases are not indexed beforehand but counted when asked,
so that any length works, and only the longest phrase at a place of the question counts.
Cost: one sparse sum a question word, and one batch of exact counts.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unspool.errors import ConfigError
from unspool.reading.library import Library
from unspool.reading.terms import terms

_WORD = re.compile(r"[^\s?!,;:\"“”()]+")
_LONGEST = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Bm25Reader:
    """Settings of the reader `bm25`."""

    phrase_weight: float = 0.2
    """Bonus of a rare phrase for each content word beyond its first, times its rarity; 0: none."""
    rare: int = 20
    """A phrase that occurs more often than this is not rare."""

    last: int = 3
    """Best units that are read last, next to the question; 0: all in document order."""

    def __post_init__(self) -> None:
        if not self.phrase_weight >= 0 or self.rare < 1 or self.last < 0:
            raise ConfigError(
                f"bm25 needs phrase_weight >= 0, rare >= 1 and last >= 0, got "
                f"phrase_weight={self.phrase_weight}, rare={self.rare}, last={self.last}."
            )

    def scores(self, library: Library, question: str) -> NDArray[np.float32]:
        """A score for each unit of a library; higher is likelier to hold the answer."""
        scores = library.word_scores(question).astype(np.float32, copy=True)
        if self.phrase_weight == 0:
            return scores
        for phrase, count in self._rare_phrases(library, question).items():
            rarity = math.log1p(len(library) / count)
            bonus = self.phrase_weight * rarity * (len(terms(phrase)) - 1)
            found = {
                library.unit_at(hit.span.document, hit.span.start)
                for hit in library.index.find(phrase, limit=self.rare)
            }
            for unit in found:
                scores[unit] += bonus
        return scores

    def _rare_phrases(self, library: Library, question: str) -> dict[str, int]:
        """Phrases of the question that occur, rarely, and in no longer one that occurs."""
        words = [(m.start(), m.end()) for m in _WORD.finditer(question.rstrip("?.! "))]
        ranges = [
            (words[first][0], words[last][1])
            for size in range(min(_LONGEST, len(words)), 1, -1)
            for first, last in ((i, i + size - 1) for i in range(len(words) - size + 1))
            if len(terms(question[words[first][0] : words[last][1]])) >= 2
        ]
        counts = library.index.count_batch([question[a:b] for a, b in ranges])
        kept: list[tuple[int, int]] = []
        found: dict[str, int] = {}
        for (a, b), count in zip(ranges, counts.tolist(), strict=True):
            if count and not any(c <= a and b <= d for c, d in kept):
                kept.append((a, b))
                if count <= self.rare:
                    found[question[a:b]] = int(count)
        return found
