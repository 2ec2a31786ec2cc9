"""Sliding-window attention with global tokens, linear in the length of the text.

What: every token attends to half a window on each side and to the global tokens; global tokens
attend to everything through projections of their own (`global_rows`).
Source: Beltagy et al. (2020), "Longformer", section 3.1.
Differs from the released code: no padding to a multiple of the window, no compressed layout of
scores; a global key that lies inside the window is taken from the global part only, as there.
Dilation is a window over every d-th token, so tokens of one remainder make a text of their own.
Cost: O(T * (window + G)) time and memory. Shapes: B batch, H heads, T tokens, D head size, G the
most global tokens of a row.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unspool.attention.backends import choose
from unspool.attention.kernel import attend
from unspool.attention.spec import Spec

_SKIPS = ("native", "triton", "flex")
"""Back-ends that do no work for keys outside a window; others are given one chunk at a time."""


def global_index(is_global: Tensor) -> Tensor | None:
    """Columns of the global tokens, [B, G], -1 where a row has fewer; None: there are none."""
    counts = is_global.sum(-1)
    most = int(counts.max()) if counts.numel() else 0
    if most == 0:
        return None
    order = torch.argsort(~is_global, dim=-1, stable=True)[:, :most]
    used = torch.arange(most, device=is_global.device) < counts[:, None]
    return order.masked_fill(~used, -1)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x [B, H, T, D] at index [B, G] (-1: any row): [B, H, G, D]."""
    at = index.clamp(min=0)[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3])
    return x.gather(2, at)


def cut(x: Tensor, dim: int, first: int, second: int) -> Tensor:
    """One dimension as two; either size may be -1."""
    return x.reshape(*x.shape[:dim], first, second, *x.shape[dim + 1 :])


