"""Fill a read budget with the units that score best, and count exactly what they cost.

What: units are taken by falling score until the prompt, as the model will see it, would be longer
than the budget. They are read in document order, neighbours joined, except the best few, which come
last, the best of all next to the question: a small model forgets what lies far back.
Source: the greedy packing of open-domain question answering.
Differs from a sum of lengths: the prompt is rendered and counted with the model's own tokenizer,
template included, so the budget holds to the token.
A unit that repeats a better one word for word is left out.
Cost: a few renderings of the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, groupby, islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unspool.errors import OverflowPolicyError
from unspool.reading.library import Library
from unspool.types import Passage

_PATIENCE = 8
"""Units that are tried when no more fit by the sum of their tokens."""


class Picked(NamedTuple):
    """What a budget was filled with."""

    passages: tuple[Passage, ...]
    """In document order; neighbours are one passage, with the best of their scores."""
    texts: tuple[str, ...]
    """The same units in the order in which the model reads them."""
    units: tuple[int, ...]
    tokens: int
    """Of the whole prompt."""


def fill(
    library: Library,
    scores: NDArray[np.float32],
    counts: NDArray[np.uint32],
    *,
    limit: int,
    measure: Callable[[Sequence[str]], int],
    top_k: int | None = None,
    last: int = 0,
) -> Picked:
    """Pick units until the prompt holds `limit` tokens.

    Args:
        library: The text.
        scores: Of each unit; those without a score are read only if the whole text fits or no unit
            has one (then the text is read from its beginning).
        counts: Tokens of each unit.
        limit: Most tokens of the prompt.
        measure: Tokens of the prompt made of these passages.
        top_k: Most units to pick.
        last: Best units that are read after all others. A text that fits is read as it is.

    Raises:
        OverflowPolicyError: The question alone is longer than the budget.
    """
    base = measure(())
    if base > limit:
        raise OverflowPolicyError(
            f"The question and the instructions take {base:,} tokens, and the read budget is "
            f"{limit:,}. Ask more briefly or raise --read-tokens."
        )
    everything = range(len(library))
    if top_k is None and base + int(counts.sum()) <= limit + len(library):
        picked = _passages(library, scores, everything)
        whole = tuple(p.span.text for p in picked)
        tokens = measure(whole)
        if tokens <= limit:
            return Picked(picked, whole, tuple(everything), tokens)
    candidates = _distinct(library, _order(scores))
    chosen: list[int] = []
    estimate = base
    spare: list[int] = []  # candidates that did not fit by the sum of their tokens
    for unit in candidates:
        if len(chosen) == top_k:
            break
        if estimate + int(counts[unit]) > limit:
            spare.append(unit)
            break
        chosen.append(unit)
        estimate += int(counts[unit])
    texts = _in_reading_order(library, scores, chosen, last)
    tokens = measure(texts)
    while chosen and tokens > limit:
        chosen.pop()
        spare.clear()
        texts = _in_reading_order(library, scores, chosen, last)
        tokens = measure(texts)
    for unit in islice(chain(spare, candidates), _PATIENCE):
        if len(chosen) == top_k:
            break
        fuller = _in_reading_order(library, scores, [*chosen, unit], last)
        cost = measure(fuller)
        if cost <= limit:
            chosen.append(unit)
            texts, tokens = fuller, cost
    passages = _passages(library, scores, chosen)
    return Picked(passages, texts, tuple(sorted(chosen)), tokens)


def _order(scores: NDArray[np.float32]) -> list[int]:
    """Units by falling score, equal ones in document order; without any score, from the start."""
    order: list[int] = np.argsort(-scores, kind="stable").tolist()
    scored = int((scores > 0).sum())
    return order[:scored] if scored else order


def _distinct(library: Library, order: Sequence[int]) -> Iterator[int]:
    """Units in this order, but none that says again what an earlier one said."""
    seen: set[str] = set()
    for unit in order:
        said = " ".join(library.quote(unit, unit).text.split())
        if said and said not in seen:
            seen.add(said)
            yield unit


def _in_reading_order(
    library: Library, scores: NDArray[np.float32], chosen: Sequence[int], last: int
) -> tuple[str, ...]:
    """Texts of the chosen units (given best first): in document order, then the best `last`."""
    earlier = _passages(library, scores, chosen[last:])
    best = [library.quote(unit, unit).text for unit in reversed(chosen[:last])]
    return (*(p.span.text for p in earlier), *best)


def _passages(
    library: Library, scores: NDArray[np.float32], chosen: Sequence[int]
) -> tuple[Passage, ...]:
    """Runs of neighbouring units as passages, in document order."""
    found = []
    # Within a run of neighbours, unit number less place in the list stays the same.
    placed = enumerate(sorted(chosen))
    for _, group in groupby(placed, key=lambda x: (int(library.document[x[1]]), x[1] - x[0])):
        units = [unit for _, unit in group]
        score = float(max(scores[unit] for unit in units))
        found.append(Passage(library.quote(units[0], units[-1]), score))
    return tuple(found)
