"""One attention call of one layer, as every mechanism receives it.

What: the `Call` that the registered function builds, and the protocols of the slots that see it.
Source: this project's own contract; the facts of transformers behind it are in `_dispatch`.
Shapes: B batch, Hq/Hkv heads, T new tokens, D head size; layout B H T D.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from unspool.attention.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from unspool.caches.base import Store

Phase = Literal["train", "prefill", "decode"]


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One attention call of one layer. The chunk is in the store before the mechanism runs."""

    q: Tensor
    """[B, Hq, T, D]; raw if the mechanism is late, else rotated. Padded rows hold anything."""
    k: Tensor
    """[B, Hkv, T, D] of the new chunk, raw if late, else rotated; 0 at padding."""
    v: Tensor
    """[B, Hkv, T, Dv] of the new chunk; 0 at padding."""
    positions: Tensor | None
    """[B, T] int64 with padding not counted and -1 at padding; None: no padding so far, and the
    positions are `start` … `start + T - 1`."""
    start: int
    """Column of the first new token: tokens seen before this chunk, padding counted."""
    spec: Spec
    """Causality, sliding window, documents and explicit mask of this layer, without positions."""
    rotate: Callable[[Tensor, Tensor | int], Tensor]
    """(x, positions [T] or [B, T], or the first of a run) -> x under the frequency in force."""
    store: Store | None
    """None: no cache (training, encoders); then k and v are all there is."""
    phase: Phase
    layer: int
    scale: float
    seed: int = 0
    learned: nn.Module | None = None
    """What was trained of this layer: the method's own, never the model's."""
    answers: bool = False
    """The last query is one that a written token depends on: at or past the end of the prefill; if
    nobody told where that is, a single token."""

    def where(self) -> Tensor:
        """Positions [B, T], spelled out."""
        import torch

        if self.positions is not None:
            return self.positions
        run = torch.arange(self.start, self.start + self.q.shape[2], device=self.q.device)
        return run[None].expand(self.q.shape[0], -1)


@runtime_checkable
class Attend(Protocol):
    """Which kept keys a query meets, at what distance, with what formula."""

    @property
    def late(self) -> bool:
        """Keys and queries arrive raw, and the mechanism rotates them itself."""

    @property
    def reads_segments(self) -> bool:
        """Whether a store in several segments (after compression) is understood."""

    def __call__(self, call: Call) -> Tensor:
        """[B, Hq, T, Dv]."""
