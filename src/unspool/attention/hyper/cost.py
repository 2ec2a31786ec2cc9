"""How many pairs a call computes, from its sizes alone.

What: exact pairs of the leaves, pairs of sorted blocks, pairs with the sample, and the operations
of both products over all of them.
Source: Han et al. (2023), "HyperAttention", theorem 1 (n^(1 + o(1)) d) with the constants of the
implementation.
Differs from a bound: it counts what is computed, also pairs that a mask takes out again.
Cost: nothing. Shapes: T queries, S keys, D head size.
"""

from __future__ import annotations

from typing import NamedTuple

from unspool.attention.hyper.functional import is_exact
from unspool.attention.hyper.plan import Settings, block_sizes, windows


class Pairs(NamedTuple):
    """(query, key) pairs of one head."""

    exact: int
    """In causal squares, or everywhere where the call approximates nothing."""
    blocks: int
    """A query with the keys of its sorted block, empty slots included."""
    samples: int
    """A query with sampled keys and sinks, those of its own block included."""

    @property
    def total(self) -> int:
        return self.exact + self.blocks + self.samples


def count_pairs(num_queries: int, num_keys: int, settings: Settings) -> Pairs:
    """Pairs of one head that a call computes."""
    before = num_keys - num_queries
    if is_exact(num_queries, num_keys, settings):
        if not settings.causal:
            return Pairs(num_queries * num_keys, 0, 0)
        return Pairs(num_queries * before + _triangle(num_queries), 0, 0)
    found, leaves, leaf = windows(num_queries, num_keys, settings)
    blocks = samples = 0
    for window in found:
        count, keys, queries = block_sizes(window, settings)
        rows = window.pieces * count * queries
        blocks += rows * (keys if settings.block else 0)
        whole = settings.block > 0 and count == 1
        drawn = 0 if whole else min(settings.samples, window.keys)
        samples += rows * (drawn + window.sinks)
    return Pairs(leaves * _triangle(leaf), blocks, samples)


def forward_flops(
    num_queries: int, num_keys: int, num_heads: int, head_dim: int, settings: Settings
) -> int:
    """Operations of both products of the forward pass, hashing and sorting left out."""
    return 4 * num_heads * head_dim * count_pairs(num_queries, num_keys, settings).total


def _triangle(side: int) -> int:
    return side * (side + 1) // 2
