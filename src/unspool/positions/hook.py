"""A forward hook on a model's rotary embedding: identity, other frequencies, or what it was.

What: replaces the (cos, sin) that a `rotary_emb` module returns, by layer type.
Source: transformers' rotary modules (5.17 to 5.23); Gemma-3's is called with a layer type.
Differs from replacing the module: buffers, state_dict and constructor are never touched.
Shapes: cos, sin [B, T, rotary].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from unspool.errors import ConfigError


@runtime_checkable
class Frequency(Protocol):
    """Inverse frequencies [rotary/2] and attention factor for a text of `length` tokens."""

    @property
    def late(self) -> bool:
        """They change while generating."""

    def __call__(self, length: int) -> tuple[Tensor, float]: ...


class RotaryHook:
    """What `rotary_emb` returns while a method is installed."""

    def __init__(
        self, *, late: frozenset[str], frequencies: Mapping[str, Frequency], only: set[str]
    ) -> None:
        """Hook for the layer types `late` (identity) and those with a frequency of their own.

        Args:
            late: Layer types whose rotation happens in the attention function.
            frequencies: Other frequencies by layer type.
            only: Every layer type of the model; a rotary module that is not told a type serves
                them all.
        """
        self.late = late
        self.frequencies = frequencies
        self.only = only

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        kinds = self._kinds((*args, *kwargs.values()))
        if kinds <= self.late:
            cos, sin = output
            return torch.ones_like(cos), torch.zeros_like(sin)
        frequency = self.frequencies.get(next(iter(kinds)))
        if frequency is None:
            return output
        return self._rotated(frequency, (*args, *kwargs.values()), output)

    def _kinds(self, given: tuple[Any, ...]) -> set[str]:
        said = {x for x in given if isinstance(x, str)} & self.only
        kinds = said or self.only
        mixed = (kinds & self.late) and not kinds <= self.late
        first, *others = (self.frequencies.get(kind) for kind in sorted(kinds))
        if mixed or any(other != first for other in others):
            raise ConfigError(
                f"One rotary embedding serves the layer types {', '.join(sorted(kinds))} of this "
                f"model, so a method has to be given to all of them: layers=all."
            )
        return kinds

    def _rotated(self, frequency: Frequency, given: tuple[Any, ...], output: Any) -> Any:
        cos, sin = output
        # position_ids are integers [B, T] or [3, B, T]; randomised ones are not, but still [B, T]
        tensors = [x for x in given if isinstance(x, Tensor)]
        whole = (x for x in tensors if not x.is_floating_point())
        ids = next(whole, None)
        ids = ids if ids is not None else next(x for x in tensors if x.ndim == 2)
        inv_freq, factor = frequency(0)
        angles = ids.to(cos.device).float()[..., None] * inv_freq.to(cos.device)
        half = angles.shape[-1]
        if cos.shape[-1] == half:
            wide = angles
        elif half > 1 and torch.equal(cos[..., :half], cos[..., half:]):
            wide = torch.cat((angles, angles), dim=-1)
        else:
            wide = angles.repeat_interleave(2, dim=-1)
        return (wide.cos() * factor).to(cos.dtype), (wide.sin() * factor).to(sin.dtype)
