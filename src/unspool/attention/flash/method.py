"""Flash: exact attention by a kernel of one's choice, in any model.

What: the stock mechanism with the square matrix never written; the same logits.
Source: FlashAttention (Dao et al. 2022), section 3.1.
Differs from `dense`: the back-end can be named, and is then used or refused, never replaced.
Cost: O(T * S * D) time, O(T) memory beside the cache. Shapes: as `Call`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from unspool.attention.backends import BACKENDS
from unspool.errors import ConfigError
from unspool.methods import Method, Slot

if TYPE_CHECKING:
    from unspool._facts import ModelFacts
    from unspool.attention.call import Attend
    from unspool.caches.base import Store


@dataclass(frozen=True, kw_only=True)
class Flash(Method):
    """Exact attention in tiles, by the fastest kernel or a named one."""

    name: ClassVar[str] = "flash"
    family: ClassVar[str] = "attention"
    slots: ClassVar[tuple[Slot, ...]] = ("store", "attend")
    recalls: ClassVar[str] = "everything inside the window"
    costs: ClassVar[str] = "memory grows with the text; the square matrix is never written"
    system: ClassVar[str] = "flash-attention"

    backend: str = "auto"
    """auto, or the one that must be used: reference, sdpa, flex, triton, flash_attn, native."""

    def __post_init__(self) -> None:
        if self.backend != "auto" and self.backend not in BACKENDS:
            raise ConfigError(
                f"flash needs backend=auto or one of {', '.join(BACKENDS)}, got {self.backend!r}."
            )

    def attend(self, facts: ModelFacts, layer: int) -> Attend:
        from unspool.attention.dense import Dense

        return Dense(backend=self.backend)

    def store(self, facts: ModelFacts, layer: int) -> Store:
        from unspool.caches.dense import DenseStore

        return DenseStore(True)
