"""What can be said of generated texts without a judge: repetition, variety, overlap, features.

What: repeated n-grams of a text, distinct n-grams of a set, words and names shared with what a
person wrote, features for MAUVE, and paired differences of two arms with intervals.
Source: Welleck et al. (2020), seq-rep-n; Li et al. (2016), distinct-n; Wang et al. (2023),
section 4, for the choice.
Differs from the paper: names are words with a capital or a digit, since a tagger cannot be had
everywhere; features are the model's own last hidden state.
Cost: linear in the texts; one pass of the model a text for features.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unspool.forensics.knn_lm.read import last_only
from unspool.forensics.knn_lm.states import Capture, Place

_WORD = re.compile(r"\w+")


class Difference(NamedTuple):
    """The mean of paired differences and its 95% interval."""

    mean: float
    low: float
    high: float


def seq_rep(ids: Sequence[int] | NDArray[np.int32], n: int = 4) -> float:
    """Share of the n-grams of a text that stood in it before; 0 if it has none."""
    row = [int(i) for i in ids]
    grams = [tuple(row[i : i + n]) for i in range(len(row) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def distinct(texts: Sequence[Sequence[int] | NDArray[np.int32]], n: int = 2) -> float:
    """Distinct n-grams of a set of texts over all of them; 0 if there are none."""
    rows = [[int(i) for i in ids] for ids in texts]
    grams = [tuple(row[i : i + n]) for row in rows for i in range(len(row) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def word_overlap(text: str, reference: str) -> float:
    """F1 of the words of two texts, each word as often as it occurs, case aside."""
    return _f1(Counter(_WORD.findall(text.lower())), Counter(_WORD.findall(reference.lower())))


def name_overlap(text: str, reference: str) -> float:
    """F1 of the sets of words that hold a capital letter or a digit."""
    return _f1(Counter(set(_names(text))), Counter(set(_names(reference))))


def _names(text: str) -> list[str]:
    return [w for w in _WORD.findall(text) if any(c.isupper() or c.isdigit() for c in w)]


def _f1(a: Counter[str], b: Counter[str]) -> float:
    shared = (a & b).total()
    return 2 * shared / (a.total() + b.total()) if shared else 0.0


def paired(
    first: Sequence[int | float], second: Sequence[int | float], seed: int = 0, rounds: int = 2000
) -> Difference:
    """second - first over pairs, the interval by drawing pairs anew."""
    gaps = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(0, len(gaps), (rounds, len(gaps)))
    low, high = np.quantile(gaps[draws].mean(axis=1), [0.025, 0.975])
    return Difference(float(gaps.mean()), float(low), float(high))


def features(
    model: Any, rows: NDArray[np.int32], before: Sequence[int] = (), batch: int = 16
) -> NDArray[np.float32]:
    """The state that a model's last layer ends a text with, [n, D].

    Args:
        model: A causal language model of transformers.
        rows: Texts of one length, [n, L].
        before: Put before every text.
        batch: Texts read at once.
    """
    import torch

    head = Place("the output layer", model.get_output_embeddings(), "ffn_input")
    found, keep = [], last_only(model)
    with torch.inference_mode(), Capture(head) as capture:
        for start in range(0, len(rows), batch):
            some = rows[start : start + batch].astype(np.int64)
            ahead = np.tile(np.asarray(before, dtype=np.int64), (len(some), 1))
            ids = torch.from_numpy(np.concatenate([ahead, some], axis=1)).to(model.device)
            model(ids, use_cache=False, **keep)
            found.append(capture.take(len(some))[:, -1].cpu().numpy())
    return np.concatenate(found)
