"""A prefix as a state: sums over its keys and values, and attention that meets them.

What: Z = sum of phi(k) v^T and kappa = sum of phi(k) over the prefix; attention over it and over
the real keys together, from plain attention's output and log-sum-exp alone.
Source: Liang et al. (2024), "Toward Infinite-Long Prefix in Transformer", section 4, algorithm 1.
Differs from the released code: it divides by exp of the row's largest score, which overflows past
88; here no exponential of anything positive is taken, and the largest score is one that is visible.
Where Z and kappa are 0 the output is the base model's, bit for bit.
Cost: O(T * width * Dv) a head beside plain attention. Shapes: q [B, Hq, T, D], z [H, width, Dv],
kappa [H, width], H heads of queries or of keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unspool.attention.ntk.features import Phi, features
from unspool.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

FLOOR = -80.0
"""Least log-sum-exp that counts: below it a row's real keys weigh nothing beside any prefix."""


@dataclass(frozen=True, slots=True, eq=False)
class PrefixState:
    """A prefix of any length; states of two prefixes add up to the state of both."""

    z: Tensor
    """[H, width, Dv]."""
    kappa: Tensor
    """[H, width]."""

    @classmethod
    def of(cls, k: Tensor, v: Tensor, *, phi: Phi, scale: float | int) -> PrefixState:
        """The state of keys and values.

        Args:
            k: [H, m, D], as queries meet them (rotated where the model rotates).
            v: [H, m, Dv].
            phi: The feature map.
            scale: Factor on the scores.
        """
        if k.ndim != 3 or k.shape[:2] != v.shape[:2]:
            raise ConfigError(
                f"A prefix is keys [H, m, D] and values [H, m, Dv], got {tuple(k.shape)} and "
                f"{tuple(v.shape)}."
            )
        f = features(k, phi, scale)
        return cls(f.transpose(1, 2) @ v.to(f.dtype), f.sum(1))

    def __add__(self, other: PrefixState) -> PrefixState:
        return PrefixState(self.z + other.z, self.kappa + other.kappa)


def add_prefix(
    out: Tensor,
    lse: Tensor,
    q: Tensor,
    z: Tensor,
    kappa: Tensor,
    *,
    floor: float | int = FLOOR,
) -> Tensor:
    """Attention over the real keys and a prefix.

    Args:
        out: [B, Hq, T, Dv] over the real keys.
        lse: [B, Hq, T], natural log-sum-exp of their scores.
        q: [B, Hq, T, width], features of the queries.
        z: [H, width, Dv]; Hq a multiple of H.
        kappa: [H, width], such that q kappa is not negative.
        floor: Rows whose log-sum-exp is lower are taken as having this one.

    Returns:
        [B, Hq, T, Dv] in the dtype of `out`; rows that see no key at all give 0.
    """
    import torch

    groups = q.shape[1] // z.shape[0]
    if groups > 1:
        z, kappa = z.repeat_interleave(groups, dim=0), kappa.repeat_interleave(groups, dim=0)
    number = q @ z  # the prefix's numerator and denominator
    weight = (q @ kappa[..., None])[..., 0]
    low = lse.clamp(min=floor)
    real, prefix = low.clamp(max=0).exp(), (-low).clamp(max=0).exp()
    exact = out.to(number.dtype)
    total = real + prefix * weight
    moved = exact + (prefix / total)[..., None] * (number - weight[..., None] * exact)
    return moved.masked_fill(torch.isneginf(lse)[..., None], 0.0).to(out.dtype)


def picture(tokens: int = 48, prefix: int = 12) -> Tensor:
    """What each query meets, [T, prefix + S]: 2 for the state that stands for a prefix of any
    length, drawn `prefix` columns wide, 1 for the text up to itself."""
    import torch

    columns = prefix + tokens
    equal = torch.zeros(1, 1, tokens, 1)
    named = torch.eye(columns)[prefix:]  # values that name their key
    weights = torch.ones(tokens, tokens).tril()
    out = (weights / weights.sum(-1, keepdim=True)) @ named
    lse = weights.sum(-1).log()
    z = torch.eye(columns)[:prefix].sum(0)[None, None]
    kappa = torch.ones(1, 1)
    moved = add_prefix(out[None, None], lse[None, None], equal + 1, z, kappa)
    met = (moved[0, 0] > 0).int()
    met[:, :prefix] *= 2
    return met
