"""Segments of a compressed store as named tensors: counted, written, read back, reordered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from unspool.caches.base import KV
from unspool.caches.quantise import Codes, PackedKV

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def tensors(part: KV | PackedKV) -> list[Tensor | None]:
    """Every tensor that a segment holds."""
    if isinstance(part, KV):
        return [part.k, part.v, part.positions, part.channels, part.origins]
    codes = [x for c in (part.k, part.v) for x in (c.codes, c.scale, c.offset)]
    return [*codes, *tensors(part.rest)]


def change(part: KV | PackedKV, function: Callable[[Tensor], Tensor]) -> KV | PackedKV:
    """The segment with every tensor changed (batch first)."""
    if isinstance(part, PackedKV):
        rest = change(part.rest, function)
        assert isinstance(rest, KV)  # what a packed segment holds beside its codes
        return replace(part, k=part.k.map(function), v=part.v.map(function), rest=rest)
    return replace(
        part,
        k=function(part.k),
        v=function(part.v),
        positions=None if part.positions is None else function(part.positions),
        channels=None if part.channels is None else function(part.channels),
        origins=None if part.origins is None else function(part.origins),
    )


def save(part: KV | PackedKV) -> dict[str, Tensor]:
    """The segment as tensors for a file."""
    if isinstance(part, KV):
        named = {
            "k": part.k,
            "v": part.v,
            "facts": torch.tensor([part.start, int(part.rotated)]),
        }
        if part.positions is not None:
            named["positions"] = part.positions
        if part.channels is not None:
            named["channels"] = part.channels
        return named
    named = {f"rest.{name}": x for name, x in save(part.rest).items()}
    for name, codes in (("k", part.k), ("v", part.v)):
        named[f"{name}.codes"], named[f"{name}.scale"] = codes.codes, codes.scale
        named[f"{name}.offset"] = codes.offset
        named[f"{name}.facts"] = torch.tensor([codes.bits, codes.length])
    named["dtype"] = torch.tensor(_DTYPES.index(part.dtype))
    return named


def load(named: dict[str, Tensor]) -> KV | PackedKV:
    """What `save` gave."""
    if "dtype" not in named:
        start, rotated = (int(x) for x in named["facts"])
        return KV(
            named["k"],
            named["v"],
            named.get("positions"),
            start,
            bool(rotated),
            named.get("channels"),
        )
    rest = load({n.removeprefix("rest."): x for n, x in named.items() if n.startswith("rest.")})
    assert isinstance(rest, KV)  # `save` wrote it
    k, v = (
        Codes(
            named[f"{name}.codes"],
            named[f"{name}.scale"],
            named[f"{name}.offset"],
            *(int(x) for x in named[f"{name}.facts"]),
        )
        for name in ("k", "v")
    )
    return PackedKV(k, v, _DTYPES[int(named["dtype"])], rest)
