"""A sliding window and its complement as a few rectangles, without a mask.

What: which pairs are nearer than a window, or at least that far, for consecutive queries after a
run of keys, as full rectangles and triangles; attention and probability per key over them.
Source: the decomposition is geometry; parts are joined by their log-sum-exp as in `kernel.merge`.
Differs from a masked call: no mask is built or read, and what nobody sees is not computed, beside
the other halves of the triangles.
Cost: O(T * window * D). Shapes: q [B, Hq, T, D], k and v [B, Hkv, S, D], S = before + T.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from unspool.attention.kernel import attend
from unspool.attention.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor

_FULL = Spec(causal=False)
_CAUSAL = Spec(causal=True)
_BLOCK_BYTES = 64 << 20
_WORTH_HALVING = 128
_LEAST = -80.0
"""Exponents below are taken as this: denormal results make `exp` twenty times slower."""


class Tile(NamedTuple):
    """A rectangle of (query, key) pairs, all visible, or the triangle of a square."""

    rows: slice
    columns: slice
    shape: Literal["full", "lower", "upper"] = "full"
    """lower: key b of the square is seen from query b on; upper: up to query b."""

    @property
    def size(self) -> int:
        """Pairs of the rectangle."""
        height, width = (x.stop - x.start for x in (self.rows, self.columns))
        return int(height * width)


class Part(NamedTuple):
    """Attention of some queries over some keys."""

    rows: slice
    out: Tensor
    lse: Tensor


def near_tiles(queries: int, before: int, window: int) -> list[Tile]:
    """Pairs at distance 0 … window - 1.

    Args:
        queries: T; query a stands at column before + a. At most `window`.
        before: Keys ahead of the first query.
        window: Tokens that a query meets, itself included.
    """
    rows, total = slice(0, queries), before + queries
    if queries == 1:
        return [Tile(rows, slice(max(0, total - window), total))]
    clipped = max(0, total - window)  # columns that not every query still sees
    tiles = [Tile(rows, slice(clipped, before)), Tile(rows, slice(before, total), "lower")]
    if clipped:
        whole = max(0, window - before)  # queries that see everything from column 0
        tiles.append(Tile(slice(0, whole), slice(0, clipped)))
        first, side = max(0, before - window) + 1, queries - whole - 1
        tiles.append(Tile(slice(whole, whole + side), slice(first, first + side), "upper"))
    return [tile for tile in tiles if tile.size > 0]


def far_tiles(queries: int, before: int, window: int) -> list[Tile]:
    """Pairs at distance `window` and more, as `near_tiles`."""
    reach = before - window  # the last column that query 0 sees
    rows = slice(0, queries)
    if queries == 1:
        tiles = [Tile(rows, slice(0, reach + 1))]
    elif reach >= 0:
        tiles = [
            Tile(rows, slice(0, reach)),
            Tile(rows, slice(reach, reach + queries), "lower"),
        ]
    else:
        tiles = [Tile(slice(-reach, queries), slice(0, queries + reach), "lower")]
    return [tile for tile in tiles if tile.columns.stop > 0 and tile.size > 0]


def attend_tiles(
    q: Tensor, k: Tensor, v: Tensor, tiles: Sequence[Tile], *, scale: float
) -> list[Part]:
    """Exact attention over each tile, with its log-sum-exp."""
    parts = []
    for rows, columns, shape in _halved(tiles, q):
        part = q[:, :, rows], k[:, :, columns], v[:, :, columns]
        if shape == "full":  # heads that share keys become rows: larger blocks for the kernel
            out, lse = attend(_folded(part[0], k), *part[1:], spec=_FULL, scale=scale,
                              return_lse=True)  # fmt: skip
            size = part[0].shape[:3]
            out, lse = out.reshape(*size, -1), lse.reshape(size)
        elif shape == "lower":
            out, lse = attend(*part, spec=_CAUSAL, scale=scale, return_lse=True)
        else:  # turned round, it is causal
            turned = (x.flip(2) for x in part)
            out, lse = attend(*turned, spec=_CAUSAL, scale=scale, return_lse=True)
            out, lse = out.flip(2), lse.flip(2)
        parts.append(Part(rows, out, lse))
    return parts


def join(parts: Sequence[Part], like: Tensor) -> tuple[Tensor, Tensor]:
    """Attention over the union of parts: [B, Hq, T, Dv] in the dtype of `like` [B, Hq, T, D], and
    the log-sum-exp [B, Hq, T]. Every query must see something."""
    whole = slice(0, like.shape[2])
    if len(parts) == 1 and parts[0].rows == whole:
        return parts[0].out, parts[0].lse
    shape = like.shape[:3]
    lses = parts[0].lse.new_full((len(parts), *shape), float("-inf"))
    for row, part in zip(lses, parts, strict=True):
        row[:, :, part.rows] = part.lse
    lse = torch.logsumexp(lses, dim=0)
    weights = (lses - lse).exp_()
    out = lse.new_zeros(*shape, parts[0].out.shape[-1])
    for weight, part in zip(weights, parts, strict=True):
        out[:, :, part.rows].addcmul_(weight[:, :, part.rows, None], part.out.to(out.dtype))
    return out.to(like.dtype), lse


def mass_tiles(q: Tensor, k: Tensor, lse: Tensor, tiles: Sequence[Tile], *, scale: float) -> Tensor:
    """Probability that each key receives over all tiles, summed over queries.

    Args:
        q: [B, Hq, T, D], as it attended.
        k: [B, Hkv, S, D].
        lse: [B, Hq, T] of the whole softmax.
        tiles: Where the two meet.
        scale: As it attended.

    Returns:
        [B, Hq, S], float32 (float64 for float64).
    """
    batch, num_heads, queries, _ = q.shape
    groups = num_heads // k.shape[1]
    total = lse.new_zeros(batch, num_heads, k.shape[2])
    q = q * scale
    if q.device.type == "cpu" and queries > 1:  # small products, one after the other, are fastest
        for row in range(batch):
            for head in range(num_heads):
                keys = k[row, head // groups]
                for rows, columns, shape in tiles:
                    s = torch.mm(q[row, head, rows], keys[columns].t()).to(lse.dtype)
                    p = _probability(s, lse[row, head, rows, None], shape)
                    total[row, head, columns] += p.sum(0)
        return total
    for rows, columns, shape in tiles:
        keys = k[:, :, columns].flatten(0, 1).transpose(1, 2)
        width, step = columns.stop - columns.start, rows.stop - rows.start
        if shape == "full":
            step = min(step, max(16, _BLOCK_BYTES // (batch * num_heads * width * 4)))
        for start in range(rows.start, rows.stop, step):
            at = slice(start, min(start + step, rows.stop))
            grouped = _folded(q[:, :, at], k).flatten(0, 1)
            s = torch.bmm(grouped, keys).view(batch, num_heads, -1, width).to(lse.dtype)
            total[:, :, columns] += _probability(s, lse[:, :, at, None], shape).sum(2)
    return total


def add_tiles(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tiles: Sequence[Tile],
    out: Tensor,
    lse: Tensor,
    *,
    scale: float,
    received: Tensor | None = None,
) -> tuple[Tensor, Tensor] | None:
    """Attention over `tiles` and over what `out` and `lse` were computed on, together.

    Written out head by head: on a CPU two large products are as fast as the fused kernel (twice as
    fast in bfloat16), and the probabilities are there to be summed. They are taken relative to
    `lse`, which must be close to what the tiles give: half precision then rounds small numbers.

    Args:
        q: [B, Hq, T, D].
        k: [B, Hkv, S, D].
        v: [B, Hkv, S, Dv].
        tiles: Pairs that are not in `out` yet.
        out: [B, Hq, T, Dv] so far.
        lse: [B, Hq, T] so far.
        scale: Factor on the scores.
        received: [B, Hq, S]; the probabilities that keys receive are added to it.

    Returns:
        Output and log-sum-exp of the union; None if a score is so far above `lse` that its
        exponential overflows.
    """
    groups = q.shape[1] // k.shape[1]
    high = lse.to(q.dtype)
    extra = [-high[..., None]]
    if q.dtype.itemsize < lse.dtype.itemsize:
        extra.append(-(lse - high).to(q.dtype)[..., None])
    ones = k.new_ones(1).expand(*k.shape[:3], len(extra))
    q, k = torch.cat([q * scale, *extra], dim=-1), torch.cat([k, ones], dim=-1)
    v = torch.cat([v, ones[..., :1].to(v.dtype)], dim=-1)  # its sum comes with the product
    gained = lse.new_zeros(*out.shape[:3], v.shape[-1])
    for row in range(q.shape[0]):
        for head in range(q.shape[1]):
            keys, values = k[row, head // groups], v[row, head // groups]
            weights = []
            for rows, columns, shape in tiles:
                s = torch.mm(q[row, head, rows], keys[columns].t())
                p = _probability(s, None, shape)
                gained[row, head, rows] += torch.mm(p, values[columns])
                weights.append(p)
            if received is None:
                continue
            share = (1 + gained[row, head, :, -1:]).reciprocal_().to(q.dtype).t()
            for (rows, columns, _), p in zip(tiles, weights, strict=True):
                received[row, head, columns] += torch.mm(share[:, rows], p)[0]
    total = 1 + gained[..., -1:]
    if not bool(torch.isfinite(total).all()):
        return None
    joined = (gained[..., :-1] + out) / total
    return joined.to(out.dtype), lse + total[..., 0].log()


def sum_tiles(q: Tensor, k: Tensor, tiles: Sequence[Tile]) -> Tensor:
    """Scores q k of each key, summed over the queries that see it: O(T + S), not O(T * S).

    Returns:
        [B, Hq, S], float32 (float64 for float64).
    """
    batch, num_heads, _, _ = q.shape
    groups = num_heads // k.shape[1]
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    total = q.new_zeros(batch, num_heads, k.shape[2], dtype=dtype)
    for rows, columns, shape in tiles:
        part, keys = q[:, :, rows].to(dtype), k[:, :, columns]
        if shape == "full":
            summed = _folded(part.sum(2, keepdim=True), k).to(k.dtype)
            total[:, :, columns] += (summed @ keys.transpose(2, 3)).flatten(1, 2).to(dtype)
            continue
        # of the queries from the key's own one on, or up to it
        summed = part.flip(2).cumsum(2).flip(2) if shape == "lower" else part.cumsum(2)
        keys = keys.to(dtype).repeat_interleave(groups, dim=1)
        total[:, :, columns] += (summed * keys).sum(-1)
    return total


def _probability(s: Tensor, lse: Tensor | None, shape: str) -> Tensor:
    """exp(s - lse), 0 outside the triangle; in place."""
    if lse is not None:
        s = s.sub_(lse)
    p = s.clamp_(min=_LEAST).exp_()
    if shape == "lower":
        return p.tril_()
    return p.triu_() if shape == "upper" else p


def _folded(q: Tensor, k: Tensor) -> Tensor:
    """Query heads that share keys as one head with more rows."""
    return q.reshape(q.shape[0], k.shape[1], -1, q.shape[-1])


def _halved(tiles: Sequence[Tile], q: Tensor) -> list[Tile]:
    """Large lower triangles as two smaller ones and a square: a kernel computes them whole."""
    if q.device.type != "cpu":
        return list(tiles)
    out = []
    for tile in tiles:
        rows, columns, shape = tile
        half = (rows.stop - rows.start) // 2
        if shape != "lower" or half < _WORTH_HALVING:
            out.append(tile)
            continue
        middle, center = rows.start + half, columns.start + half
        out += [
            Tile(slice(rows.start, middle), slice(columns.start, center), "lower"),
            Tile(slice(middle, rows.stop), slice(columns.start, center)),
            Tile(slice(middle, rows.stop), slice(center, columns.stop), "lower"),
        ]
    return out
