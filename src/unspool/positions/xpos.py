"""xPos: rotary positions whose pairs also fade with distance, the fast ones first.

Source: Sun et al. (2022), "A Length-Extrapolatable Transformer", section 2.2, as Giraffe (Pal et
al. 2023, section 3) runs it: zeta_j = (2j + 0.4 d) / (1.4 d), queries times
zeta ** (m / scale_base) and keys times the inverse, so a product depends on the distance alone.
Differs from the released code of Giraffe: pairs are those of the model (half-split or interleaved;
the code applies interleaved ones to weights laid out half-split); any number of positions at any
time; m is counted from `origin`, which the caller puts near the queries, where the code takes the
middle of the text. Far keys then fade to zero and nothing overflows, however long the text.
Cost: one exponential a pair and token. Shapes: x [B, H, T, D], positions [B, T]; the first `dim` of
D are rotated, the rest are left alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from unspool.errors import ConfigError
from unspool.positions.rotation import Layout

if TYPE_CHECKING:
    import torch


def xpos_scale(
    x: torch.Tensor,
    positions: torch.Tensor,
    *,
    side: Literal["query", "key"],
    dim: int,
    scale_base: int | float = 512,
    origin: int | float = 0,
    layout: Layout = "half",
) -> torch.Tensor:
    """Scale rotated queries or keys by their positions; their products then fade with distance.

    Args:
        x: Queries or keys, after rotation.
        positions: Of the tokens.
        side: Queries grow with their position, keys shrink.
        dim: Rotated width of a head.
        scale_base: Tokens after which pair j has faded by zeta_j: larger fades later, infinite not
            at all.
        origin: Position at which the scale is 1. It cancels in the product; near the queries it
            keeps both sides small enough for float32.
        layout: Where the two halves of a pair lie.

    Raises:
        ConfigError: A setting has a value that cannot work.
    """
    import torch

    if side not in ("query", "key"):
        raise ConfigError(f"side must be query or key, got {side!r}.")
    logs = xpos_logs(dim, scale_base).to(x.device)
    relative = (positions - origin).to(torch.float32)[:, None, :, None]
    scales = torch.exp(relative * (logs if side == "query" else -logs))
    if layout == "half":
        scales = torch.cat([scales, scales], dim=-1)
    elif layout == "interleaved":
        scales = scales.repeat_interleave(2, dim=-1)
    else:
        raise ConfigError(f"layout must be half or interleaved, got {layout!r}.")
    rotated = x[..., :dim].float() * scales
    return torch.cat([rotated, x[..., dim:].float()], dim=-1)


def xpos_logs(dim: int, scale_base: int | float = 512) -> torch.Tensor:
    """Logarithm a position of each pair's scale, [dim / 2], float32, 0 or below."""
    import torch

    if dim < 2 or dim % 2:
        raise ConfigError(f"The rotated width of a head must be even and >= 2, got dim={dim}.")
    if not scale_base > 0:
        raise ConfigError(f"scale_base must be above 0 tokens, got {scale_base}.")
    zeta = [(2 * j + 0.4 * dim) / (1.4 * dim) for j in range(dim // 2)]
    return torch.tensor([math.log(z) / scale_base for z in zeta], dtype=torch.float32)
