"""`xpos`: attention whose logits fade with distance, pair by pair, the fast pairs first.

What: queries and keys, rotated by the model, are scaled by their positions before they meet.
Source: Sun et al. (2022), "A Length-Extrapolatable Transformer", section 2.2; Pal et al. (2023),
"Giraffe", section 3.
Differs from the released code of Giraffe: see `positions.xpos`; products are in float32, as there.
A model has to be trained with it: on one that was not, it moves every logit.
Cost: dense attention in float32 and one scaling of all keys a pass. Shapes: as `Call`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from unspool.attention.dense import Dense
from unspool.errors import ConfigError
from unspool.methods import Method, Slot
from unspool.positions.xpos import xpos_scale

if TYPE_CHECKING:
    from torch import Tensor

    from unspool._facts import ModelFacts
    from unspool.attention.call import Call
    from unspool.caches.base import KV
    from unspool.positions.rotation import Layout


@dataclass(frozen=True, kw_only=True)
class XPos(Method):
    """Rotary attention that fades with distance; for models trained with it."""

    name: ClassVar[str] = "xpos"
    family: ClassVar[str] = "attention"
    slots: ClassVar[tuple[Slot, ...]] = ("attend",)
    recalls: ClassVar[str] = "what is near, and far things by their slow pairs only"
    costs: ClassVar[str] = "dense attention in float32"
    trains: ClassVar[bool] = True
    system: ClassVar[str] = "giraffe"

    scale_base: int | float = 512
    """Tokens after which pair j has faded by zeta_j; Giraffe evaluates with 8192."""

    def __post_init__(self) -> None:
        if not self.scale_base > 0:
            raise ConfigError(f"xpos needs scale_base above 0 tokens, got {self.scale_base}.")

    def capacity(self, facts: ModelFacts) -> int | None:
        """Any number: it is made to be read past the length it was trained at."""
        return None

    def attend(self, facts: ModelFacts, layer: int) -> XPosAttend:
        """The mechanism of a layer, in the pair layout of the model."""
        rotation = facts.rotations.get(facts.layer_types[layer])
        if rotation is None:
            raise ConfigError(
                f"{facts.name} has no rotary embedding, which xpos scales. Take a model that has "
                f"one; alibi needs it as well."
            )
        return XPosAttend(2 * len(rotation.inv_freq), self.scale_base, rotation.layout)


@dataclass(frozen=True, slots=True)
class XPosAttend:
    """Dense attention over scaled queries and keys."""

    dim: int
    """Rotated width of a head."""
    scale_base: int | float
    layout: Layout = "half"
    late: bool = False
    reads_segments: bool = False

    def __call__(self, call: Call) -> Tensor:
        import torch

        from unspool.caches.base import KV

        where = call.where()
        newest = int(where.max())  # far keys then fade to 0, and nothing overflows
        segments = (
            [KV(call.k, call.v, call.positions, call.start)]
            if call.store is None
            else call.store.segments()
        )
        kept: Any = _Faded(
            [
                KV(self._scale(k.k, k.where(), "key", newest), k.v.float(), k.positions, k.start)
                for k in segments
            ]
        )
        q = self._scale(call.q, where, "query", newest)
        with torch.autocast(q.device.type, enabled=False):  # it would round the products to 16 bits
            out = Dense()(replace(call, q=q, store=kept))
        return out.to(call.q.dtype)

    def _scale(
        self, x: Tensor, where: Tensor, side: Literal["query", "key"], newest: int
    ) -> Tensor:
        return xpos_scale(
            x,
            where.masked_fill(where < 0, newest),  # padding must not overflow either
            side=side,
            dim=self.dim,
            scale_base=self.scale_base,
            origin=newest,
            layout=self.layout,
        )


@dataclass(frozen=True, slots=True)
class _Faded:
    """Scaled segments, in the place of the store."""

    kept: Sequence[KV]

    def segments(self) -> Sequence[KV]:
        return self.kept
