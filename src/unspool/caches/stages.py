"""What the stages of a compression have in common: their method, their order, their form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from unspool.errors import ConfigError
from unspool.methods import Method, Slot

if TYPE_CHECKING:
    from torch import Tensor

    from unspool._facts import ModelFacts
    from unspool.caches.base import KV


@runtime_checkable
class Stage(Protocol):
    """One step of a compression."""

    @property
    def window(self) -> int:
        """Last queries that it looks at."""

    def __call__(self, kept: Sequence[KV], queries: Tensor) -> Sequence[Any]:
        """Segments, oldest first, and the last queries [B, Hq, W, D]; segments again.

        The queries are those of the last W columns, 0 at padding.
        """


@dataclass(frozen=True, kw_only=True)
class Compression(Method):
    """Base of the methods that compress a prompt's cache once the prompt was read."""

    family: ClassVar[str] = "compression"
    slots: ClassVar[tuple[Slot, ...]] = ("compress",)
    place: ClassVar[int] = 0
    """Evict (0), drop channels (1), round (2): stages run in this order."""

    def resolve(self, facts: ModelFacts) -> Compression:
        for number in facts.pick_layers(self.layers):
            kind = facts.layer_types[number]
            if kind != "full_attention":
                raise ConfigError(
                    f"{self.name} compresses full-attention layers, and layer {number} of "
                    f"{facts.name} is of type {kind}, whose cache is bounded already. Leave "
                    f"`layers` at its default."
                )
        return self

    def compress(self, facts: ModelFacts, layer: int) -> Stage:
        """The stage of a layer."""
        raise self._unwritten("compress")


def check_order(methods: Sequence[Any]) -> None:
    """Refuse two stages of a kind, or another order than eviction, channels, bits.

    Raises:
        ConfigError: What is wrong, by the methods' names.
    """
    places = [method.place for method in methods if isinstance(method, Compression)]
    if any(a >= b for a, b in pairwise(places)):
        names = "+".join(method.name for method in methods)
        raise ConfigError(
            f"{names}: give each of snapkv, think and quantise at most once a layer, in this "
            f"order. What is evicted first needs no more work."
        )


def split(kv: KV, count: int) -> tuple[KV, KV]:
    """A segment as its first `count` tokens and the rest."""
    first, rest = slice(None, count), slice(count, None)
    return (
        replace(
            kv,
            k=kv.k[:, :, first],
            v=kv.v[:, :, first],
            positions=None if kv.positions is None else kv.positions[:, first],
            origins=None if kv.origins is None else kv.origins[:, :, first],
        ),
        replace(
            kv,
            k=kv.k[:, :, rest],
            v=kv.v[:, :, rest],
            positions=None if kv.positions is None else kv.positions[:, rest],
            origins=None if kv.origins is None else kv.origins[:, :, rest],
            start=kv.start + count,
        ),
    )
