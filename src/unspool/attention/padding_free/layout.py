"""Where the tokens of one padded batch lie while a model runs it packed.

What: sentences ordered by length, so that those of one length are neighbours and can be attended
as a dense batch without copying; position numbers that restart; boundaries for kernels.
Source: Zhai et al. (2022), "ByteTransformer", section 3.2; transformers' flattened batches
(position ids that restart, cumulative lengths as keyword arguments).
Differs from the released code: packed once for the whole model, not in every layer; the order of
sentences is free, so it serves the attention.
Cost: one pass over the mask and one copy from the host. Shapes: B sentences, S padded length, T
real tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unspool.attention.padding_free.packing import scatter

if TYPE_CHECKING:
    import numpy as np
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
    """int64 [T + tail], from 0 in every sentence; 0 in the filling."""
    tail: int
    batch_shape: tuple[int, int]
    in_graph: bool = False
    """Stands for any layout of its size while a CUDA graph is captured: lengths are not known, and
    `indices` send the filling to a row behind the batch."""

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
        spare = 1 if self.in_graph else 0
        return scatter(x[0, : self.tokens], self.indices, self.batch_shape, spare=spare)


def arrange(mask: torch.Tensor, device: torch.device, *, multiple: int = 1) -> Layout:
    """The layout of a batch.

    Args:
        mask: bool [B, S] on the host.
        device: Where the model is.
        multiple: Fill the row up to a multiple of this, so that few shapes occur; the longest
            sentence is said to be as long as the next multiple of 64 then.
    """
    import numpy as np

    host = mask.numpy()
    rows, columns = host.shape
    lengths = host.sum(1)
    order = np.argsort(-lengths, kind="stable")
    moved = (order - np.arange(rows)) * columns  # from the sorted batch to the batch as it came
    indices = np.flatnonzero(host[order]) + np.repeat(moved, lengths[order])
    kept = [n for n in lengths[order].tolist() if n]
    tokens = len(indices)
    tail = -tokens % multiple if tokens else max(1, multiple)
    if tail:
        kept.append(tail)
    longest = max(kept)
    if multiple > 1:
        longest = -(-longest // 64) * 64
    return _placed(indices, kept, longest, tail, (rows, columns), device)


def flat(lengths: Sequence[int], device: torch.device) -> Layout:
    """The layout of a row that is packed already: its sentences in their own order."""
    import numpy as np

    kept = [n for n in lengths if n]
    tokens = sum(kept)
    return _placed(np.arange(tokens), kept, max(kept), 0, (1, tokens), device)


def _placed(
    indices: np.ndarray[Any, Any],
    kept: list[int],
    longest: int,
    tail: int,
    batch_shape: tuple[int, int],
    device: torch.device,
) -> Layout:
    """A layout on a device: its three tensors travel as one, from memory that is copied without
    waiting."""
    import numpy as np
    import torch

    sizes = np.array(kept)
    ends = sizes.cumsum()
    tokens, total = len(indices), int(ends[-1])
    numbers = torch.empty(
        tokens + total + (len(kept) + 2) // 2,
        dtype=torch.int64,
        pin_memory=device.type == "cuda",
    )
    host = numbers.numpy()
    host[:tokens] = indices
    host[tokens : tokens + total] = np.arange(total) - np.repeat(ends - sizes, sizes)
    host[2 * tokens : tokens + total] = 0  # the filling may be longer than the model has positions
    starts = host[tokens + total :].view(np.int32)
    starts[0] = 0
    starts[1 : len(kept) + 1] = ends
    there = numbers.to(device, non_blocking=True)
    return Layout(
        lengths=tuple(kept),
        cu_seqlens=there[tokens + total :].view(torch.int32)[: len(kept) + 1],
        max_seqlen=longest,
        indices=there[:tokens],
        position_ids=there[tokens : tokens + total],
        tail=tail,
        batch_shape=batch_shape,
    )


def count_up(lengths: Sequence[int]) -> Tensor:
    """0, 1, … in every sentence, one behind the other."""
    import torch

    sizes = torch.tensor(lengths)
    starts = torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
    return torch.arange(int(sizes.sum())) - starts
