"""Randomised positions: in training, steps of random length, so that a model meets every distance.

Source: Pal et al. (2023), "Giraffe", section 3, "randomised positions": t = cumsum(U(0, 2)), scaled
down where the last would pass the length of the sequence; evaluation uses whole positions.
Differs from the released code: summed in float64, since in float32 steps vanish past some ten
thousand tokens; one draw a row from a seed, so a step can be repeated exactly.
Cost: O(B T). Shapes: positions [B, T], float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unspool.errors import ConfigError

if TYPE_CHECKING:
    import torch


def randomised_positions(batch: int, length: int, *, seed: int) -> torch.Tensor:
    """Strictly increasing positions in (0, length], another draw for each row.

    Pass them as `position_ids` together with an `attention_mask` of ones: without a mask,
    transformers takes steps other than 1 for the borders of packed documents.

    Args:
        batch: Rows.
        length: Tokens a row.
        seed: Of the draw; one forward pass takes one seed, in every layer.

    Raises:
        ConfigError: A count is negative.
    """
    import torch

    if batch < 0 or length < 0:
        raise ConfigError(f"batch and length must be >= 0, got {batch} and {length}.")
    draw = torch.Generator().manual_seed(seed)
    steps = 2 * (1 - torch.rand(batch, length, generator=draw, dtype=torch.float64))  # (0, 2]
    positions = steps.cumsum(-1)
    if not length:
        return positions
    last = positions[:, -1:].clamp(min=length)
    return (positions * (length / last)).clamp(max=length)
