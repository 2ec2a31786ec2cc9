"""Numbered paragraphs, an extractive abstract of one, and the chunks of the retrieval variant.

What: an abstract is the third of a paragraph's sentences, at least one, whose words are rarest over
all paragraphs, in the paragraph's order. Chunks are runs of sentences of about `units` words, each
Chinese character counting one; a sentence is never cut.
Source: LongBench section 3.2 and, for chunks, section 4.3 with `retrieval/splitter.py` (200 units).
Differs from the released code: chunks join to the text exactly (there, an empty piece becomes a
blank).
Cost: O(length).
"""

# ruff: noqa: RUF001 - Chinese punctuation ends sentences

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_CHUNK_END = re.compile(r"[。？！；\n.!?;]\s*")
_WORD = re.compile(r"\w+")
_UNIT = re.compile(r"[\u4e00-\u9fa5]|[^\W\u4e00-\u9fa5]+")


def numbered(paragraphs: Sequence[str]) -> str:
    """`Paragraph 1: …` and so on, blank lines between."""
    return "\n\n".join(f"Paragraph {i}: {text}" for i, text in enumerate(paragraphs, 1))


@lru_cache(maxsize=4)
def commonness(pool: tuple[str, ...]) -> Mapping[str, int]:
    """In how many paragraphs each word is."""
    return Counter(word for text in pool for word in set(_WORD.findall(text.lower())))


def abstract(paragraph: str, common: Mapping[str, int]) -> str:
    """The sentences that say most of what only this paragraph says."""
    sentences = _SENTENCE_END.split(paragraph)

    def rarity(sentence: str) -> float:
        words = _WORD.findall(sentence.lower())
        return sum(1 / common.get(word, 1) for word in words) / max(len(words), 1)

    keep = max(1, math.ceil(len(sentences) / 3))
    best = sorted(range(len(sentences)), key=lambda i: (-rarity(sentences[i]), i))[:keep]
    return " ".join(sentences[i] for i in sorted(best))


def units(text: str) -> int:
    """Words, each Chinese character counting one."""
    return len(_UNIT.findall(text))


def unit_list(text: str) -> list[str]:
    """Those words and characters, in lower case."""
    return _UNIT.findall(text.lower())


def chunks(text: str, size: int = 200) -> list[str]:
    """The text as runs of sentences of at most `size` units, unless one sentence is longer."""
    found: list[str] = []
    start = end = count = 0
    bounds = [match.end() for match in _CHUNK_END.finditer(text)]
    if not bounds or bounds[-1] < len(text):
        bounds.append(len(text))
    for bound in bounds:
        added = units(text[end:bound])
        if end > start and count + added > size:
            found.append(text[start:end])
            start, count = end, 0
        end = bound
        count += added
    if end > start:
        found.append(text[start:end])
    return found
