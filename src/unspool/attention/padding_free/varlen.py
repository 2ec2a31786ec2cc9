"""Attention inside each sentence of a packed row, by the fastest way that this machine has.

What: `varlen_attend` on [1, H, T, D] with sentence boundaries: PyTorch's flash kernel for packed
rows (`flash`), this project's Triton kernel (`triton`), dense batches of sentences of one length
(`lengths`), or the definition (`reference`).
Source: Zhai et al. (2022), "ByteTransformer", section 3.4; their short kernel and their grouped
GEMMs are one thing today: flash attention with cumulative lengths (Dao 2023).
Differs from the released code: any head size, dtype and length; no logits in memory; a backward;
sliding windows and an additive bias (relative positions) inside a sentence.
Cost: 4 * D * sum(n_b^2) multiplications a head, against 4 * D * B * S^2 padded. Shapes: q
[1, Hq, T, D], k and v [1, Hkv, T, D].
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Literal

from unspool.attention.kernel import attend
from unspool.attention.padding_free.layout import Layout
from unspool.attention.spec import Spec
from unspool.errors import ConfigError, Unsupported

if TYPE_CHECKING:
    import torch
    from torch import Tensor

VarlenBackend = Literal["auto", "flash", "triton", "lengths", "reference"]
_BACKENDS = ("auto", "flash", "triton", "lengths", "reference")


def why_not_flash(q: Tensor, bias: Tensor | None) -> str | None:
    """Why PyTorch's flash kernel cannot take a call."""
    import torch

    if not q.is_cuda:
        return f"tensors are on {q.device.type}, the kernel needs CUDA"
    if q.dtype not in (torch.float16, torch.bfloat16):
        return f"dtype is {q.dtype}, the kernel has float16 and bfloat16"
    if q.shape[-1] > 256 or q.shape[-1] % 8:
        return f"head_dim is {q.shape[-1]}, the kernel has multiples of 8 up to 256"
    return None if bias is None else "there is an additive bias, which the kernel lacks"


def why_not_triton(q: Tensor, bias: Tensor | None, dropout: float | int) -> str | None:
    """Why this project's Triton kernel is not used for a call."""
    from importlib.util import find_spec

    if not q.is_cuda:
        return f"tensors are on {q.device.type}, the kernel needs CUDA"
    if bias is not None or dropout:
        return "there is an additive bias or dropout"
    return None if find_spec("triton") else "triton is not installed"


def varlen_attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout,
    *,
    causal: bool = False,
    window: int | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
    dropout: float | int = 0.0,
    backend: VarlenBackend = "auto",
) -> Tensor:
    """Attention of every token over the tokens of its own sentence.

    Args:
        q: [1, Hq, T, D].
        k: [1, Hkv, T, D].
        v: [1, Hkv, T, D].
        layout: Where sentences begin and end.
        causal: A token sees itself and earlier ones only.
        window: Only tokens nearer than this; ahead too unless causal.
        bias: [1|B, Hq|1, T, T] added to the scores; only its blocks on the diagonal are read.
        scale: Factor on the scores; None: D ** -0.5.
        dropout: Probability that a weight is dropped, in training.
        backend: One of auto, flash, triton, lengths, reference.

    Returns:
        [1, Hq, T, D].

    Raises:
        ConfigError: A back-end that cannot take the call, with the reason.
    """
    if backend not in _BACKENDS:
        raise ConfigError(f"backend must be one of {', '.join(_BACKENDS)}, got {backend!r}.")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    no_flash = why_not_flash(q, bias)
    if backend == "flash" and no_flash is not None:
        raise ConfigError(f"backend='flash' can't run here: {no_flash}.")
    if backend == "flash" or (backend == "auto" and no_flash is None):
        return _flash(q, k, v, layout, causal, window, scale, dropout)
    if layout.in_graph:
        raise Unsupported(
            f"attention inside a CUDA graph is PyTorch's flash kernel only, and "
            f"{no_flash or 'backend=' + backend!r}"
        )
    no_triton = why_not_triton(q, bias, dropout)
    if backend == "triton" and no_triton is not None:
        raise ConfigError(f"backend='triton' can't run here: {no_triton}.")
    if backend == "triton" or (backend == "auto" and no_triton is None):
        return attend(q, k, v, spec=_spec(layout, causal, window), scale=scale)
    if backend == "reference":
        if bias is not None or dropout:
            raise ConfigError("backend='reference' takes no bias and no dropout.")
        spec = _spec(layout, causal, window)
        return attend(q, k, v, spec=spec, scale=scale, backend="reference")
    return _by_length(q, k, v, layout, causal, window, bias, scale, dropout)


