"""Pack the real tokens of a padded batch into one row, and put them back.

What: `pack` drops the padding of a tensor [B, S, …] and keeps where each token came from; `unpack`
is its exact inverse on real tokens. Both are differentiable.
Source: Zhai et al. (2022), "ByteTransformer", section 3.2 (offsets by an exclusive prefix sum of
the mask).
Differs from the released code: any mask (holes, left or right padding, empty sentences), any
dtype and trailing shape, and offsets computed on the host, where the lengths are known anyway: a
mask on a GPU costs one copy, a mask on the host none.
Cost: one gather. Shapes: B sentences, S padded length, T real tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from unspool.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """The real tokens of a batch, sentence behind sentence."""

    data: Tensor
    """[T, …]."""
    cu_seqlens: Tensor
    """int32 [B + 1]: sentence i is data[cu_seqlens[i] : cu_seqlens[i + 1]]."""
    max_seqlen: int
    """Tokens of the longest sentence."""
    indices: Tensor
    """int64 [T]: row in the flattened padded batch that each token came from."""
    batch_shape: tuple[int, int]
    """(B, S)."""

    def with_data(self, data: Tensor) -> Packed:
        """The same places with other values.

        Raises:
            ConfigError: Not as many rows as there are tokens.
        """
        if data.shape[0] != self.indices.shape[0]:
            raise ConfigError(
                f"{self.indices.shape[0]} tokens are packed, and the new data has {data.shape[0]}."
            )
        return replace(self, data=data)


def pack(x: Tensor, mask_or_lengths: Tensor | Sequence[int]) -> Packed:
    """Drop the padding of a batch.

    Args:
        x: [B, S, …], of any dtype: ids, labels, hidden states.
        mask_or_lengths: [B, S] of 0 and 1 (or bool), which may have holes; or [B] lengths of
            sentences that are padded on the right. On the host if possible: it is read there.

    Raises:
        ConfigError: A mask of another shape or with other values, lengths out of range.
    """
    if x.ndim < 2:
        raise ConfigError(f"pack needs a tensor [B, S, …], got shape {tuple(x.shape)}.")
    rows, columns = int(x.shape[0]), int(x.shape[1])
    mask = read_mask(mask_or_lengths, rows, columns)
    lengths = mask.sum(1)
    indices = mask.flatten().nonzero().flatten().to(x.device)
    return Packed(
        data=x.reshape(rows * columns, *x.shape[2:])[indices],
        cu_seqlens=boundaries(lengths).to(x.device),
        max_seqlen=int(lengths.max()) if rows else 0,
        indices=indices,
        batch_shape=(rows, columns),
    )


def unpack(packed: Packed, fill: float | int = 0) -> Tensor:
    """The padded batch again, with `fill` where there is no token."""
    return scatter(packed.data, packed.indices, packed.batch_shape, fill)


def scatter(
    data: Tensor,
    indices: Tensor,
    batch_shape: tuple[int, int],
    fill: float | int = 0,
    *,
    spare: int = 0,
) -> Tensor:
    """[T, …] at `indices` of a flattened batch [B, S, …]; `fill` elsewhere. `spare` rows behind the
    batch take what belongs nowhere."""
    rows, columns = batch_shape
    empty = data.new_full((rows * columns + spare, *data.shape[1:]), fill)
    placed = empty.index_copy_(0, indices, data)[: rows * columns]
    return placed.reshape(rows, columns, *data.shape[1:])


def boundaries(lengths: Tensor) -> Tensor:
    """int32 [B + 1] cumulative lengths from 0."""
    import torch

    cumulative = torch.zeros(lengths.shape[0] + 1, dtype=torch.int32, device=lengths.device)
    cumulative[1:] = lengths.cumsum(0)
    return cumulative


def read_mask(mask_or_lengths: Tensor | Sequence[int], rows: int, columns: int) -> torch.Tensor:
    """A mask or lengths as a bool mask [B, S] on the host.

    Raises:
        ConfigError: Another shape, other values than 0 and 1, or a length out of range.
    """
    import torch

    given = torch.as_tensor(mask_or_lengths).detach().cpu()
    if given.ndim == 1:
        if given.shape[0] != rows or given.dtype.is_floating_point or given.dtype == torch.bool:
            raise ConfigError(
                f"Lengths must be {rows} integers, got {given.dtype} of shape {tuple(given.shape)}."
            )
        if rows and not 0 <= int(given.min()) <= int(given.max()) <= columns:
            raise ConfigError(
                f"Lengths must lie between 0 and {columns}, got {int(given.min())} to "
                f"{int(given.max())}."
            )
        return torch.arange(columns)[None] < given[:, None]
    if tuple(given.shape) != (rows, columns):
        raise ConfigError(
            f"A mask of shape ({rows}, {columns}) or {rows} lengths are needed, got shape "
            f"{tuple(given.shape)}."
        )
    mask = given.bool()
    if not torch.equal(mask.to(given.dtype), given):
        raise ConfigError("A padding mask holds 0 and 1 only; this one holds other values too.")
    return mask
