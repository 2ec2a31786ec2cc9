"""Exact attention through PyTorch's own fused kernels, with the log-sum-exp where they give it.

What: one call of the vendor kernel for a whole (query, key) rectangle.
Source: Dao et al. (2022), FlashAttention, as built into PyTorch.
Differs from `scaled_dot_product_attention`: bottom-right causal alignment, rows that see nothing
give 0 and -inf, and the log-sum-exp comes back (PyTorch computes it and drops it).
Cost: O(T * S) time, O(T) memory beside the mask, which is built only when a rule needs one.
Shapes: as `reference`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unspool.attention.spec import Spec, visible

if TYPE_CHECKING:
    from torch import Tensor


_MANY_QUERIES = 1024
_EXPANDED = 1 << 28
"""Pairs up to which block lists are written out as a mask."""


def why_not_sdpa(q: Tensor, k: Tensor, v: Tensor, *, spec: Spec, return_lse: bool) -> str | None:
    """Why the fused kernels can't take this call; None: they can."""
    import torch

    if spec.softcap is not None:
        return "the fused kernels have no soft cap"
    if spec.dropout:
        return "the fused kernels do not take the seed of a dropout"
    if spec.blocks is not None:
        pairs = q.shape[2] * k.shape[2] * max(1, spec.blocks.num_heads)
        if pairs > _EXPANDED:
            return f"the block lists would become a mask of {pairs:,} entries"
    if spec.deterministic and q.device.type == "cuda" and torch.is_grad_enabled():
        return "the fused kernels sum some gradients in any order"

    if q.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        return f"dtype is {q.dtype}"
    if q.shape[2] == 0 or k.shape[2] == 0:
        return "there are no queries or no keys"
    if not return_lse:
        return None
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        return "the log-sum-exp of the fused kernels has no gradient"
    if q.device.type == "cpu":
        if q.dtype == torch.float16:
            return "the CPU kernel is slow and inexact in float16"
        return None if v.shape[-1] == q.shape[-1] else "value and key head sizes differ"
    if q.device.type == "cuda":
        return None if q.dtype != torch.float64 else "the CUDA kernels have no float64"
    return f"no fused kernel returns the log-sum-exp on {q.device.type}"


def sdpa_attend(
    q: Tensor, k: Tensor, v: Tensor, *, spec: Spec, scale: float, return_lse: bool
) -> tuple[Tensor, Tensor | None]:
    """Attention by the vendor kernel, and its log-sum-exp [B, Hq, T] in float32 when asked for."""
    num_queries, num_keys = q.shape[2], k.shape[2]
    # The kernels align causality top-left, so only the square case can use their own flag.
    square = spec.unmasked and spec.causal and num_queries == num_keys and num_queries > 1
    seen = None if square else visible(spec, num_queries, num_keys, q.device, num_heads=q.shape[1])
    if not return_lse:
        return _without_lse(q, k, v, seen, square, scale), None
    if q.device.type == "cpu":
        return _cpu(q, k, v, seen, square, scale)
    return _cuda(q, k, v, seen, square, scale)


def cudnn_attend(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Everything or a square's causal half by cuDNN, and its log-sum-exp. Inference only.

    The tensors are made contiguous: over views of a buffer with room this kernel has answered
    wrongly.
    """
    import torch

    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    q, k, v = (x.contiguous() for x in (q, k, v))
    out, lse, *_ = torch.ops.aten._scaled_dot_product_cudnn_attention(
        q, k, v, None, True, 0.0, causal, False, scale=scale
    )
    return out, lse.reshape(q.shape[:3]).float()


def _by_cudnn(q: Tensor, v: Tensor) -> bool:
    """Whether the shape is one at which cuDNN was compared and found faster."""
    import torch

    return (
        q.element_size() == 2
        and q.shape[2] >= _MANY_QUERIES
        and 64 < q.shape[-1] <= 128
        and q.shape[-1] == v.shape[-1]
        and q.shape[-1] % 8 == 0
        and torch.backends.cuda.cudnn_sdp_enabled()
        and torch.cuda.get_device_capability(q.device) >= (9, 0)
    )


def bias_of(seen: Tensor, dtype: Any) -> Tensor:
    """A bool mask as the additive one that the kernels take."""
    import torch

    bias = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return bias.masked_fill_(~seen, float("-inf"))


def _without_lse(
    q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None, square: bool, scale: float
) -> Tensor:
    import torch
    import torch.nn.functional as F

    taught = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    if q.device.type == "cuda" and q.dtype != torch.float64 and not taught:
        # This kernel was compared with written-out attention on a GPU; the one that PyTorch picks
        # for half precision on newer devices was not.
        return _cuda(q, k, v, seen, square, scale)[0]
    grouped = q.shape[1] != k.shape[1]
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=seen, is_causal=square, scale=scale, enable_gqa=grouped
    )
    if seen is not None:
        out = out.masked_fill(~seen.any(-1, keepdim=True), 0.0)  # some kernels give NaN there
    return out


def _cpu(
    q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None, square: bool, scale: float
) -> tuple[Tensor, Tensor]:
    import torch

    bias = None if seen is None else bias_of(seen, q.dtype)
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, 0.0, square, attn_mask=bias, scale=scale
    )
    return _blind_rows(out, lse, seen)


def _cuda(
    q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None, square: bool, scale: float
) -> tuple[Tensor, Tensor]:
    import torch

    if seen is None and _by_cudnn(q, v):
        return cudnn_attend(q, k, v, causal=square, scale=scale)
    heads, groups = q.shape[:3], q.shape[1] // k.shape[1]
    if groups > 1 and seen is None and not square:
        q = q.reshape(q.shape[0], k.shape[1], -1, q.shape[-1])  # heads that share keys are rows
    elif groups > 1:  # the efficient kernel has no grouped heads
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    width = v.shape[-1]
    q, k, v = (_aligned(x) for x in (q, k, v))
    bias = None
    if seen is not None:
        # The kernel wants the row stride of the bias to be a multiple of 16 bytes.
        num_keys = seen.shape[-1]
        padded = torch.zeros(
            *seen.shape[:-1], -(-num_keys // 16) * 16, dtype=q.dtype, device=q.device
        )
        bias = padded[..., :num_keys].masked_fill_(~seen, float("-inf"))
        bias = bias.expand(q.shape[0], q.shape[1], q.shape[2], num_keys)
    out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
        q, k, v, bias, True, 0.0, square, scale=scale
    )
    out, lse = out[..., :width], lse[:, :, : q.shape[2]]
    return _blind_rows(out.reshape(*heads, width), lse.reshape(heads), seen)


def _aligned(x: Tensor) -> Tensor:
    """With zeros behind it up to a row of whole 16 bytes, which the CUDA kernel asks for."""
    import torch.nn.functional as F

    missing = -x.shape[-1] % (16 // x.dtype.itemsize)
    return F.pad(x, (0, missing)) if missing else x


def _blind_rows(out: Tensor, lse: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
    """Rows that see nothing: output 0, log-sum-exp -inf, whatever the kernel left there."""
    import torch

    lse = lse.to(torch.promote_types(lse.dtype, torch.float32))
    if seen is None:
        return out, lse
    blind = ~seen.any(-1)
    return out.masked_fill(blind[..., None], 0.0), lse.masked_fill(blind, float("-inf"))
