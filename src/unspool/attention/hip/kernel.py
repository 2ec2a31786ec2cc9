"""Launches the tree search in Triton, and says why it can't run.

What: the search of `search.tree_search`, with the same blocks, ties included.
Source: as `kernels`.
Differs from the plain search: products in the precision of the device (half precision is summed in
float32 on both); the programs of a launch share scratch memory that does not grow with the text.
Cost: as `search`. Shapes: as `search`.
"""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from unspool.attention.hip.layout import Frame

if TYPE_CHECKING:
    from unspool.attention.hip.search import Representative

_STANDS = {"first": 0, "center": 1, "last": 2}
_MOST_KEPT = 2048
_PROGRAMS = 1 << 14
_WIDEST = 32


class SearchTiles(NamedTuple):
    """How the search is cut and launched."""

    columns: int
    """Keys that one product takes."""
    warps: int
    stages: int


TILES = SearchTiles(64, 4, 5)
"""In half precision; a benchmark may set others."""
_WIDE = SearchTiles(64, 4, 2)
"""float32 fills shared memory twice as fast."""
CANDIDATES = (
    TILES,
    SearchTiles(64, 4, 3),
    SearchTiles(128, 4, 4),
    SearchTiles(128, 8, 4),
    SearchTiles(32, 4, 5),
    SearchTiles(64, 2, 5),
)
"""What is worth trying on a device that was not measured."""


def why_not_triton(q: Tensor, k: Tensor, frame: Frame) -> str | None:
    """Why the Triton search can't take this call; None: it can."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed; run: pip install 'unspool[kernels]'"
    if q.device.type != "cuda" and os.environ.get("TRITON_INTERPRET", "0") != "1":
        return f"tensors are on {q.device.type}, the kernel needs CUDA"
    if q.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"dtype is {q.dtype}, the kernel has float32, float16 and bfloat16"
    if frame.layout.num_kept > _MOST_KEPT:
        return f"{frame.layout.num_kept} blocks are kept, the kernel keeps at most {_MOST_KEPT}"
    if frame.layout.block_k & (frame.layout.block_k - 1) or frame.layout.block_k > _WIDEST:
        return f"block_k is {frame.layout.block_k}, the kernel has powers of two up to {_WIDEST}"
    if q.shape[-1] > 256:
        return f"head_dim is {q.shape[-1]}, the kernel has at most 256"
    return None


def triton_search(q: Tensor, k: Tensor, frame: Frame, representative: Representative) -> Tensor:
    """As `search.tree_search`: int32 [B, Hq, NQ, n]."""
    from unspool.attention.hip.kernels import search_blocks

    q, k = (_rows(x.detach()) for x in (q, k))
    batch, num_heads, _, width = q.shape
    layout, blocks = frame.layout, frame.num_blocks
    tiles = TILES if q.dtype.itemsize == 2 else _WIDE
    kept, samples = layout.num_kept, -(-frame.block_q // layout.stride)
    out = torch.empty(batch, num_heads, blocks, kept, dtype=torch.int32, device=q.device)
    total = batch * num_heads * blocks
    at_once = min(total, _PROGRAMS)
    edges = torch.stack((frame.first, frame.last, frame.near)).int().to(q.device)
    scratch = torch.empty(2, at_once, kept, dtype=torch.int32, device=q.device)
    scores = torch.empty(at_once, 2 * kept, dtype=torch.float32, device=q.device)
    for begin in range(0, total, at_once):
        search_blocks[(min(at_once, total - begin),)](
            q, k, edges[0], edges[1], edges[2], out, scratch[0], scratch[1], scores,
            *q.stride()[:3], *k.stride()[:3], frame.start, frame.low, begin, blocks, num_heads,
            D=width, BLOCK_D=_power(width), GROUPS=num_heads // k.shape[1], KEPT=kept,
            GROUPS_AT_ONCE=_power(kept), BLOCK_K=layout.block_k, SAMPLES=_power(samples),
            STRIDE=layout.stride, TILE=tiles.columns // layout.block_k,
            STANDS=_STANDS[representative],
            PRECISION="ieee" if q.dtype == torch.float32 else "tf32",
            num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip
    return out


def _rows(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _power(n: int) -> int:
    """The least power of two from 16 on that is not below n: what a product of tiles can take."""
    return max(16, 1 << (n - 1).bit_length())


def why_not_meet(q: Tensor) -> str | None:
    """Why the Triton programs for written tokens and lists can't run here; None: they can."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed; run: pip install 'unspool[kernels]'"
    if q.device.type != "cuda":
        return f"tensors are on {q.device.type}, the kernel needs CUDA"
    if q.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"dtype is {q.dtype}, the kernel has float32, float16 and bfloat16"
    if torch.is_grad_enabled() and q.requires_grad:
        return "it has no backward pass"
    return None


def triton_meet(
    q: Tensor,
    far_k: Tensor,
    far_v: Tensor,
    seen: Tensor | None,
    k: Tensor,
    v: Tensor,
    scale: float,
    softcap: float | int | None,
) -> Tensor:
    """One query a sequence over chosen keys and the newest ones, in one softmax.

    Args:
        q: [B, Hq, 1, D].
        far_k: [B, H, m, D] of chosen keys, H that of queries or of keys.
        far_v: [B, H, m, Dv].
        seen: [B, H, m] bool, False at unused places; None: all are used.
        k: [B, Hkv, w, D] of the newest keys.
        v: [B, Hkv, w, Dv].
        scale: Factor on the scores.
        softcap: As `Spec.softcap`.

    Returns:
        [B, Hq, 1, Dv].
    """
    from unspool.attention.hip.kernels import meet_chosen

    q, far_k, far_v, k, v = (_rows(x) for x in (q, far_k, far_v, k, v))
    batch, num_heads, _, width = q.shape
    out = torch.empty(batch, num_heads, 1, v.shape[-1], dtype=q.dtype, device=q.device)
    mask = q if seen is None else seen.contiguous()
    meet_chosen[(batch * num_heads,)](
        q, far_k, far_v, mask, k, v, out, *q.stride()[:2], *far_k.stride()[:3],
        *far_v.stride()[:3], *mask.stride()[:2], *k.stride()[:3], *v.stride()[:3],
        *out.stride()[:2], num_heads, far_k.shape[2], k.shape[2], scale, softcap or 1.0,
        D=width, DV=v.shape[-1], BLOCK_D=_power(width), BLOCK_DV=_power(v.shape[-1]), TILE=64,
        FAR_GROUPS=num_heads // far_k.shape[1], GROUPS=num_heads // k.shape[1],
        MASKED=seen is not None, SOFTCAP=softcap is not None, num_warps=4,
    )  # fmt: skip
    return out


def triton_lists(chosen: Tensor, frame: Frame) -> tuple[Tensor, Tensor]:
    """Lists and counts of `union.block_mask`, in one launch."""
    from unspool.attention.hip.kernels import join_lists

    chosen = chosen.contiguous()
    kept = chosen.shape[-1]
    width = frame.low + kept + int((frame.end - frame.near).max())
    edges = torch.stack((frame.near, frame.end)).int().to(chosen.device)
    lists = torch.empty(*chosen.shape[:3], width, dtype=torch.int32, device=chosen.device)
    counts = torch.empty(chosen.shape[:3], dtype=torch.int32, device=chosen.device)
    join_lists[(counts.numel(),)](
        chosen, edges[0], edges[1], lists, counts, frame.low, frame.num_blocks, kept, width,
        BLOCK_KEPT=_power(kept), BLOCK_WIDTH=_power(width), num_warps=4,
    )  # fmt: skip
    return lists, counts
