"""What a prompt shows before it is answered, as numbers."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Encoder = Literal["features", "tfidf"]
BUCKETS = 256
_WORD = re.compile(r"\w+", re.UNICODE)
_VERBS = (
    "list", "write", "explain", "describe", "summarize", "rewrite", "translate", "name", "give",
    "create", "generate", "classify", "compare", "implement", "fix", "answer", "identify", "find",
)  # fmt: skip
_SHORT = ("briefly", "short", "one word", "one sentence", "in a sentence", "yes or no", "only")
_LONG = ("in detail", "detailed", "essay", "step by step", "paragraphs", "long", "story")
_CODE = re.compile(r"```|\bdef |\bclass |#include|;\n|\{\n|\bfunction\b|\breturn\b")


def surface(text: str) -> list[float]:
    """Counts and marks of a prompt: its size, digits, code, questions, verbs that ask."""
    words = [w.lower() for w in _WORD.findall(text)]
    lower = text.lower()
    first = words[0] if words else ""
    said = set(words)
    return [
        math.log1p(len(words)),
        math.log1p(len(text)),
        math.log1p(sum(c.isdigit() for c in text)),
        math.log1p(text.count("\n")),
        float("?" in text),
        float(text.rstrip().endswith("?")),
        float(bool(_CODE.search(text))),
        float(any(mark in lower for mark in _SHORT)),
        float(any(mark in lower for mark in _LONG)),
        float(first in ("what", "who", "when", "where", "which")),
        float(first in ("how", "why")),
        *(float(verb in said) for verb in _VERBS),
    ]


def hashed(text: str) -> NDArray[np.float64]:
    """Words and pairs of words of a text, counted by bucket of a hash, [BUCKETS]."""
    words = [w.lower() for w in _WORD.findall(text)]
    found = np.zeros(BUCKETS)
    for term in [*words, *(f"{a} {b}" for a, b in pairwise(words))]:
        found[zlib.crc32(term.encode("utf-8", "surrogatepass")) % BUCKETS] += 1
    return found


def document_weights(texts: Sequence[str]) -> NDArray[np.float64]:
    """How rare each bucket is among some texts, [BUCKETS]."""
    seen = sum((hashed(text) > 0 for text in texts), np.zeros(BUCKETS))
    return np.log((1 + len(texts)) / (1 + seen)) + 1


def weighted(text: str, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log counts times rarity, of length 1, [BUCKETS]."""
    found = np.log1p(hashed(text)) * weights
    size = float(np.linalg.norm(found))
    scaled: NDArray[np.float64] = found / size if size else found
    return scaled
