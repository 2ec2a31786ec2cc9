"""Which blocks of keys a block of queries meets, as sorted index lists.

What: the form in which every sparse pattern reaches a back-end: block-sparse training (64 x 64),
query tiles with small runs of keys (64 x 2), and per-head lists of kept keys (all x 1).
Source: FlashAttention (Dao et al. 2022), section 3.3, a mask over blocks; compressed per row as in
FlexAttention.
Differs from the paper's code: any two block sizes, the last blocks may be short, one list a batch
row and head or shared, and lists instead of a dense block matrix.
Cost: 4 bytes a listed block. Shapes: B batch, H heads, NQ query blocks, NK key blocks, M the
longest list, T queries, S keys.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from unspool.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ALL = 1 << 30
"""`block_q` of a mask whose one query block holds all queries."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BlockMask:
    """Query block i meets key blocks `indices[..., i, :counts[..., i]]`, ascending, distinct."""

    block_q: int
    """Rows i * block_q … of T queries are block i; the last may be short."""
    block_k: int
    """Columns j * block_k … of S keys are block j; the last may be short."""
    indices: Tensor
    """int32 [B|1, H|1, NQ, M]; unused entries are 0. H is that of the queries, of the keys, or
    1."""
    counts: Tensor
    """int32 [B|1, H|1, NQ]."""

    def __post_init__(self) -> None:
        import torch

        for name in ("block_q", "block_k"):
            if getattr(self, name) < 1:
                raise ConfigError(f"BlockMask needs {name} >= 1, got {name}={getattr(self, name)}.")
        if self.indices.ndim != 4 or self.counts.shape != self.indices.shape[:3]:
            raise ConfigError(
                "BlockMask needs indices [B, H, NQ, M] and counts [B, H, NQ], got "
                f"{tuple(self.indices.shape)} and {tuple(self.counts.shape)}."
            )
        for name in ("indices", "counts"):
            if getattr(self, name).dtype != torch.int32:
                raise ConfigError(
                    f"BlockMask needs int32 {name}, got {getattr(self, name).dtype}; "
                    "use from_dense or kept, or convert."
                )

    @classmethod
    def from_dense(cls, blocks: Tensor, *, block_q: int, block_k: int) -> BlockMask:
        """Lists of the true blocks.

        Args:
            blocks: [NQ, NK], [H, NQ, NK] or [B, H, NQ, NK] bool, True is met.
            block_q: Queries a block.
            block_k: Keys a block.
        """
        import torch

        if blocks.ndim not in (2, 3, 4):
            raise ConfigError(
                f"BlockMask.from_dense needs [.., NQ, NK], got {tuple(blocks.shape)}."
            )
        blocks = blocks[(None,) * (4 - blocks.ndim)].bool()
        counts = blocks.sum(-1, dtype=torch.int32)
        width = int(counts.max()) if counts.numel() else 0
        order = torch.argsort(~blocks, dim=-1, stable=True)[..., :width]  # the true ones first
        used = torch.arange(width, device=blocks.device) < counts[..., None]
        indices = order.masked_fill(~used, 0).int().contiguous()
        return cls(block_q=block_q, block_k=block_k, indices=indices, counts=counts)

    @classmethod
    def kept(cls, keys: Tensor) -> BlockMask:
        """One list of keys a head, met by every query.

        Args:
            keys: [B, H, K] integer columns of the keys in any order, distinct; -1 is unused.
        """
        import torch

        if keys.ndim != 3:
            raise ConfigError(f"BlockMask.kept needs [B, H, K], got {tuple(keys.shape)}.")
        last = torch.iinfo(torch.int32).max
        ordered = keys.masked_fill(keys < 0, last).int().sort(dim=-1).values
        used = ordered != last
        return cls(
            block_q=ALL,
            block_k=1,
            indices=ordered.masked_fill(~used, 0)[:, :, None],
            counts=used.sum(-1, dtype=torch.int32)[:, :, None],
        )

    @property
    def num_heads(self) -> int:
        """Heads that the lists tell apart."""
        return self.indices.shape[1]

    def to(self, device: torch.device | str) -> BlockMask:
        """The same lists on another device."""
        return replace(self, indices=self.indices.to(device), counts=self.counts.to(device))

    def pairs(self, num_queries: int, num_keys: int) -> int:
        """(query, key) pairs within the listed blocks, over all batch rows and heads of the
        lists."""
        import torch

        starts = torch.arange(self.indices.shape[2], device=self.indices.device) * self.block_q
        rows = (num_queries - starts).clamp(0, self.block_q)
        columns = (num_keys - self.indices.long() * self.block_k).clamp(0, self.block_k)
        used = torch.arange(self.indices.shape[3], device=self.indices.device)
        columns = columns.masked_fill(used >= self.counts[..., None], 0)
        return int((columns.sum(-1) * rows).sum())

    def blocks(self, num_keys: int, rows: slice | None = None) -> Tensor:
        """bool [B|1, H|1, NQ, NK]: which blocks are listed, for some query blocks."""
        import torch

        indices, counts = self.indices, self.counts
        if rows is not None:
            indices, counts = indices[:, :, rows], counts[:, :, rows]
        num_blocks = -(-num_keys // self.block_k)
        used = torch.arange(indices.shape[3], device=indices.device) < counts[..., None]
        out = torch.zeros(
            *indices.shape[:3], num_blocks + 1, dtype=torch.bool, device=indices.device
        )
        at = indices.long().clamp(max=num_blocks).masked_fill(~used, num_blocks)
        return out.scatter_(-1, at, used)[..., :num_blocks]  # the spare column takes the unused

    def dense(self, num_queries: int, num_keys: int, rows: slice | None = None) -> Tensor:
        """The pattern as a bool mask [B|1, H|1, T, S], or of some of its rows."""
        import torch

        wanted = range(num_queries)[rows if rows is not None else slice(None)]
        first, last = wanted.start // self.block_q, -(-max(1, wanted.stop) // self.block_q)
        if last > self.indices.shape[2]:
            raise ConfigError(
                f"BlockMask lists {self.indices.shape[2]} blocks of {self.block_q} queries, and "
                f"there are {num_queries} queries."
            )
        blocks = self.blocks(num_keys, slice(first, last))
        row = torch.arange(wanted.start, wanted.stop, device=blocks.device) // self.block_q - first
        column = torch.arange(num_keys, device=blocks.device) // self.block_k
        return blocks.index_select(2, row).index_select(3, column)
