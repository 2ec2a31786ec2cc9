"""Where in the prompt a label was shown, and what that does to answers.

What: accuracy by the place of the right label's last demonstration, and how often labels of each
part of the prompt were answered; and the nearest demonstration as a reference without a model.
Source: Li et al. (2024), arXiv 2404.02060, section 5 (scattered and grouped labels).
Differs from the paper: parts of equal numbers of labels, and a Wilson interval for the last one.
Cost: linear in the answers; the reference is one matrix of word weights.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from unspool.errors import ConfigError
from unspool.evaluation.intervals import wilson

PARTS = 5


@dataclass(frozen=True, slots=True)
class PositionReport:
    """Answers by place; part 0 holds the labels shown first."""

    accuracy: tuple[float | None, ...]
    """Of the items whose right label is in each part; None where there are none."""
    predicted: tuple[float, ...]
    """Share of the answers that name a label of each part."""
    last_low: float
    """Lower end of the 95% interval of the last part's share."""
    answers: int
    """Answers that name a shown label."""


def position_report(
    said: Sequence[str], gold: Sequence[str], order: Sequence[str], *, parts: int = PARTS
) -> PositionReport:
    """Accuracy and answers by the place of labels.

    Args:
        said: Label that each answer gives.
        gold: The right ones.
        order: Labels in the order in which they were last shown.
        parts: Of how many labels each, as evenly as they divide.

    Raises:
        ConfigError: Lists of different lengths, nothing in them, or fewer labels than parts.
    """
    if len(said) != len(gold) or not said:
        raise ConfigError(f"Give an answer for each item, got {len(said)} for {len(gold)}.")
    if not 1 <= parts <= len(order):
        raise ConfigError(f"{len(order)} labels cannot be divided into {parts} parts.")
    part = {label: place * parts // len(order) for place, label in enumerate(order)}
    right: Counter[int] = Counter()
    asked: Counter[int] = Counter()
    named: Counter[int] = Counter()
    for answer, wanted in zip(said, gold, strict=True):
        if wanted in part:
            asked[part[wanted]] += 1
            right[part[wanted]] += answer == wanted
        if answer in part:
            named[part[answer]] += 1
    total = sum(named.values())
    low = wilson(named[parts - 1], total)[0] if total else 0.0
    return PositionReport(
        tuple(right[p] / asked[p] if asked[p] else None for p in range(parts)),
        tuple(named[p] / total if total else 0.0 for p in range(parts)),
        low,
        total,
    )


def nearest(texts: Sequence[str], labels: Sequence[str], tests: Sequence[str]) -> list[str]:
    """Label of the most similar demonstration (TF-IDF, cosine): what needs no model."""
    bags = [Counter(text.lower().split()) for text in texts]
    documents = Counter(word for bag in bags for word in bag)
    weight = {word: math.log(len(bags) / n) + 1 for word, n in documents.items()}

    def vector(bag: Counter[str]) -> dict[str, float]:
        raw = {word: n * weight[word] for word, n in bag.items() if word in weight}
        norm = math.sqrt(sum(value * value for value in raw.values())) or 1.0
        return {word: value / norm for word, value in raw.items()}

    known = [vector(bag) for bag in bags]
    found = []
    for test in tests:
        asked = vector(Counter(test.lower().split()))
        scores = [sum(value * other.get(w, 0.0) for w, value in asked.items()) for other in known]
        found.append(labels[max(range(len(scores)), key=lambda i: (scores[i], -i))])
    return found
