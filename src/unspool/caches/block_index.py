"""Which blocks answer a query: one vector stands for a block, and the nearest vectors win.

What: the mean key of a block's best tokens, head by head, and the search among those means, exact
or through faiss.
Source: InfLLM (Xiao et al. 2024), section 3.2.
Differs from the released code: the blocks of all sequences of a batch are searched at once.
Cost: blocks x Hq * D multiplications a look-up.
Shapes: keys [b, Hkv, S, D]; scores [b, Hq, S]; queries [b, Hq, T, D]; vectors [b, n, Hq * D].
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from unspool._optional import require


def block_vectors(k: Tensor, scores: Tensor, size: int, representatives: int) -> Tensor:
    """What stands for each block in a look-up: the mean key of its best tokens, head by head.

    Args:
        k: [b, Hkv, n * size, D] raw keys of n blocks.
        scores: [b, Hq, n * size].
        size: Tokens a block.
        representatives: Tokens that count, those with the highest scores.

    Returns:
        [b, n, Hq * D], float32 (float64 for float64).
    """
    batch, num_heads = scores.shape[:2]
    groups = num_heads // k.shape[1]
    best = scores.unflatten(2, (-1, size)).topk(representatives, dim=-1).indices
    keys = k.to(score_dtype(k)).repeat_interleave(groups, dim=1).unflatten(2, (-1, size))
    index = best[..., None].expand(*best.shape, k.shape[-1])
    means: Tensor = keys.gather(3, index).mean(3)
    return means.permute(0, 2, 1, 3).reshape(batch, best.shape[2], -1)


def best_blocks(
    q: Tensor, vectors: Tensor, top_k: int, index: Literal["exact", "faiss"]
) -> list[list[int]]:
    """Numbers of the `top_k` blocks of each sequence that answer the mean of its queries best."""
    query = q.to(vectors.dtype).mean(2).flatten(1)
    if index == "faiss":
        return [_faiss(*row, top_k) for row in zip(query, vectors, strict=True)]
    scores = torch.bmm(vectors, query[..., None])[..., 0]
    best: list[list[int]] = scores.topk(top_k, dim=-1).indices.tolist()
    return best


def score_dtype(x: Tensor) -> torch.dtype:
    """What scores and vectors of such keys are held in."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _faiss(query: Any, vectors: Any, top_k: int) -> list[int]:
    faiss = require("faiss", extra="retrieve", purpose="infllm with index=faiss")
    _, best = faiss.knn(
        query[None].float().cpu().numpy(),
        vectors.float().cpu().contiguous().numpy(),
        top_k,
        metric=faiss.METRIC_INNER_PRODUCT,
    )
    found: list[int] = best[0].tolist()
    return found
