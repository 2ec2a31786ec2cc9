"""ALiBi: attention whose scores fall with distance, in place of rotary positions.

What: each head subtracts its own slope times the distance from its scores; queries and keys are
never rotated.
Source: Press et al. (2022), "Train Short, Test Long: Attention with Linear Biases Enables Input
Length Extrapolation", section 3.
Differs from the released code: slopes of any number of heads by the same geometric rule, the
distance itself as a bias, padding by position. A peer for methods that extrapolate, for models that
are trained with it.
Cost: as dense attention with a bias of H * T * S. Shapes: as `Call`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from unspool.errors import ConfigError
from unspool.methods import Method, Slot

if TYPE_CHECKING:
    from torch import Tensor

    from unspool._facts import ModelFacts
    from unspool.attention.call import Call


@dataclass(frozen=True, kw_only=True)
class Alibi(Method):
    """Scores that fall with distance, for models that are trained with them."""

    name: ClassVar[str] = "alibi"
    family: ClassVar[str] = "attention"
    slots: ClassVar[tuple[Slot, ...]] = ("attend",)
    recalls: ClassVar[str] = "what is near, in a model that was trained with it"
    costs: ClassVar[str] = "as dense; the model has to be trained with it"
    trains: ClassVar[bool] = True

    layers: str = "all"
    """All layers: a model is trained with one formula."""

    def capacity(self, facts: ModelFacts) -> int | None:
        return None

    def attend(self, facts: ModelFacts, layer: int) -> AlibiAttend:
        return AlibiAttend()


@dataclass(frozen=True, slots=True)
class AlibiAttend:
    """The mechanism on a layer; keys arrive raw and stay so."""

    late: bool = True
    reads_segments: bool = False

    def __call__(self, call: Call) -> Tensor:
        import torch.nn.functional as F

        if call.spec.mask is not None:
            raise ConfigError("ALiBi takes no mask beside causality, a window and padding.")
        k, v, at_k = call.k, call.v, call.where()
        if call.store is not None:
            (segment,) = call.store.segments()
            k, v, at_k = segment.k, segment.v, segment.where()
        at_q = call.where()
        distance = at_q[:, :, None] - at_k[:, None]
        seen = (at_k >= 0)[:, None] & (at_q >= 0)[:, :, None] & (distance >= 0)
        if call.spec.window is not None:
            seen = seen & (distance < call.spec.window)
        if call.positions is None:  # every row of the batch alike
            distance, seen = distance[:1], seen[:1]
        slopes = alibi_slopes(call.q.shape[1]).to(call.q.device)
        bias = (-slopes[:, None, None] * distance[:, None]).to(call.q.dtype)
        bias = bias.masked_fill(~seen[:, None], float("-inf"))
        blind = ~seen.any(-1)[:, None, :, None]
        out = F.scaled_dot_product_attention(
            call.q,
            k,
            v,
            attn_mask=bias.masked_fill(blind, 0.0),  # a row of -inf would be NaN
            scale=call.scale,
            enable_gqa=call.q.shape[1] != k.shape[1],
        )
        return out.masked_fill(blind, 0.0)


def alibi_slopes(num_heads: int) -> Tensor:
    """[H] float32: 2 ** (-8 (h + 1) / H)."""
    import torch

    return 2.0 ** (-8.0 * torch.arange(1, num_heads + 1) / num_heads)
