"""Where the blocks of a sparse pattern lie: what is always met, and what is searched.

What: cuts T queries at the end of S keys into blocks, and says for each block which keys it always
meets (sinks, newest keys) and which range is left to a search.
Source: Lee et al. (2024), "HiP Attention", section 3; the window and sinks as in the released v1.1.
Differs from the released code: blocks of queries start at multiples of `block_q` in the text, so
cutting a text into chunks of that multiple changes nothing; a block always meets its own keys,
however small the window is; sizes that are no multiple of `block_k` are rounded up and said so.
Cost: O(T / block_q). Shapes: NQ query blocks; key blocks count `block_k` keys from the first key.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from unspool.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockLayout:
    """Sizes of a pattern of kept blocks, in tokens."""

    k_tokens: int = 512
    """Keys that a search keeps for each block of queries."""
    block_q: int = 64
    """Queries that share a choice while a text is read; a written token chooses alone."""
    block_k: int = 2
    """Keys a block."""
    window: int = 256
    """Newest keys that are always met, counted from the last query of a block."""
    sink: int = 16
    """First keys that are always met."""
    stride: int = 2
    """Every how many-th query of a block takes part in the choice, counted from its last one."""

    def __post_init__(self) -> None:
        least = {"k_tokens": 0, "block_q": 1, "block_k": 1, "window": 0, "sink": 0, "stride": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ConfigError(
                    f"A pattern of blocks needs {name} >= {bound}, got {name}={getattr(self, name)}"
                    "."
                )

    @property
    def num_kept(self) -> int:
        """Blocks of keys that a search keeps."""
        return -(-self.k_tokens // self.block_k)

    def rounded(self, *, say: bool = True) -> BlockLayout:
        """The layout in whole blocks of keys; `say` warns if that changed something."""
        sizes = {
            name: -(-getattr(self, name) // self.block_k) * self.block_k
            for name in ("k_tokens", "window", "sink")
        }
        changed = [f"{name}={value}" for name, value in sizes.items() if value != self[name]]
        if changed and say:
            warnings.warn(
                f"Rounded up to whole blocks of {self.block_k} keys: {', '.join(changed)}.",
                UserWarning,
                stacklevel=3,
            )
        return replace(self, **sizes) if changed else self

    def __getitem__(self, name: str) -> int:
        return int(getattr(self, name))

    def frame(
        self,
        num_queries: int,
        num_keys: int,
        *,
        causal: bool = True,
        block_q: int | None = None,
    ) -> Frame:
        """The blocks of `num_queries` queries that stand at the end of `num_keys` keys."""
        import torch

        if num_queries > num_keys and causal:
            raise ConfigError(
                f"Causal attention needs as many keys as queries, got {num_queries} queries and "
                f"{num_keys} keys."
            )
        size = self.block_q if block_q is None else block_q
        start = num_keys - num_queries if causal else 0
        lead = start % size
        count = -(-(lead + num_queries) // size)
        edges = torch.arange(count) * size + (start - lead)
        first = edges.clamp(min=start)
        last = (edges + size - 1).clamp(max=start + num_queries - 1)
        if causal:
            near = torch.minimum(last + 1 - self.window, first).clamp(min=0) // self.block_k
            end = last // self.block_k + 1
        else:
            near = torch.full_like(first, num_keys // self.block_k)
            end = torch.full_like(first, -(-num_keys // self.block_k))
        return Frame(
            layout=self, block_q=size, start=start, lead=lead, num_queries=num_queries,
            num_keys=num_keys, first=first, last=last, near=near, end=end, causal=causal,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """The blocks of one call. Tensors are int64 [NQ], on the CPU: nothing waits for a device."""

    layout: BlockLayout
    block_q: int
    start: int
    """Position of the first query."""
    lead: int
    """Rows that the first block lacks at its front."""
    num_queries: int
    num_keys: int
    first: Tensor
    """Position of a block's first query."""
    last: Tensor
    """Position of its last one."""
    near: Tensor
    """Key block from which on everything is met."""
    end: Tensor
    """Key block behind the last one met."""
    causal: bool = True

    @property
    def num_blocks(self) -> int:
        return len(self.first)

    @property
    def low(self) -> int:
        """First key block that is searched."""
        return self.layout.sink // self.layout.block_k

    @property
    def searched(self) -> Tensor:
        """Key blocks in the range of each search: [NQ]."""
        return (self.near - self.low).clamp(min=0)

    def rows(self, blocks: slice) -> Frame:
        """Some of the query blocks."""
        parts = {name: getattr(self, name)[blocks] for name in ("first", "last", "near", "end")}
        return replace(self, **parts)

    def samples(self) -> Tensor:
        """Rows (of the call's queries) that choose for each block: int64 [NQ, P].

        Every `stride`-th query counted from the block's last; where a block has fewer, its last
        stands in again, which changes no maximum.
        """
        import torch

        stride = self.layout.stride
        steps = torch.arange(0, self.block_q, stride)
        at = self.last[:, None] - steps
        return torch.where(at >= self.first[:, None], at, self.last[:, None]) - self.start
