"""Length-scaled softplus attention with re-weighting, in plain PyTorch: the truth of the kernel.

What: scores, scaled by the logarithm of how many keys a query sees, pass through softplus and are
divided by their sum (LSSA); re-weighting subtracts the uniform level from them, raises what is left
to a power and divides by the sum again (LSSAR).
Source: Gao & Spratling (2025), "Softplus Attention with Re-weighting Boosts Length Extrapolation in
Large Language Models", second version: the dynamic scale, LSSA and LSSAR. Their code could not be
obtained; constants that rest on knowledge of the paper alone are the defaults of `SoftplusConfig`.
Differs from the paper: a row that nothing is left of (one key, or all keys alike to within
rounding) keeps its first-stage weights; a row whose scores are all so low that softplus underflows
is shifted first, which changes no weight; the power is taken of shares of the row's largest value,
so that no length and no power overflows; a query counts the keys that it really sees, padding
apart.
Cost: O(T * S) time, and memory of a block of rows. Shapes: q [B, Hq, T, D], k and v [B, Hkv, S, D],
n [B|1, T].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from unspool.attention.reference import block_rows, scores, weighted
from unspool.attention.spec import Spec, visible
from unspool.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

LOW = -15.0
"""A row whose scores all lie below this is shifted: softplus is e^z there, to float32."""
_LOW_DOUBLE = -37.0
Phi = Literal["softplus", "exp", "relu", "sigmoid"]
Scale = Literal["log", "log-n", "plain"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SoftplusConfig:
    """The family of row-normalised attentions that the paper compares."""

    p: float | int = 15
    """Power of the re-weighting."""
    offset: float | int = 1.0
    """Subtracted from n times the weight; 1 is the uniform level, 0 leaves the power alone."""
    scale: Scale | float | int = "log"
    """Factor on the scores: log is log(D) log(n) / sqrt(D), log-n is log(n) / sqrt(D), plain is
    1 / sqrt(D); or a number."""
    phi: Phi = "softplus"
    """What makes scores positive; exp with scale=plain and no re-weighting is softmax."""
    reweight: bool = True
    """The second stage."""
    normalise: bool = True
    """Divide by the row's sum."""

    def __post_init__(self) -> None:
        if self.p < 1:
            raise ConfigError(
                f"Re-weighting needs a power p >= 1, got p={self.p}; 1 changes least."
            )
        if self.offset < 0:
            raise ConfigError(f"Re-weighting needs offset >= 0, got offset={self.offset}.")
        if self.phi not in ("softplus", "exp", "relu", "sigmoid"):
            raise ConfigError(f"phi must be softplus, exp, relu or sigmoid, got phi={self.phi!r}.")
        if isinstance(self.scale, str) and self.scale not in ("log", "log-n", "plain"):
            raise ConfigError(
                f"scale must be log, log-n, plain or a number, got scale={self.scale!r}."
            )
        if self.reweight and not self.normalise:
            raise ConfigError("Re-weighting is of normalised weights: normalise=True.")


def row_scale(config: SoftplusConfig, head_dim: int, seen: Tensor) -> Tensor:
    """Factor on the scores of rows that see `seen` keys each, in the dtype of `seen`."""
    import torch

    if not isinstance(config.scale, str):
        return torch.full_like(seen, float(config.scale))
    plain = 1.0 / math.sqrt(head_dim)
    if config.scale == "plain":
        return torch.full_like(seen, plain)
    factor = math.log(head_dim) if config.scale == "log" else 1.0
    return torch.log(seen.clamp(min=1)) * (factor * plain)


