"""Angular hashing whose neighbouring buckets differ in one bit, and sorting by it.

What: the signs of products with random directions, read as a number in a Gray code, so that tokens
in neighbouring buckets lie on the same side of all directions but one.
Source: Han et al. (2023), "HyperAttention", definition 1 (Hamming sorted LSH) and algorithm 1.
Differs from the released code: the bucket is the place of the bit pattern in the Gray sequence. The
code reads the sequence itself as the table, which sends a pattern to another one, so that
neighbouring buckets differ in several bits; `released=True` does the same. Directions come from the
generator that is given, not from a parameter that no checkpoint keeps.
Cost: O(N * D * bits) and a sort. Shapes: x [B, H, N, D], buckets [B, H, N].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAX_BITS = 12
"""Buckets, and one more for what is left out, fit in the 16 bits that are sorted."""


def draw_directions(
    head_dim: int, bits: int, generator: torch.Generator | None, device: torch.device
) -> Tensor:
    """Gaussian directions [head_dim, bits] in float32, drawn where the generator is."""
    import torch

    where = device if generator is None else generator.device
    return torch.randn(head_dim, bits, generator=generator, device=where).to(device)


def gray_rank(code: Tensor) -> Tensor:
    """The place of each bit pattern in the Gray sequence: inverse of `gray_code`."""
    rank = code
    for shift in (1, 2, 4, 8):  # enough for 16 bits
        rank = rank ^ (rank >> shift)
    return rank


def gray_code(rank: Tensor) -> Tensor:
    """The bit pattern at each place of the Gray sequence 0, 1, 3, 2, 6, …"""
    return rank ^ (rank >> 1)


def hash_buckets(x: Tensor, directions: Tensor, *, released: bool = False) -> Tensor:
    """The bucket of each vector, 0 to 2 ** bits - 1.

    Args:
        x: [B, H, N, D].
        directions: [D, bits].
        released: Buckets of the released code, for comparison.

    Returns:
        int32 [B, H, N].
    """
    import torch
    import torch.nn.functional as F

    bits = directions.shape[1]
    table = F.pad(directions, (0, -bits % 8)).to(x.dtype)  # whole rows of 16 bytes
    signs = (x.detach() @ table)[..., :bits] > 0
    weights = 1 << torch.arange(bits, device=x.device, dtype=torch.int32)
    code = (signs * weights).sum(-1, dtype=torch.int32)
    return gray_code(code) if released else gray_rank(code)


def sort_order(buckets: Tensor) -> Tensor:
    """The stable order of the last dimension by bucket, int64."""
    import torch

    if buckets.device.type != "cuda":
        return torch.sort(buckets.short(), dim=-1, stable=True).indices
    # One flat sort: sorting many long rows apart costs a launch a row.
    length = buckets.shape[-1]
    rows = buckets.reshape(-1, length)
    span = 1 << (MAX_BITS + 1)
    fits = len(rows) * span < 1 << 31
    base = torch.arange(len(rows), device=rows.device)[:, None]
    key = (base * span + rows).to(torch.int32 if fits else torch.int64)
    order = torch.sort(key.flatten(), stable=True).indices
    return (order.reshape(rows.shape) - base * length).reshape(buckets.shape)
