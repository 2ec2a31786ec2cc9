"""Launches of the kernels over a band: everything, causal, or a window.

What: tile sizes by head size, tensor descriptors where the layout allows, forward and both backward
kernels; on Hopper GPUs those in roles where they are faster.
Source: as the kernels.
Differs from them: nothing; a scale here is that of the scores, there times log2(e).
Cost: tens of microseconds a call. Shapes: as `launch`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from unspool.attention.flash import hopper
from unspool.attention.flash.configs import (
    DENSE_DKDV,
    DENSE_DQ,
    DENSE_FORWARD,
    HOPPER_FORWARD,
    Tiles,
    tiles,
)
from unspool.attention.flash.launch import (
    FAR,
    LOG2E,
    RowFacts,
    describable,
    descriptor,
    results,
    roomy,
    sizes_of,
    strides,
)

if TYPE_CHECKING:
    from torch import Tensor

    from unspool.attention.spec import Spec


class Band(NamedTuple):
    """How far a query sees to both sides, and which side is bound at all."""

    left: int
    right: int
    LEFT: bool
    RIGHT: bool


def band_of(spec: Spec) -> Band:
    """Causality and windows of a pattern without positions."""
    right = 0 if spec.causal else spec.right
    left = None if spec.window is None else spec.window - 1
    return Band(
        min(FAR, FAR if left is None else left), min(FAR, FAR if right is None else right),
        left is not None, right is not None,
    )  # fmt: skip


def dense_forward(
    q: Tensor, k: Tensor, v: Tensor, spec: Spec, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention over a band, and its log-sum-exp."""
    from unspool.attention.flash.kernels.dense_forward import dense_forward as kernel

    band = band_of(spec)
    if hopper.serves(q, k, v, band=band, table=HOPPER_FORWARD):
        return hopper.forward(q, k, v, band, scale)
    out, lse = results(q, v)
    cut = tiles(
        DENSE_FORWARD, max(q.shape[-1], v.shape[-1]), band.RIGHT, q.itemsize, roomy(q.device)
    )
    sources, flags = _sources((q, k, v), cut)
    tail = (q.shape[2], k.shape[2], q.shape[1])
    kernel[(-(-q.shape[2] // cut.block_m), q.shape[0] * q.shape[1])](
        *sources, out, lse, *strides(q, k, v, out), *tail, band.left, band.right, scale * LOG2E,
        LEFT=band.LEFT, RIGHT=band.RIGHT, AHEAD=cut.ahead, **flags,
        **sizes_of(q, k, v)._asdict(),
    )  # fmt: skip
    return out, lse


def dense_dq(
    q: Tensor, k: Tensor, v: Tensor, d_out: Tensor, facts: RowFacts, spec: Spec, scale: float
) -> Tensor:
    """Gradient of q."""
    import torch

    from unspool.attention.flash.kernels.dense_backward import dense_dq as kernel

    d_q = torch.empty_like(q)
    band = band_of(spec)
    cut = tiles(DENSE_DQ, max(q.shape[-1], v.shape[-1]), band.RIGHT, q.itemsize, roomy(q.device))
    sources, flags = _sources((q, k, v, d_out), cut)
    tail = (facts.delta.shape[-1], q.shape[2], k.shape[2], q.shape[1])
    kernel[(-(-q.shape[2] // cut.block_m), q.shape[0] * q.shape[1])](
        *sources, *facts, d_q, *strides(q, k, v, d_out, d_q), *tail, band.left, band.right,
        scale * LOG2E, LEFT=band.LEFT, RIGHT=band.RIGHT, **flags, **sizes_of(q, k, v)._asdict(),
    )  # fmt: skip
    return d_q


def dense_dkdv(
    q: Tensor, k: Tensor, v: Tensor, d_out: Tensor, facts: RowFacts, spec: Spec, scale: float
) -> tuple[Tensor, Tensor]:
    """Gradients of k and v."""
    import torch

    from unspool.attention.flash.kernels.dense_backward import dense_dkdv as kernel

    d_k, d_v = torch.empty_like(k), torch.empty_like(v)
    band = band_of(spec)
    cut = tiles(DENSE_DKDV, max(q.shape[-1], v.shape[-1]), band.RIGHT, q.itemsize, roomy(q.device))
    sources, flags = _sources((q, k, v, d_out), cut)
    tail = (facts.delta.shape[-1], q.shape[2], k.shape[2], q.shape[1])
    kernel[(-(-k.shape[2] // cut.block_n), k.shape[0] * k.shape[1])](
        *sources, *facts, d_k, d_v, *strides(q, k, v, d_out, d_k, d_v), *tail, band.left,
        band.right, scale * LOG2E, LEFT=band.LEFT, RIGHT=band.RIGHT,
        BACKWARDS=cut.backwards, **flags, **sizes_of(q, k, v)._asdict(),
    )  # fmt: skip
    return d_k, d_v


def _sources(tensors: tuple[Tensor, ...], cut: Tiles) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """q, k, v and dO as descriptors of tiles where that is possible, and how the launch is cut."""
    described = describable(*tensors)
    sources: tuple[Any, ...] = tensors
    if described:
        rows = (cut.block_m, cut.block_n, cut.block_n, cut.block_m)
        sources = tuple(descriptor(x, n) for x, n in zip(tensors, rows, strict=False))
    return sources, {
        "BLOCK_M": cut.block_m,
        "BLOCK_N": cut.block_n,
        "DESCRIBED": described,
        "num_warps": cut.warps,
        "num_stages": cut.stages,
    }
