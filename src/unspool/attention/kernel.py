"""The one exact attention call, the merge of its parts, and the probability mass per key.

What: `attend` picks the fastest back-end that can take the call; `merge` joins outputs over
disjoint sets of keys; `mass` gives probabilities summed over queries without keeping the weights.
Source: the merge of partial softmaxes by their log-sum-exp is Milakov & Gimelshein (2018), "Online
normalizer calculation for softmax", section 3, and section 3.1 of FlashAttention.
Differs from attention modules: no projections, no cache; the log-sum-exp is a result.
Cost: O(T * S * D). Shapes: q [B, Hq, T, D], k [B, Hkv, S, D], v [B, Hkv, S, Dv], lse [B, Hq, T].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, overload

from unspool.attention.backends import choose
from unspool.attention.reference import block_rows, scores
from unspool.attention.spec import Spec, visible
from unspool.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


@overload
def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    spec: Spec,
    scale: float | None = None,
    return_lse: Literal[True],
    backend: str = "auto",
) -> tuple[Tensor, Tensor]: ...
@overload
def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    spec: Spec,
    scale: float | None = None,
    return_lse: Literal[False] = False,
    backend: str = "auto",
) -> Tensor: ...
def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    spec: Spec,
    scale: float | None = None,
    return_lse: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Exact attention of every query over the keys that `spec` lets it see.

    Args:
        q: [B, Hq, T, D].
        k: [B, Hkv, S, D], Hq a multiple of Hkv.
        v: [B, Hkv, S, Dv].
        spec: The visibility pattern.
        scale: Factor on the scores; None: D ** -0.5.
        return_lse: Also return the natural log-sum-exp of each row, float32 (float64 for float64).
        backend: "auto" or a name of `backends.BACKENDS`.

    Returns:
        [B, Hq, T, Dv], or that and [B, Hq, T]. A row that sees nothing is 0 with -inf.

    Raises:
        ConfigError: Shapes or dtypes that do not fit together, or a back-end that cannot take the
            call.
    """
    q, k, v = of_one_type(q, k, v)
    check_shapes(q, k, v)
    if spec.mask is not None:
        _check_mask(spec.mask, (*q.shape[:3], k.shape[2]))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    chosen = choose(backend, q, k, v, spec=spec, return_lse=return_lse)
    out, lse = chosen.attend(q, k, v, spec=spec, scale=scale, return_lse=return_lse)
    return out if lse is None or not return_lse else (out, lse)


def merge(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Join attention over disjoint sets of (query, key) pairs into attention over their union.

    Args:
        parts: Outputs [B, Hq, T, Dv] with their log-sum-exp [B, Hq, T]. Differentiable.

    Returns:
        The output in the dtype of the first part, and the log-sum-exp of the union.
    """
    import torch

    if not parts:
        raise ConfigError("merge needs at least one part, got none.")
    if len(parts) == 1:
        return parts[0]
    lses = torch.stack([lse for _, lse in parts])
    total = torch.logsumexp(lses, dim=0)
    anchor = total.masked_fill(torch.isneginf(total), 0.0)  # rows that see nothing stay 0
    weights = torch.exp(lses - anchor)
    first = parts[0][0]
    out = sum(
        weight[..., None] * part.to(weight.dtype)
        for weight, (part, _) in zip(weights, parts, strict=True)
    )
    assert isinstance(out, torch.Tensor)  # `sum` of a non-empty list
    return out.to(first.dtype), total


def mass(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    *,
    spec: Spec,
    scale: float | None = None,
    rows: slice | None = None,
) -> Tensor:
    """Attention probability that each key receives, summed over queries.

    Args:
        q: [B, Hq, T, D], rotated as it was for the output.
        k: [B, Hkv, S, D].
        lse: [B, Hq, T] of the whole softmax (of all parts merged), so that keys of one part get
            their share of the union.
        spec: The pattern that the output was computed with.
        scale: As for `attend`.
        rows: Sum over these queries only; None: all.

    Returns:
        [B, Hq, S], at least float32.
    """
    import torch

    scale = q.shape[-1] ** -0.5 if scale is None else scale
    num_queries, num_keys = q.shape[2], k.shape[2]
    wanted = range(num_queries)[rows] if rows is not None else range(num_queries)
    if wanted.step != 1:
        raise ConfigError(f"mass takes consecutive rows, got a step of {wanted.step}.")
    dtype = lse.dtype
    total = torch.zeros(*q.shape[:2], num_keys, dtype=dtype, device=q.device)
    step = block_rows(q, num_keys)
    keys = k.to(dtype)
    for start in range(wanted.start, wanted.stop, step):
        block = slice(start, min(start + step, wanted.stop))
        s = scores(q[:, :, block].to(dtype), keys, scale)
        if spec.softcap is not None:
            s = spec.softcap * torch.tanh(s / spec.softcap)
        seen = visible(spec, num_queries, num_keys, q.device, block, q.shape[1])
        part = lse[:, :, block]
        p = torch.exp(s - part.masked_fill(torch.isneginf(part), float("inf"))[..., None])
        if seen is not None:
            p = p.masked_fill(~seen, 0.0)
        total += p.sum(dim=2)
    return total


def of_one_type(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same in one dtype. Under autocast a rotation leaves q and k wider than v, and a kernel
    that reads v as if it were as wide reads past its end.

    Raises:
        ConfigError: Their dtypes differ without autocast.
    """
    import torch

    if q.dtype == k.dtype == v.dtype:
        return q, k, v
    device = q.device.type
    if not torch.is_autocast_enabled(device):
        raise ConfigError(
            f"q is {q.dtype}, k {k.dtype} and v {v.dtype}: attention needs one dtype. Cast them, "
            f"or call it under torch.autocast({device!r})."
        )
    dtype = torch.get_autocast_dtype(device)
    return q.to(dtype), k.to(dtype), v.to(dtype)


def _check_mask(mask: Tensor, full: tuple[int, ...]) -> None:
    import torch

    fits = len(mask.shape) == 4 and all(x in (1, y) for x, y in zip(mask.shape, full, strict=True))
    if not fits or mask.dtype != torch.bool:
        raise ConfigError(
            f"Spec.mask must be bool and of shape {full} or 1 in any of them, got {mask.dtype} of "
            f"{tuple(mask.shape)}."
        )


def check_shapes(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Refuse tensors that do not fit together, with a ConfigError."""
    if not (q.ndim == k.ndim == v.ndim == 4):
        raise ConfigError(
            f"attend needs q, k and v of shape [B, H, T, D], got {tuple(q.shape)}, "
            f"{tuple(k.shape)} and {tuple(v.shape)}."
        )
    if q.shape[0] != k.shape[0] or k.shape[:3] != v.shape[:3] or q.shape[-1] != k.shape[-1]:
        raise ConfigError(
            f"q {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)} do not fit together."
        )
    if not q.dtype.is_floating_point:
        raise ConfigError(f"Attention takes floating-point tensors, got {q.dtype}.")
    if q.shape[1] % k.shape[1]:
        raise ConfigError(
            f"{q.shape[1]} query heads are not a multiple of {k.shape[1]} key-value heads."
        )
