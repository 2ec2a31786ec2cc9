"""The store that keeps everything: the stock model's cache, growing in place.

What: every token of the text, oldest first, in one segment.
Source: any cached decoder.
Differs from `DynamicLayer`: appends in place into memory taken ahead (an eighth more than needed),
so a written token does not copy the whole cache.
Cost: memory n * Hkv * (D + Dv) * bytes a token, at most an eighth more while it grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from unspool.caches.base import KV, Store, StoreReport, held_bytes
from unspool.caches.growing import Growing


class DenseStore(Store):
    """All keys and values, rotated (`rotated=True`) or raw."""

    is_croppable = True

    def __init__(self, rotated: bool = True) -> None:
        super().__init__()
        self.rotated = rotated
        self.needs_rotated = rotated
        self.kept = Growing()

    def append(self, chunk: KV) -> None:
        slack = max(64, len(self.kept) // 8)
        self.kept.append(chunk.k, chunk.v, chunk.positions, slack=slack)

    def segments(self) -> Sequence[KV]:
        if self.kept.k is None or self.kept.v is None:
            return ()
        return (KV(self.kept.k, self.kept.v, self.kept.positions, self.kept.start, self.rotated),)

    def crop(self, tokens_to_remove: int) -> None:
        count = abs(int(tokens_to_remove))
        self.kept.drop_back(count)
        self.seen -= count

    def report(self) -> StoreReport:
        real = real_tokens(self.kept.positions, len(self.kept))
        return StoreReport(
            seen=real,
            attended=real,
            stored=0,
            bytes_device=held_bytes(self.kept.tensors()),
        )

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), **{f"kept.{n}": x for n, x in self.kept.state().items()}}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.seen = int(state["seen"])
        held = {n.removeprefix("kept."): x for n, x in state.items() if n.startswith("kept.")}
        self.kept.load_state(held)
        if self.kept.k is not None and self.kept.v is not None:
            self.lazy_initialization(self.kept.k, self.kept.v)

    def _arguments(self) -> tuple[Any, ...]:
        return (self.rotated,)

    def _map(self, change: Any) -> None:
        self.kept.map(change)


def real_tokens(positions: Tensor | None, length: int) -> int:
    """Tokens of the first sequence that are not padding."""
    return length if positions is None else int((positions[0] >= 0).sum())
