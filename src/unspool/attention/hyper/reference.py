"""HyperAttention as one softmax with weights: the truth that the fast paths are tested against.

What: a plan as a dense matrix of log weights, -inf where a pair is not met, and
softmax(q k^T * scale + weights) v with it.
Source: Han et al. (2023), "HyperAttention": the merge of exact blocks and weighted samples by
their log-sum-exp is one softmax over all of them.
Differs from the fast paths: everything is dense and written out; any float dtype.
Cost: O(T * S) memory and time a head. Shapes: q [B, Hq, T, D], k and v [B, Hkv, S, D].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from unspool.attention.hyper.plan import Level, Plan


def reference_hyper(
    q: Tensor, k: Tensor, v: Tensor, plan: Plan, scale: float
) -> tuple[Tensor, Tensor]:
    """Output [B, Hq, T, Dv] and log-sum-exp [B, Hq, T] of a plan."""
    import torch

    groups = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
    weights = log_weights(plan, q.shape[0], q.shape[1], k.shape[1] // groups, *_sides(q, k))
    scores = q @ k.transpose(-1, -2) * scale + weights.to(q.device, q.dtype)
    lse = torch.logsumexp(scores, dim=-1)
    return torch.exp(scores - lse[..., None]) @ v, lse


def log_weights(
    plan: Plan, batch: int, num_heads: int, num_kv_heads: int, num_queries: int, num_keys: int
) -> Tensor:
    """float64 [B, Hq, T, S]: log of how many keys a pair stands for, -inf where it is not met."""
    import torch

    counts = torch.zeros(batch, num_heads, num_queries, num_keys, dtype=torch.float64)
    for piece in range(plan.leaves):
        start, end = piece * plan.leaf, min((piece + 1) * plan.leaf, num_queries)
        if end > start:
            square = torch.ones(end - start, end - start, dtype=torch.float64).tril()
            keys = slice(plan.offset + start, plan.offset + end)
            counts[:, :, start:end, keys] += square
    flat = counts.view(-1, num_keys)
    for level in plan.levels:
        _add(flat, level, num_kv_heads, num_keys)
    return counts.log()


def _add(flat: Tensor, level: Level, num_kv_heads: int, num_keys: int) -> None:
    batch, _, pieces, blocks, _ = level.q_rows.shape
    q_rows, k_rows = level.q_rows.cpu().long(), level.k_rows.cpu().long()
    for b in range(batch):
        for h in range(num_kv_heads):
            for piece in range(pieces):
                samples = zip(
                    level.s_rows[b, h, piece].tolist(),
                    level.s_blocks[b, h, piece].tolist(),
                    level.s_logs[b, h, piece].double().exp().tolist(),
                    strict=True,
                )
                drawn = [sample for sample in samples if sample[0] >= 0]
                for block in range(blocks):
                    rows = q_rows[b, h, piece, block]
                    rows = rows[rows >= 0]
                    keys = k_rows[b, h, piece, block]
                    keys = keys[keys >= 0] % num_keys
                    flat[rows[:, None], keys] += 1.0
                    for key, own, weight in drawn:
                        if own != block:
                            flat[rows, key % num_keys] += weight


def _sides(q: Tensor, k: Tensor) -> tuple[int, int]:
    return q.shape[2], k.shape[2]


def picture(length: int = 96, clusters: int = 12) -> Tensor:
    """bool [length, length]: which keys each query meets, for one head whose queries and keys lie
    around a few directions: leaves of 12 rows, blocks of 6, 4 samples, 2 sinks."""
    import torch

    from unspool.attention.hyper.lsh import draw_directions
    from unspool.attention.hyper.plan import Settings, make_plan
    from unspool.attention.hyper.sampled import Drawn

    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(clusters, 16, generator=generator)
    member = torch.randint(clusters, (length,), generator=generator)
    x = (centres[member] + 0.1 * torch.randn(length, 16, generator=generator))[None, None]
    directions = draw_directions(16, 7, generator, x.device)
    settings = Settings(min_seq_len=12, block=6, samples=4, sinks=2)
    plan = make_plan(x, x, x, settings, directions, Drawn("uniform", generator), generator)
    return log_weights(plan, 1, 1, 1, length, length)[0, 0].isfinite()
