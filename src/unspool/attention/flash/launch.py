"""What every launch shares: sizes, strides, descriptors, and the facts of a row in backward.

What: from tensors to the arguments that `kernels` take; `dense` and `listed` launch them.
Source: as the kernels.
Differs from a wrapper a kernel: none repeats what all need.
Cost: microseconds a call. Shapes: q [B, Hq, T, D], k [B, Hkv, S, D], v [B, Hkv, S, Dv].
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor


LOG2E = 1.4426950408889634
FAR = 1 << 30
"""A distance beyond any text: a rule that is not set."""
_ROOM = 160_000
"""Bytes of shared memory that the tiles of the tables take at most."""
_ROWS = 128
"""A multiple of every tile of queries."""


def interpreted() -> bool:
    """Whether Triton interprets its programs on the CPU instead of compiling them."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def power_of_two(n: int) -> int:
    """The least power of two from 16 on that is not below n: what a product of tiles can take."""
    return max(16, 1 << (n - 1).bit_length())


def precision(dtype: torch.dtype) -> str:
    """How products of float32 are taken: exactly, unless PyTorch was told otherwise."""
    import torch

    return "tf32" if dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32 else "ieee"


class Sizes(NamedTuple):
    """The constants of a call that the kernels are compiled for."""

    D: int
    DV: int
    BLOCK_D: int
    BLOCK_DV: int
    GROUPS: int
    PRECISION: str


def sizes_of(q: Tensor, k: Tensor, v: Tensor) -> Sizes:
    """As they are, and as tiles hold them."""
    d, dv = q.shape[-1], v.shape[-1]
    groups = q.shape[1] // k.shape[1]
    return Sizes(d, dv, power_of_two(d), power_of_two(dv), groups, precision(q.dtype))


def strides(*tensors: Tensor) -> list[int]:
    """Of batch, head and row, of each."""
    return [step for x in tensors for step in x.stride()[:3]]


def describable(*tensors: Tensor) -> bool:
    """Whether tiles of these can be loaded by descriptor: aligned, and as wide as a tile."""
    import torch

    if tensors[0].is_cuda and torch.cuda.get_device_capability(tensors[0].device) < (9, 0):
        return False
    return all(
        x.shape[-1] == power_of_two(x.shape[-1])
        and x.data_ptr() % 16 == 0
        and all(step * x.itemsize % 16 == 0 and step > 0 for step in x.stride()[:3])
        for x in tensors
    )


def descriptor(x: Tensor, rows: int) -> Any:
    """Tiles of some rows of one head."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    return TensorDescriptor(x, list(x.shape), list(x.stride()), [1, 1, rows, x.shape[-1]])


def results(q: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    import torch

    out = torch.empty(*q.shape[:3], v.shape[-1], dtype=q.dtype, device=q.device)
    return out, torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)


class RowFacts(NamedTuple):
    """What the backward kernels need of a query beside its weights, in rows of whole tiles."""

    lse2: Tensor
    """float32 [B, Hq, whole tiles of T], base 2, +inf where the weights shall be 0."""
    delta: Tensor
    """float32, as `lse2`: rowsum(dO * O) - dLSE."""


def row_facts(out: Tensor, d_out: Tensor, lse: Tensor, d_lse: Tensor | None) -> RowFacts:
    """Once for both kernels."""
    import torch

    from unspool.attention.flash.kernels.sparse_backward import row_facts as kernel

    batch, num_heads, num_queries, width = out.shape
    padded = -(-num_queries // _ROWS) * _ROWS
    lse2, delta = torch.empty(2, batch, num_heads, padded, dtype=torch.float32, device=out.device)
    step = 32
    kernel[(padded // step, batch * num_heads)](
        out, d_out, lse, lse if d_lse is None else d_lse.contiguous(), lse2, delta,
        *strides(out, d_out), num_queries, padded, num_heads, DV=width,
        BLOCK_DV=power_of_two(width), BLOCK_M=step, WITH_LSE=d_lse is not None,
    )  # fmt: skip
    return RowFacts(lse2, delta)


@cache
def roomy(device: torch.device) -> bool:
    """Whether a block of threads has the shared memory that the tables were made for."""
    import torch

    if device.type != "cuda":
        return True
    properties = torch.cuda.get_device_properties(device)
    return int(getattr(properties, "shared_memory_per_block_optin", _ROOM)) >= _ROOM


@cache
def processors(device: torch.device) -> int:
    """Multiprocessors; the interpreter is given a few, so that splitting is tried there too."""
    import torch

    if device.type != "cuda":
        return 4
    return torch.cuda.get_device_properties(device).multi_processor_count
