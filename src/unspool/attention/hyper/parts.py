"""Blocks and samples of a level in plain PyTorch: gather, one softmax, merge; on any device.

What: for each sorted block of queries, attention over its keys and the sample, joined with what the
rows have so far by their log-sum-exp; and the gradient of it.
Source: Han et al. (2023), "HyperAttention", algorithm 1; the gradient of a merged softmax is
that of Dao et al. (2022), FlashAttention, algorithm 4, with the log-sum-exp of the union.
Differs from the released code: samples skip the own block on every device, and the gradient goes
through the log-sum-exp of every part, since each part is computed from that of the union.
Cost: O(T * (KB + M) * D) a level; scores of a bounded number of blocks exist at a time.
Shapes: q, out [B * Hq * T, D], k, v [B * Hkv * S, D], lse [B * Hq * T], all flat rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from unspool.attention.hyper.plan import Level

_SCORE_BYTES = 32 << 20
_NEVER = -1e30
"""Bias of what is not met: finite, so that a row of nothing else has no NaN."""


class Tile(NamedTuple):
    """Some blocks of a level: N of them."""

    rows: Tensor
    """int64 [N * R] of queries; empty slots are 0."""
    real: Tensor
    """bool [N * R]."""
    keys: Tensor
    """int64 [N, K]; empty columns are 0."""
    bias: Tensor
    """float32 [N, 1, K]."""

    def take(self, flat: Tensor) -> Tensor:
        """[N, R, …] of the rows' values."""
        return flat[self.rows].reshape(len(self.keys), -1, *flat.shape[1:])


def tiles(level: Level, item_size: int) -> Iterator[Tile]:
    """The blocks of a level, as many at a time as the scores may take memory."""
    import torch

    rows = level.q_rows.flatten(0, 2)  # [P, NB, R]
    block_keys = level.k_rows.flatten(0, 2)
    s_rows, s_blocks, s_logs = (
        x.flatten(0, 2) for x in (level.s_rows, level.s_blocks, level.s_logs)
    )
    rectangles, num_blocks, height = rows.shape
    width = block_keys.shape[-1] + s_rows.shape[-1]
    total = rectangles * num_blocks
    step = max(1, _SCORE_BYTES // max(1, height * width * item_size))
    rows, block_keys = rows.reshape(total, -1), block_keys.reshape(total, block_keys.shape[-1])
    for start in range(0, total, step):
        part = torch.arange(start, min(start + step, total), device=rows.device)
        piece, block = part // num_blocks, part % num_blocks
        own = s_blocks[piece] == block[:, None]
        sampled = s_logs[piece].masked_fill(own, _NEVER).clamp(min=_NEVER)
        met = block_keys[part]
        bias = torch.zeros(met.shape, device=rows.device).masked_fill(met < 0, _NEVER)
        keys = torch.cat([met, s_rows[piece]], dim=1).long().clamp(min=0)
        picked = rows[part].long().flatten()
        yield Tile(
            picked.clamp(min=0), picked >= 0, keys, torch.cat([bias, sampled], dim=1)[:, None]
        )


def join_level(
    level: Level, q: Tensor, k: Tensor, v: Tensor, scale: float, out: Tensor, lse: Tensor
) -> None:
    """Join a level to the output and the log-sum-exp of its rows, in place."""
    import torch

    for tile in tiles(level, out.element_size()):
        part, part_lse = _attend(
            tile.take(q), k[tile.keys], v[tile.keys], tile.bias, scale, out.dtype
        )
        rows = tile.rows[tile.real]
        part = part.reshape(-1, part.shape[-1])[tile.real]
        part_lse = part_lse.reshape(-1)[tile.real]
        before = lse[rows]
        total = torch.logaddexp(before, part_lse)
        out[rows] = (
            out[rows] * torch.exp(before - total)[:, None]
            + part * torch.exp(part_lse - total)[:, None]
        )
        lse[rows] = total


def add_gradients(
    level: Level,
    inputs: tuple[Tensor, Tensor, Tensor],
    scale: float,
    union: tuple[Tensor, Tensor, Tensor],
    gradients: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Add a level's part of the gradients, in place.

    Args:
        level: The level.
        inputs: q, k, v.
        scale: Factor on the scores.
        union: Gradient of the output [rows, Dv], log-sum-exp of the union [rows], and delta [rows]:
            the output times its gradient, summed, less the gradient of the log-sum-exp.
        gradients: Of q, k, v.
    """
    import torch

    q, k, v = inputs
    d_out, lse, delta = union
    d_q, d_k, d_v = gradients
    for tile in tiles(level, d_q.element_size()):
        q_t, k_t, v_t = (x.to(d_q.dtype) for x in (tile.take(q), k[tile.keys], v[tile.keys]))
        g_t = tile.take(d_out)
        real = tile.real.reshape(q_t.shape[:2])
        total = tile.take(lse).masked_fill(~real, float("inf"))  # no weight in empty slots
        p = torch.exp(q_t @ k_t.transpose(-1, -2) * scale + tile.bias - total[..., None])
        d_s = p * (g_t @ v_t.transpose(-1, -2) - tile.take(delta)[..., None]) * scale
        rows = tile.rows[tile.real]
        d_q.index_add_(0, rows, (d_s @ k_t).flatten(0, 1)[tile.real])
        columns = tile.keys.flatten()
        d_k.index_add_(0, columns, (d_s.transpose(-1, -2) @ q_t).flatten(0, 1))
        d_v.index_add_(0, columns, (p.transpose(-1, -2) @ g_t).flatten(0, 1))


def _attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float, dtype: object
) -> tuple[Tensor, Tensor]:
    """Attention of N blocks, [N, R, Dv] and [N, R], in the dtype of the accumulator."""
    import torch

    assert isinstance(dtype, torch.dtype)
    if q.device.type == "cpu" and q.dtype == dtype and q.shape[-1] == v.shape[-1]:
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q[:, None], k[:, None], v[:, None], attn_mask=bias[:, None].to(dtype), scale=scale
        )
        return out[:, 0], lse[:, 0].to(dtype)
    q, k, v = (x.to(dtype) for x in (q, k, v))
    scores = q @ k.transpose(-1, -2) * scale + bias.to(dtype)
    lse = torch.logsumexp(scores, dim=-1)
    return torch.exp(scores - lse[..., None]) @ v, lse
