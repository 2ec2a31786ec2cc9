"""Overlap of words: F1 of bags (question answering) and of sets (lists of ids).

Source: Rajpurkar et al. (2016), section 6.1; LongBench `metrics.py`; M4LE `evaluation.py`.
Differs from the released code: none in the numbers.
Cost: O(length).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

from unspool.evaluation.metrics.normalise import normalise, normalise_zh
from unspool.evaluation.metrics.words import cut


def bag_f1(prediction: Sequence[Hashable], reference: Sequence[Hashable]) -> float:
    """F1 of two bags of tokens; 0 when they share none, also when both are empty."""
    shared = sum((Counter(prediction) & Counter(reference)).values())
    if shared == 0:
        return 0.0
    precision = 1.0 * shared / len(prediction)
    recall = 1.0 * shared / len(reference)
    return (2 * precision * recall) / (precision + recall)


def qa_f1(prediction: str, reference: str) -> float:
    """F1 of the words that are left after `normalise`."""
    return bag_f1(normalise(prediction).split(), normalise(reference).split())


def words_zh(text: str) -> list[str]:
    """Words of the raw text, each normalised, the empty ones dropped (in this order)."""
    return [word for word in map(normalise_zh, cut(text)) if word]


def qa_f1_zh(prediction: str, reference: str) -> float:
    """F1 of Chinese words: cut first, normalise after."""
    return bag_f1(words_zh(prediction), words_zh(reference))


def set_f1(prediction: Iterable[Hashable], reference: Iterable[Hashable]) -> float:
    """F1 of two sets; 0 when they share nothing. Neither may be empty."""
    predicted, wanted = set(prediction), set(reference)
    right = len(predicted & wanted)
    precision = right / len(predicted)
    recall = right / len(wanted)
    if not precision + recall:
        return 0.0
    return 2 * precision * recall / (precision + recall)
