"""Where the tokens of one padded batch lie while a model runs it packed.

What: sentences ordered by length, so that those of one length are neighbours and can be attended
as a dense batch without copying; position numbers that restart; boundaries for kernels.
Source: Zhai et al. (2022), "ByteTransformer", section 3.2; transformers' flattened batches
(position ids that restart, cumulative lengths as keyword arguments).
Differs from the released code: packed once for the whole model, not in every layer; the order of
sentences is free, so it serves the attention.
Cost: one pass over the mask on the host. Shapes: B sentences, S padded length, T real tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unspool.attention.padding_free.packing import boundaries, scatter

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """One packed row: T real tokens and, behind them, `tail` tokens of filling."""

    lengths: tuple[int, ...]
    """Of the sentences in packed order, empty ones left out; the filling is the last one."""
    cu_seqlens: Tensor
    """int32 [len(lengths) + 1]."""
    max_seqlen: int
    indices: Tensor
    """int64 [T]: row in the flattened padded batch."""
    position_ids: Tensor
    """int64 [T + tail], from 0 in every sentence."""
    tail: int
    batch_shape: tuple[int, int]

    @property
    def tokens(self) -> int:
        """Real tokens."""
        return int(self.indices.shape[0])

    def pack(self, x: Tensor) -> Tensor:
        """[B, S, …] -> [1, T + tail, …]; the filling is zeros."""
        import torch

        rows, columns = self.batch_shape
        data = x.reshape(rows * columns, *x.shape[2:])[self.indices.to(x.device)]
        if self.tail:
            data = torch.cat([data, data.new_zeros(self.tail, *data.shape[1:])])
        return data[None]

    def unpack(self, x: Tensor) -> Tensor:
        """[1, T + tail, …] -> [B, S, …] with zeros at padding."""
        return scatter(x[0, : self.tokens], self.indices, self.batch_shape)


def arrange(mask: torch.Tensor, device: torch.device, *, multiple: int = 1) -> Layout:
    """The layout of a batch.

    Args:
        mask: bool [B, S] on the host.
        device: Where the model is.
        multiple: Fill the row up to a multiple of this, so that few shapes occur; the longest
            sentence is said to be as long as the next multiple of 64 then.
    """
    import torch

    lengths = mask.sum(1)
    order = torch.argsort(lengths, descending=True, stable=True)
    row, column = mask[order].nonzero(as_tuple=True)
    kept = [n for n in lengths[order].tolist() if n]
    tokens = int(row.shape[0])
    tail = -tokens % multiple if tokens else max(1, multiple)
    if tail:
        kept.append(tail)
    longest = max(kept)
    if multiple > 1:
        longest = -(-longest // 64) * 64
    return Layout(
        lengths=tuple(kept),
        cu_seqlens=boundaries(torch.tensor(kept)).to(device, non_blocking=True),
        max_seqlen=longest,
        indices=(order[row] * mask.shape[1] + column).to(device, non_blocking=True),
        position_ids=count_up(kept).to(device, non_blocking=True),
        tail=tail,
        batch_shape=(int(mask.shape[0]), int(mask.shape[1])),
    )


def flat(lengths: Sequence[int], device: torch.device) -> Layout:
    """The layout of a row that is packed already: its sentences in their own order."""
    import torch

    kept = [n for n in lengths if n]
    return Layout(
        lengths=tuple(kept),
        cu_seqlens=boundaries(torch.tensor(kept)).to(device, non_blocking=True),
        max_seqlen=max(kept),
        indices=torch.arange(sum(kept)).to(device, non_blocking=True),
        position_ids=count_up(kept).to(device, non_blocking=True),
        tail=0,
        batch_shape=(1, sum(kept)),
    )


def count_up(lengths: Sequence[int]) -> Tensor:
    """0, 1, … in every sentence, one behind the other."""
    import torch

    sizes = torch.tensor(lengths)
    starts = torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
    return torch.arange(int(sizes.sum())) - starts
