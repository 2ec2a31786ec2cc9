"""TSort without writing: the order of segments that a model finds likeliest.

What: the 24 orders are ranked by the sum of log-likelihoods of each segment given the one before
it, so that a model which cannot follow the instruction still shows whether it sees the order.
Source: an addition; the paper attributes the failure of open models to instruction following.
Differs from the paper: nothing is generated. Segments are compared by their first tokens only
(`head`), after the last words of the segment before; the text before the first and after the last
takes part. Every order sums the same number of terms, so lengths do not favour one.
Cost: N + 1 reads of a prompt and (N + 1) * N scored pieces, against one read of N segments.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from unspool.errors import ConfigError
from unspool.types import LanguageModel


class Ranked(NamedTuple):
    """Orders by likelihood."""

    order: list[int]
    """The likeliest, as labels in the order of the text."""
    scores: dict[tuple[int, ...], float]
    """Nats of every order."""
    read_tokens: int


def rank_orders(
    model: LanguageModel,
    segments: Sequence[str],
    *,
    before: str = "",
    after: str = "",
    head: int = 400,
    tail: int = 1200,
) -> Ranked:
    """Rank the orders of shuffled segments.

    Args:
        model: Anything that scores continuations.
        segments: As shown; segment 1 first.
        before: Text before the first segment; empty: none.
        after: Text after the last.
        head: Characters of a segment that are scored.
        tail: Characters of the text before it that are read.

    Raises:
        ConfigError: Fewer than two segments, more than seven, or a head or tail below 1.
    """
    count = len(segments)
    if not 2 <= count <= 7:
        raise ConfigError(f"Orders of 2 to 7 segments are ranked, got {count}.")
    if head < 1 or tail < 1:
        raise ConfigError(f"head and tail must be >= 1, got {head} and {tail}.")
    table: dict[tuple[int, int], float] = {}
    read = 0
    # Place 0 is the text before, 1..N the segments, N + 1 the text after.
    pieces = [before, *segments, after]
    for here in range(count + 1):
        followers = [i for i in range(1, count + 2) if i != here and pieces[i].strip()]
        if here == 0 or not followers:
            followers = [i for i in followers if i != count + 1]
        if not followers:
            continue
        # Without a text before, the first segment is scored on its own, or orders that begin with
        # an unlikely one would gain by leaving it out.
        prompt = pieces[here].strip()[-tail:] or "\n"
        heads = ["\n" + pieces[i].strip()[:head] for i in followers]
        for follower, scored in zip(followers, model.logprobs(prompt, heads), strict=True):
            table[here, follower] = scored.total
            read += scored.usage.read_tokens
    scores = {
        order: sum(table.get(pair, 0.0) for pair in itertools.pairwise((0, *order, count + 1)))
        for order in itertools.permutations(range(1, count + 1))
    }
    best = max(scores, key=lambda order: scores[order])
    return Ranked(list(best), scores, read)