def window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: int,
    valid: Tensor,
    index: Tensor | None = None,
    dilation: int = 1,
    dropout: float | int = 0.0,
    seed: int = 0,
    backend: str = "auto",
) -> Tensor:
    """One softmax over the global keys and the keys of the window (section 3.1).

    Args:
        q: [B, H, T, D].
        k: [B, H, T, D].
        v: [B, H, T, D].
        window: Even; `window // 2` tokens to each side, so window + 1 keys.
        valid: [B, T] bool, False is padding.
        index: Global tokens, as `global_index` gives them.
        dilation: Distance between neighbours of the window.
        dropout: Probability that a weight is zeroed.
        seed: Of `dropout`.
        backend: As for `attend`; it is given chunks unless it skips hidden keys itself.

    Returns:
        [B, H, T, D], 0 at padding.
    """
    tokens = q.shape[2]
    positions = torch.arange(tokens, device=q.device).expand(valid.shape)
    q_positions = positions.masked_fill(~valid, -1)
    k_positions = q_positions
    far: tuple[Tensor, Tensor, Tensor] | None = None
    if index is not None:  # they are keys of their own, and hidden inside the window
        hidden = torch.zeros_like(valid, dtype=torch.int32)
        hidden = hidden.scatter_add(1, index.clamp(min=0), (index >= 0).int()) > 0
        k_positions = k_positions.masked_fill(hidden, -1)
        far = take(k, index), take(v, index), index.sign().clamp(max=0)
    if dilation > 1:
        padded = -(-tokens // dilation) * dilation
        q, k, v = (_by_remainder(x, dilation, padded) for x in (q, k, v))
        q_positions, k_positions = (
            _positions_by_remainder(x, dilation, padded) for x in (q_positions, k_positions)
        )
        if far is not None:
            k_far, v_far, p_far = (x.repeat_interleave(dilation, dim=0) for x in far)
            far = k_far, v_far, p_far
    half = window // 2
    spec = Spec(
        causal=False,
        window=half + 1,
        right=half,
        q_positions=q_positions,
        k_positions=k_positions,
        dropout=dropout,
        seed=seed,
    )
    chosen = choose(backend, q, k, v, spec=spec, return_lse=False).name
    if chosen in _SKIPS or q.shape[2] <= 3 * half:
        out = _with_far(q, k, v, q_positions, k_positions, far, spec, backend)
    else:
        out = _chunked(q, k, v, q_positions, k_positions, far, half, spec, backend)
    if dilation > 1:
        rows = cut(out, 0, -1, dilation).permute(0, 2, 3, 1, 4)
        out = rows.flatten(2, 3)[:, :, :tokens]
    return out


def global_rows(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    valid: Tensor,
    index: Tensor,
    dropout: float | int = 0.0,
    seed: int = 0,
    backend: str = "auto",
) -> Tensor:
    """Attention of the global tokens to every token: [B, H, G, D].

    Args:
        q: [B, H, G, D] of the global tokens, by their own projection.
        k: [B, H, T, D], as q.
        v: [B, H, T, D], as q.
        valid: [B, T] bool.
        index: [B, G].
        dropout: As for `window_attention`.
        seed: As for `window_attention`.
        backend: As for `attend`.
    """
    spec = Spec(
        causal=False,
        q_positions=index.sign().clamp(max=0),
        k_positions=valid.long() - 1,
        dropout=dropout,
        seed=seed,
    )
    return attend(q, k, v, spec=spec, backend=backend)


def put(out: Tensor, rows: Tensor, index: Tensor) -> Tensor:
    """`out` [B, H, T, D] with rows [B, H, G, D] at index [B, G], where it is not -1."""
    batch, slot = (index >= 0).nonzero(as_tuple=True)
    turned = out.transpose(1, 2)
    values = rows.transpose(1, 2)[batch, slot].to(out.dtype)
    return turned.index_put((batch, index[batch, slot]), values).transpose(1, 2)


def _with_far(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_positions: Tensor,
    k_positions: Tensor,
    far: tuple[Tensor, Tensor, Tensor] | None,
    spec: Spec,
    backend: str,
) -> Tensor:
    """One call over the global keys and the others."""
    from dataclasses import replace

    k_global = None
    if far is not None:
        k, v = torch.cat([far[0], k], dim=2), torch.cat([far[1], v], dim=2)
        k_positions = torch.cat([far[2], k_positions], dim=1)
        k_global = torch.arange(k.shape[2], device=k.device)[None] < far[0].shape[2]
    spec = replace(spec, q_positions=q_positions, k_positions=k_positions, k_global=k_global)
    return attend(q, k, v, spec=spec, backend=backend)


def _chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_positions: Tensor,
    k_positions: Tensor,
    far: tuple[Tensor, Tensor, Tensor] | None,
    half: int,
    spec: Spec,
    backend: str,
) -> Tensor:
    """Chunks of `half` queries as batch rows, each with the keys that they can reach."""
    batch, _, tokens, _ = q.shape
    size = max(half, 16)
    chunks = -(-tokens // size)
    missing = chunks * size - tokens
    width = size + 2 * half

    def windows(x: Tensor) -> Tensor:
        padded = F.pad(x, (0, 0, half, half + missing))
        return padded.unfold(2, width, size).permute(0, 2, 1, 4, 3).flatten(0, 1)

    def rows(x: Tensor) -> Tensor:
        return cut(F.pad(x, (0, 0, 0, missing)), 2, chunks, size).transpose(1, 2)

    near = F.pad(k_positions, (half, half + missing), value=-1).unfold(1, width, size)
    if far is not None:
        k_far, v_far, p_far = (x.repeat_interleave(chunks, dim=0) for x in far)
        far = k_far, v_far, p_far
    out = _with_far(
        rows(q).flatten(0, 1),
        windows(k),
        windows(v),
        cut(F.pad(q_positions, (0, missing), value=-1), 1, chunks, size).flatten(0, 1),
        near.flatten(0, 1),
        far,
        spec,
        backend,
    )
    return cut(out, 0, batch, chunks).transpose(1, 2).flatten(2, 3)[:, :, :tokens]


def _by_remainder(x: Tensor, dilation: int, padded: int) -> Tensor:
    """[B, H, T, D] as [B * dilation, H, T / dilation, D], tokens of one remainder together."""
    x = F.pad(x, (0, 0, 0, padded - x.shape[2]))
    return cut(x, 2, -1, dilation).permute(0, 3, 1, 2, 4).flatten(0, 1)


def _positions_by_remainder(x: Tensor, dilation: int, padded: int) -> Tensor:
    """Positions [B, T] in steps of `dilation`: [B * dilation, T / dilation]."""
    x = F.pad(x, (0, padded - x.shape[1]), value=-1)
    steps = torch.div(x, dilation, rounding_mode="floor").masked_fill(x < 0, -1)
    return cut(steps, 1, -1, dilation).transpose(1, 2).flatten(0, 1)


def picture() -> Tensor:
    """Which key each query meets, with two global tokens, bool [64, 64]."""
    tokens = 64
    blank = torch.zeros(1, 1, tokens, tokens)
    values = torch.eye(tokens)[None, None]  # so that an output says which values went in
    valid = torch.ones(1, tokens, dtype=torch.bool)
    index = torch.tensor([[0, 24]])
    out = window_attention(blank, blank, values, window=16, valid=valid, index=index)
    rows = global_rows(blank[:, :, :2], blank, values, valid=valid, index=index)
    return put(out, rows, index)[0, 0] > 0
