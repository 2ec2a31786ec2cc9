"""ROUGE-1, -2 and -L as the package `rouge-score` 0.1.2 computes them, without stemming.

Source: Lin (2004), "ROUGE", sections 2 and 3; tokens are runs of `a-z0-9` in the lower-cased text.
Differs from the released code: none in the numbers; the subsequence is found by bit vectors.
rougeLsum, which needs a sentence splitter, is left out: no headline here uses it.
Cost: O(n m / 64).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from unspool.evaluation.metrics.lcs import lcs_length

_TOKEN = re.compile(r"[a-z0-9]+")


class RougeScores(NamedTuple):
    """F of three kinds of overlap, in 0-1."""

    rouge1: float
    rouge2: float
    rougeL: float


def rouge_scores(prediction: str, reference: str) -> RougeScores:
    """F-measures of one pair; 0 where either text has no token."""
    given, wanted = _TOKEN.findall(prediction.lower()), _TOKEN.findall(reference.lower())
    return RougeScores(
        _of_ngrams(given, wanted, 1), _of_ngrams(given, wanted, 2), _of_lcs(given, wanted)
    )


def _of_ngrams(given: Sequence[str], wanted: Sequence[str], n: int) -> float:
    a, b = _ngrams(given, n), _ngrams(wanted, n)
    shared = sum((a & b).values())
    return _f(shared / max(a.total(), 1), shared / max(b.total(), 1))


def _ngrams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(tokens[i:] for i in range(n)), strict=False))


def _of_lcs(given: Sequence[str], wanted: Sequence[str]) -> float:
    if not given or not wanted:
        return 0.0
    length = lcs_length(wanted, given)
    return _f(length / len(given), length / len(wanted))


def _f(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0