def _spec(layout: Layout, causal: bool, window: int | None) -> Spec:
    return Spec.packed(
        layout.cu_seqlens,
        num_queries=int(layout.position_ids.shape[0]),
        max_seqlen=layout.max_seqlen,
        causal=causal,
        window=window,
        right=None if causal or window is None else window - 1,
    )


def _flash(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout,
    causal: bool,
    window: int | None,
    scale: float,
    dropout: float | int,
) -> Tensor:
    import torch

    left = right = None
    if window is not None:
        left, right = window - 1, 0 if causal else window - 1
    out, *_ = torch.ops.aten._flash_attention_forward(
        *(x[0].transpose(0, 1) for x in (q, k, v)),
        layout.cu_seqlens,
        layout.cu_seqlens,
        layout.max_seqlen,
        layout.max_seqlen,
        float(dropout),
        causal,
        False,
        scale=scale,
        window_size_left=left,
        window_size_right=right,
    )
    rows: Tensor = out.transpose(0, 1)[None]
    return rows


def _by_length(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout,
    causal: bool,
    window: int | None,
    bias: Tensor | None,
    scale: float,
    dropout: float | int,
) -> Tensor:
    """Neighbours of one length are views of dense batches: nothing is copied on the way in."""
    import torch
    import torch.nn.functional as F

    grouped = q.shape[1] != k.shape[1]
    outs, start = [], 0
    for length, run in groupby(layout.lengths):
        count = 1 if bias is not None else sum(1 for _ in run)
        for _ in run if bias is not None else (None,):  # a bias differs from sentence to sentence
            end = start + count * length
            near = _near(length, window, causal, q.device)
            added = None if bias is None else bias[:, :, start:end, start:end]
            if added is not None and near is not None:
                added = added.masked_fill(~near, float("-inf"))
            if added is not None and causal and near is None:
                ones = torch.ones(length, length, dtype=torch.bool, device=q.device)
                added = added.masked_fill(~ones.tril(), float("-inf"))
            mask = near if added is None else added
            rows, keys, values = (
                x[0, :, start:end].unflatten(1, (count, length)).transpose(0, 1) for x in (q, k, v)
            )
            out = F.scaled_dot_product_attention(
                rows,
                keys,
                values,
                attn_mask=mask,
                dropout_p=dropout,
                is_causal=causal and mask is None,
                scale=scale,
                enable_gqa=grouped,
            )
            outs.append(out.transpose(0, 1).flatten(1, 2))
            start = end
    return torch.cat(outs, dim=1)[None]


def _near(
    length: int, window: int | None, causal: bool, device: torch.device
) -> torch.Tensor | None:
    """Who sees whom under a window in a sentence of `length`; None: the window covers it."""
    import torch

    if window is None or length <= window:
        return None
    at = torch.arange(length, device=device)
    distance = at[:, None] - at[None]
    near = distance.abs() < window
    return near & (distance >= 0) if causal else near


def picture() -> torch.Tensor:
    """Who sees whom in a packed row of six sentences, bool [64, 64]."""
    import torch

    from unspool.attention.padding_free.layout import flat
    from unspool.attention.spec import visible

    layout = flat((20, 15, 11, 9, 6, 3), torch.device("cpu"))
    seen = visible(_spec(layout, False, None), 64, 64, torch.device("cpu"))
    assert seen is not None  # sentences hide something
    return seen[0, 0]
