"""Keys and values of a finished prompt in 2, 4 or 8 bits, as a stage after the prefill.

What: codes with a scale and an offset a group; keys are grouped along the tokens of one channel,
values along the channels of one token, and the newest tokens stay as they are.
Source: Liu et al. (2024), "KIVI", sections 3.2 and 4: keys per channel, values per token, groups of
32, a residual of full precision.
Differs from the released code: the residual is the prompt's own tail, and what is written later
stays full, so nothing is rounded twice; a layer is widened for its own attention and released
after it, by PyTorch alone, so memory falls and speed does not rise.
Cost: bits/16 of a half-precision cache, and 32 bits a group. Shapes: k, v [B, Hkv, S, D].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from unspool.caches.base import KV
from unspool.caches.stages import Compression, split
from unspool.errors import ConfigError

if TYPE_CHECKING:
    from unspool._facts import ModelFacts

_BITS = (2, 4, 8)


@dataclass(frozen=True, slots=True)
class Codes:
    """A tensor in a few bits a number: groups along its last dimension."""

    codes: Tensor
    """uint8 [..., groups, group * bits / 8]."""
    scale: Tensor
    """float16 [..., groups]."""
    offset: Tensor
    """float16 [..., groups]: the smallest number of a group."""
    bits: int
    length: int
    """Of the last dimension, before it was filled up to whole groups."""

    @classmethod
    def of(cls, x: Tensor, bits: int, group: int) -> Codes:
        """Round x to the nearest of 2**bits steps between the ends of each group."""
        length = x.shape[-1]
        spare = -length % group
        if spare:  # repeats of a number widen no range; at the front, as padding stands there
            x = torch.cat((x[..., :1].expand(*x.shape[:-1], spare), x), dim=-1)
        grouped = x.unflatten(-1, (-1, group)).float()
        low, high = grouped.amin(-1), grouped.amax(-1)
        # Codes are chosen against the rounded scale and offset, which is what they are read with.
        offset = low.half()
        scale = ((high - offset.float()) / (2**bits - 1)).half()
        step = scale.float().masked_fill(scale == 0, 1.0)[..., None]
        levels = ((grouped - offset.float()[..., None]) / step).round_().clamp_(0, 2**bits - 1)
        return cls(_pack(levels.to(torch.uint8), bits), scale, offset, bits, length)

    def open(self, dtype: torch.dtype) -> Tensor:
        """The numbers again."""
        levels = _unpack(self.codes, self.bits).to(torch.float32)
        x: Tensor = levels * self.scale.float()[..., None] + self.offset.float()[..., None]
        x = x.flatten(-2)
        return x[..., x.shape[-1] - self.length :].to(dtype)

    def map(self, change: Callable[[Tensor], Tensor]) -> Codes:
        """The same with every tensor changed (batch first)."""
        return replace(
            self,
            codes=change(self.codes),
            scale=change(self.scale),
            offset=change(self.offset),
        )


def _pack(levels: Tensor, bits: int) -> Tensor:
    per = 8 // bits
    if per == 1:
        return levels
    parts: Tensor = levels.unflatten(-1, (-1, per))
    out: Tensor = parts[..., 0].clone()
    for place in range(1, per):
        out |= parts[..., place] << (bits * place)
    return out


def _unpack(codes: Tensor, bits: int) -> Tensor:
    if bits == 8:
        return codes
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=codes.device)
    levels: Tensor = (codes[..., None] >> shifts) & (2**bits - 1)
    return levels.flatten(-2)


@dataclass(frozen=True, slots=True)
class PackedKV:
    """A segment in few bits; `open` gives what a mechanism reads."""

    k: Codes
    """Of the keys as [B, Hkv, D, S]: groups lie along the tokens of a channel."""
    v: Codes
    """Of the values as [B, Hkv, S, D]."""
    dtype: torch.dtype
    rest: KV
    """Everything of the segment but its numbers (`k` and `v` are empty)."""

    def __len__(self) -> int:
        return self.k.length

    @classmethod
    def of(cls, kv: KV, bits: int, group: int) -> PackedKV:
        """Pack a segment."""
        empty = replace(kv, k=kv.k[:, :, :0].clone(), v=kv.v[:, :, :0].clone())
        keys = Codes.of(_without_padding(kv).transpose(2, 3), bits, group)
        return cls(keys, Codes.of(kv.v, bits, group), kv.k.dtype, empty)

    def open(self) -> KV:
        """The segment in the model's dtype, made for one use."""
        k = self.k.open(self.dtype).transpose(2, 3).contiguous()
        return replace(self.rest, k=k, v=self.v.open(self.dtype))


def _without_padding(kv: KV) -> Tensor:
    """Keys with a row's first token in place of its padding, which must not widen a group."""
    if kv.positions is None:
        return kv.k
    real = kv.positions >= 0
    first = real.int().argmax(1)[:, None, None, None].expand(-1, *kv.k.shape[1:2], 1, kv.k.shape[3])
    return torch.where(real[:, None, :, None], kv.k, kv.k.gather(2, first))


@dataclass(frozen=True, kw_only=True)
class Quantise(Compression):
    """Keep the prompt's keys and values in a few bits once it was read."""

    name: ClassVar[str] = "quantise"
    recalls: ClassVar[str] = "everything inside the window, rounded"
    costs: ClassVar[str] = "bits/16 of the prompt's cache in half precision; slower decoding"
    place: ClassVar[int] = 2

    bits: int = 4
    """Of a number: 2, 4 or 8."""
    group: int = 32
    """Numbers that share a scale."""
    recent: int = 32
    """Newest tokens of the prompt that stay as they are."""

    def __post_init__(self) -> None:
        if self.bits not in _BITS:
            raise ConfigError(f"quantise needs bits of 2, 4 or 8, got bits={self.bits}.")
        if self.group < 8 or self.group % 8:
            raise ConfigError(
                f"quantise needs a group that is a multiple of 8, got group={self.group}."
            )
        if self.recent < 0:
            raise ConfigError(f"quantise needs recent >= 0, got recent={self.recent}.")

    def compress(self, facts: ModelFacts, layer: int) -> QuantiseStage:
        return QuantiseStage(self.bits, self.group, self.recent)


@dataclass(frozen=True, slots=True)
class QuantiseStage:
    """Packs every segment but the newest `recent` tokens."""

    bits: int
    group: int
    recent: int
    window: int = 0

    def __call__(self, kept: Sequence[KV], queries: Tensor) -> Sequence[KV | PackedKV]:
        out: list[KV | PackedKV] = []
        left = self.recent
        for segment in reversed(kept):
            tail = min(left, len(segment))
            left -= tail
            older, newer = split(segment, len(segment) - tail)
            if len(newer):
                out.append(newer)
            if len(older):
                out.append(PackedKV.of(older, self.bits, self.group))
        return out[::-1]
