"""Rotary position embedding applied late: to queries and keys at positions chosen when attending.

What: rotate the first `rotary` dimensions of a head by position times frequency, in the pair layout
of the model at hand.
Source: Su et al. (2021), RoFormer, eq. 34; late rotation is how LM-Infinite (section 4) and InfLLM
give keys distances that depend on the query.
Differs from transformers: positions are an argument of every call, so they can be relative to what
is visible; the angles are computed in float32 from small integers, exact at any text length.
Cost: O(T * rotary) a call. Shapes: x [B, H, T, D]; positions [T] or [B, T], or one int for a run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Layout = Literal["half", "interleaved"]
"""Which dimensions form a pair: (j, j + rotary/2) or (2j, 2j + 1)."""


@dataclass(slots=True, eq=False)
class Rotation:
    """The model's rotation: inverse frequencies [rotary/2], attention factor and pair layout."""

    inv_freq: Tensor
    factor: float = 1.0
    """Multiplies cos and sin, so scores get its square (YaRN)."""
    layout: Layout = "half"
    _cos: Tensor | None = field(default=None, repr=False)
    _sin: Tensor | None = field(default=None, repr=False)

    def __call__(self, x: Tensor, positions: Tensor | int) -> Tensor:
        """Rotate x by its positions.

        Args:
            x: [B, H, T, D]; dimensions past the rotary ones are left alone.
            positions: [T] or [B, T] integers, or the position of the first of T in a row.
        """
        cos, sin = self._tables(x, positions)
        return rotate(x, cos, sin, self.layout)

    def at_one(self, x: Tensor, position: int) -> Tensor:
        """Rotate every token of x by one and the same position."""
        cos, sin = self._angles(x.device, position, position + 1)
        return rotate(x, cos[None, None], sin[None, None], self.layout)

    def shift(self, x: Tensor, distance: int) -> Tensor:
        """Turn what was rotated already by `distance` more positions; the factor is not applied."""
        angles = distance * self.inv_freq.to(x.device).double()
        cos, sin = angles.cos()[None, None, None], angles.sin()[None, None, None]
        return rotate(x, cos.float(), sin.float(), self.layout)

    def _tables(self, x: Tensor, positions: Tensor | int) -> tuple[Tensor, Tensor]:
        if isinstance(positions, int):
            cos, sin = self._angles(x.device, positions, positions + x.shape[2])
            return cos[None, None], sin[None, None]
        angles = positions.to(x.device).float()[..., None] * self.inv_freq.to(x.device)
        cos, sin = angles.cos() * self.factor, angles.sin() * self.factor
        if positions.ndim == 1:
            return cos[None, None], sin[None, None]
        return cos[:, None], sin[:, None]

    def _angles(self, device: torch.device, start: int, end: int) -> tuple[Tensor, Tensor]:
        """cos and sin [end - start, rotary/2] in float32, from a table that grows by doubling."""
        import torch

        if start < 0:
            positions = torch.arange(start, end, device=self.inv_freq.device)
            angles = positions.float()[:, None] * self.inv_freq
            cos, sin = angles.cos() * self.factor, angles.sin() * self.factor
            return cos.to(device), sin.to(device)
        known, other = self._cos, self._sin
        if known is None or other is None or known.shape[0] < end or known.device != device:
            size = 1 << max(12, (end - 1).bit_length())
            positions = torch.arange(size, device=device)
            angles = positions.float()[:, None] * self.inv_freq.to(positions.device)
            known, other = angles.cos() * self.factor, angles.sin() * self.factor
            self._cos, self._sin = known, other
        return known[start:end], other[start:end]


def rotate(x: Tensor, cos: Tensor, sin: Tensor, layout: Layout) -> Tensor:
    """Rotate pairs of x [B, H, T, D] by cos and sin [..., T, rotary/2], as transformers does it.

    The products are rounded to the dtype of x before they are added, so that a model read in bf16
    gives the same bits as its own rotation.
    """
    import torch

    half = cos.shape[-1]
    rotary, rest = x[..., : 2 * half], x[..., 2 * half :]
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    if layout == "half":
        first, second = rotary[..., :half], rotary[..., half:]
        turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    else:
        first, second = rotary[..., 0::2], rotary[..., 1::2]
        turned = torch.stack((first * cos - second * sin, second * cos + first * sin), dim=-1)
        turned = turned.flatten(-2)
    return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned
