"""Feature maps whose products stand for exp(q k * scale): what makes a prefix a sum.

What: `elu1`, the positive elementwise map that is trained, and the Taylor maps, whose products are
the first terms of the exponential's series.
Source: Liang et al. (2024), "Toward Infinite-Long Prefix in Transformer", section 4 (a polynomial
map) and the released code (ELU + 1), as in linear attention.
Differs from the released code: a model's own scale takes the place of 1/sqrt(head size); degrees of
the Taylor map are a choice.
Cost: width D for elu1, 1 + D + … + D^p for degree p. Shapes: x [..., D] to [..., width].
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Phi = Literal["elu1", "taylor1", "taylor2"]


def features(x: Tensor, phi: Phi, scale: float | int) -> Tensor:
    """phi(x * sqrt(scale)), at least float32, so that phi(q) phi(k) stands for exp(q k * scale)."""
    import torch

    x = x.to(torch.promote_types(x.dtype, torch.float32)) * math.sqrt(scale)
    if phi == "elu1":
        return torch.nn.functional.elu(x) + 1
    return taylor(x, int(phi.removeprefix("taylor")))


def taylor(x: Tensor, degree: int) -> Tensor:
    """Features whose product is the exponential's series up to a degree, which from an even degree
    on is positive everywhere.

    Args:
        x: [..., D], scaled.
        degree: Of the last term; the width is 1 + D + … + D ** degree.
    """
    import torch

    terms = [torch.ones_like(x[..., :1])]
    power = terms[0]
    for j in range(1, degree + 1):
        power = (power[..., :, None] * x[..., None, :]).flatten(-2)
        terms.append(power / math.sqrt(math.factorial(j)))
    return torch.cat(terms, dim=-1)


def width(head_dim: int, phi: Phi) -> int:
    """Features of a head."""
    if phi == "elu1":
        return head_dim
    return sum(head_dim**j for j in range(int(phi.removeprefix("taylor")) + 1))