def row_weights(z: Tensor, mask: Tensor | None, seen: Tensor, config: SoftplusConfig) -> Tensor:
    """Attention weights from scaled scores.

    Args:
        z: [B, H, T, S].
        mask: bool, broadcasts to z; True is visible. None: all is.
        seen: [B|1, 1, T, 1], visible keys of each row.
        config: The member of the family.

    Returns:
        [B, H, T, S]; 0 where masked, and a row of zeros where nothing is visible.
    """
    import torch
    import torch.nn.functional as F

    if config.phi == "exp":
        hidden = z if mask is None else z.masked_fill(~mask, float("-inf"))
        top = hidden.amax(-1, keepdim=True) if config.normalise else torch.zeros_like(z[..., :1])
        positive = torch.exp(z - top.masked_fill(torch.isneginf(top), 0.0).detach())
    else:
        made = {"softplus": F.softplus, "relu": torch.relu, "sigmoid": torch.sigmoid}
        positive = made[config.phi](z)
        if config.phi == "softplus" and config.normalise and z.numel():
            shown = z if mask is None else z.masked_fill(~mask, float("-inf"))
            top = shown.amax(-1, keepdim=True).detach()
            low = (top < (LOW if z.dtype != torch.float64 else _LOW_DOUBLE)) & ~torch.isneginf(top)
            shifted = torch.exp((z - top.masked_fill(~low, 0.0)).clamp(max=0.0))
            positive = torch.where(low, shifted, positive)
    # After the non-linearity: softplus of a masked score of 0 would be log 2, and scaling -inf by
    # log(1) = 0 would be NaN.
    if mask is not None:
        positive = positive.masked_fill(~mask, 0.0)
    if not config.normalise:
        return positive
    total = positive.sum(-1, keepdim=True)
    a = positive / total.masked_fill(total == 0, 1.0)
    return reweighted(a, seen, config) if config.reweight else a


def reweighted(a: Tensor, seen: Tensor, config: SoftplusConfig) -> Tensor:
    """The second stage, on rows that add up to 1."""
    import torch

    above = torch.relu(seen * a - config.offset)
    top = above.amax(-1, keepdim=True).detach()  # divided out again: it carries no gradient
    live = top > tie(a.dtype)
    powered = (above / top.masked_fill(~live, 1.0)) ** config.p
    total = powered.sum(-1, keepdim=True)
    return torch.where(live, powered / total.masked_fill(~live, 1.0), a)


def tie(dtype: object) -> float:
    """A row whose largest value lies no further above the offset than this holds equal keys."""
    import torch

    return 64 * torch.finfo(dtype if isinstance(dtype, torch.dtype) else torch.float32).eps


def reference_softplus(
    q: Tensor, k: Tensor, v: Tensor, *, spec: Spec, config: SoftplusConfig
) -> Tensor:
    """The definition, a block of rows at a time; half precision is computed in float32.

    Returns:
        [B, Hq, T, Dv] in the dtype of q.
    """
    import torch

    dtype = q.dtype if q.dtype == torch.float64 else torch.float32
    num_queries, num_keys = q.shape[2], k.shape[2]
    step = block_rows(q.to(dtype) if q.numel() == 0 else q, num_keys)
    keys, values = k.to(dtype), v.to(dtype)
    outs = []
    for start in range(0, max(1, num_queries), step):
        rows = slice(start, min(start + step, num_queries))
        mask = visible(spec, num_queries, num_keys, q.device, rows)
        if mask is None:
            seen = torch.full((1, 1, rows.stop - start, 1), num_keys, dtype=dtype, device=q.device)
        else:
            seen = mask[:, :1].sum(-1, keepdim=True).to(dtype)
        z = scores(q[:, :, rows].to(dtype), keys, 1.0) * row_scale(config, q.shape[-1], seen)
        outs.append(weighted(row_weights(z, mask, seen, config), values))
    return torch.cat(outs, dim=2).to(q.dtype)


def picture() -> Tensor:
    """Keys that keep a weight after the second stage, for drawn queries and keys: bool [64, 64]."""
    import torch

    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 1, 64, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = torch.ones(64, 64, dtype=torch.bool).tril()
    seen = mask.sum(-1, keepdim=True).double()[None, None]
    config = SoftplusConfig()
    z = scores(q, k, 1.0) * row_scale(config, 8, seen)
    return (row_weights(z, mask, seen, config) > 0)[0, 0]
