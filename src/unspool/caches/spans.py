"""What a layer keeps that attends within blocks: its own block, and the ones before it.

What: keys as the model rotates them and values, from the first token on that the next query meets.
Source: Zhang et al. (2023), "Efficient Long-Range Transformers" (MASFormer), section 3.
Differs from a sliding store: it forgets a block at a time, so it holds between `previous` and
`previous` + 1 blocks.
Cost: memory (previous + 1) * block + 128 tokens at most between chunks. Shapes: as `KV`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unspool.caches.sliding import SlidingStore

if TYPE_CHECKING:
    from torch import Tensor

    from unspool.attention.spans import Span


class SpanStore(SlidingStore):
    """The newest blocks of rotated keys, and nothing before them."""

    def __init__(self, span: Span) -> None:
        """An empty store.

        Args:
            span: How far back the layer's queries look.
        """
        super().__init__(span.reach)
        self.span = span

    def settle(self) -> None:
        positions = self.kept.positions
        if positions is None:
            newest = self.kept.start + len(self.kept) - 1
            self._attended = newest - self.span.oldest(newest) + 1
        else:
            oldest = self.span.oldest(int(positions[0].max()))
            self._attended = int((positions[0] >= oldest).sum())
        self.kept.drop_front(self._past(positions))

    def _past(self, positions: Tensor | None) -> int:
        # The newest token stays even if no later query meets it: it tells where the next one is.
        most = max(0, len(self.kept) - 1)
        if positions is None:
            upcoming = self.kept.start + len(self.kept)
            return min(most, self.span.oldest(upcoming) - self.kept.start)
        oldest = self.span.oldest_of(positions.amax(1, keepdim=True) + 1)
        needed = ((positions >= 0) & (positions >= oldest)).any(0)
        return min(most, int(needed.int().argmax())) if bool(needed.any()) else most

    def _arguments(self) -> tuple[Any, ...]:
        return (self.span,)
