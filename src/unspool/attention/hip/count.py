"""What HiP attention costs, counted: products of the search and of the attention.

What: multiply-adds as two operations, for any length, from the sizes alone.
Source: Lee et al. (2024), "HiP Attention", section 3.4 (O(T log T)).
Differs from the paper: exact counts of this project's search, block by block, checked against the
operations that PyTorch counts.
Cost: O(T / block_q). Shapes: counts are for one head; T queries at the end of S keys.
"""

from __future__ import annotations

from typing import NamedTuple

from unspool.attention.hip.layout import BlockLayout
from unspool.attention.hip.search import rounds


class HipCost(NamedTuple):
    """Operations of one head."""

    search: int
    attend: int
    dense: int
    """What causal attention over every key takes."""

    @property
    def total(self) -> int:
        """Of HiP."""
        return self.search + self.attend


def hip_cost(
    num_queries: int,
    num_keys: int,
    layout: BlockLayout,
    head_dim: int,
    *,
    block_q: int | None = None,
) -> HipCost:
    """Operations of a call.

    Args:
        num_queries: T.
        num_keys: S.
        layout: Sizes.
        head_dim: D, of keys and values.
        block_q: 1 for a written token; None: that of the layout.
    """
    frame = layout.frame(num_queries, num_keys, block_q=block_q)
    samples = -(-frame.block_q // layout.stride)
    looked = 2 * layout.num_kept * layout.block_k * samples
    search = attended = 0
    for count, first, last, near in zip(
        *(x.tolist() for x in (frame.searched, frame.first, frame.last, frame.near)), strict=True
    ):
        search += looked * rounds(count, layout.num_kept)
        far = min(near, frame.low) + min(count, layout.num_kept)
        listed = far * layout.block_k + last + 1 - near * layout.block_k
        attended += listed * (last + 1 - first)
    begin = num_keys - num_queries
    pairs = num_queries * (2 * begin + num_queries + 1) // 2
    return HipCost(2 * head_dim * search, 4 * head_dim * attended, 4 * head_dim * pairs)
