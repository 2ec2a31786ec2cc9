"""The store of a fixed context that many questions are asked of.

What: dense while the context is read; when it ends every sequence of it is clustered
(`caches.context`), and what follows is kept exactly behind it.
Source: Hooper et al. (2024), "Squeezed Attention", section 4; the store is this project's own.
Differs from the released code: one context serves all rows of a batch of questions and every fork,
none copies it; the layers of a cache share one table of thresholds, so the kept share is of all.
Cost: the whole cache of the context stays; a fork costs what was written after it. Shapes: as
`caches.context`; the tail k [B, Hkv, T, D].
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unspool.caches.base import KV, Store, StoreReport, held_bytes
from unspool.caches.context import Context, Layout, Ranks, make_context
from unspool.caches.dense import real_tokens
from unspool.caches.growing import Growing
from unspool.errors import ConfigError

if TYPE_CHECKING:
    from unspool.caches.cache import UnspoolCache


@dataclass(eq=False)
class Budget:
    """What the layers of one cache share: the kept share, and the thresholds of each row."""

    keep: float
    rows: dict[int, Ranks] = field(default_factory=dict)

    def row(self, number: int) -> Ranks:
        """Thresholds of a row of the batch."""
        return self.rows.setdefault(number, Ranks())


def set_keep(cache: UnspoolCache, keep: float) -> None:
    """Load another share of the context from now on, in every layer of a cache.

    Raises:
        ConfigError: The share is not in (0, 1], or the cache has no such context.
    """
    if not 0 < keep <= 1:
        raise ConfigError(f"keep must be in (0, 1], got keep={keep}.")
    stores = [store for store in cache.stores if isinstance(store, ContextStore)]
    if not stores:
        raise ConfigError("keep is an option of method 'squeezed'; this one keeps what it keeps.")
    for store in stores:
        store.budget.keep = keep


class ContextStore(Store):
    """Dense while a context is read, then clustered, with an exact tail."""

    is_croppable = True

    def __init__(self, layout: Layout, keep: float) -> None:
        super().__init__()
        self.layout = layout
        self.budget = Budget(keep)
        self.contexts: tuple[Context, ...] | None = None
        """One for all rows, or one a row; None while it is read."""
        self.boundary = 0
        """Columns of the context."""
        self.scale: float | None = None
        self.kept = Growing()
        """The context while it is read; then what follows."""
        self.queries: Tensor | None = None
        self.met: tuple[Tensor, ...] = ()
        """Places in the first row's context that each head met last, one tensor a head."""

    def join(self, stores: Sequence[Store]) -> None:
        """Share one budget with the other layers of a cache."""
        first = next(store for store in stores if isinstance(store, ContextStore))
        self.budget = first.budget

    # ---- reading

    def append(self, chunk: KV) -> None:
        slack = max(64, len(self.kept) // 8)
        self.kept.append(chunk.k, chunk.v, chunk.positions, slack=slack)

    def observe(self, queries: Tensor) -> None:
        if self.contexts is not None:
            return
        window = self.layout.window
        new = queries[:, :, -window:]
        if self.queries is not None and new.shape[2] < window:
            new = torch.cat((self.queries[:, :, -(window - new.shape[2]) :], new), dim=2)
        self.queries = new.clone() if new.shape[2] < queries.shape[2] else new

    def finish_prefill(self) -> None:
        if self.contexts is not None or self.kept.k is None or self.kept.v is None:
            return
        assert self.queries is not None  # observed with every chunk
        k, v, positions = self.kept.k, self.kept.v, self.kept.positions
        scale = self.scale if self.scale is not None else k.shape[-1] ** -0.5
        made = []
        for row in range(k.shape[0]):
            one = (k[row], v[row], self.queries[row])
            if positions is not None:
                real = positions[row] >= 0
                last = real[-one[2].shape[1] :]
                one = (one[0][:, real], one[1][:, real], one[2][:, last])
            made.append(make_context(*one, self.layout, scale, self.budget.row(row)))
        self.contexts = tuple(made)
        self.boundary = self.seen
        self.queries = None
        self.kept = Growing()
        self.kept.start = self.seen

    def tail(self) -> KV | None:
        """What followed the context."""
        if self.kept.k is None or self.kept.v is None or not len(self.kept):
            return None
        return KV(self.kept.k, self.kept.v, self.kept.positions, self.kept.start)

    def segments(self) -> Sequence[KV]:
        tail = self.tail()
        rest = () if tail is None else (tail,)
        if self.contexts is None:
            return rest
        return (*_together(self.contexts), *rest)

    # ---- the rest of the contract

    def crop(self, tokens_to_remove: int) -> None:
        count = abs(int(tokens_to_remove))
        if self.contexts is not None and count > self.seen - self.boundary:
            raise ConfigError(
                f"{count} tokens cannot be given back: the first {self.boundary:,} are a fixed "
                f"context, and {self.seen - self.boundary} follow."
            )
        self.kept.drop_back(count)
        self.seen -= count
        if self.queries is not None and count:
            self.queries = self.queries[:, :, : max(0, self.queries.shape[2] - count)]

    def kept_shares(self) -> list[float]:
        """Share of the first row's context that each head met last."""
        if self.contexts is None:
            return []
        return [len(places) / self.contexts[0].tokens for places in self.met]

    def report(self) -> StoreReport:
        after = real_tokens(self.kept.positions, len(self.kept))
        if self.contexts is None:
            return StoreReport(after, after, 0, self.bytes())
        context = self.contexts[0]
        attended = context.tokens
        if self.met:
            union = torch.zeros(context.tokens, dtype=torch.bool, device=context.k.device)
            groups = len(self.met) // context.k.shape[0]
            for number, places in enumerate(self.met):
                union[context.order[number // groups].long()[places]] = True
            attended = int(union.sum())
        return StoreReport(
            seen=context.tokens + after,
            attended=attended + after,
            stored=context.tokens - attended,
            bytes_device=self.bytes(),
        )

    def bytes(self) -> int:
        """Bytes of everything held, each storage once."""
        fixed = [x for context in self.contexts or () for x in context.tensors().values()]
        return held_bytes([*fixed, *self.kept.tensors(), self.queries, *self.met])

    def copy(self) -> ContextStore:
        """A store with the same context, which is shared, and a tail of its own."""
        other = ContextStore(self.layout, self.budget.keep)
        shared = {"contexts", "met", "budget"}
        own = {name: x for name, x in self.__dict__.items() if name not in shared}
        other.__dict__.update(copy.deepcopy(own))
        other.contexts, other.met = self.contexts, self.met
        return other

    def state(self) -> dict[str, Tensor]:
        named = {"seen": torch.tensor(self.seen), "boundary": torch.tensor(self.boundary)}
        named.update({f"kept.{name}": x for name, x in self.kept.state().items()})
        if self.queries is not None:
            named["queries"] = self.queries
        for number, context in enumerate(self.contexts or ()):
            named.update({f"context.{number}.{n}": x for n, x in context.tensors().items()})
            if context.ranks is not None:
                named[f"context.{number}.table"] = context.ranks.table
        return named

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.seen, self.boundary = int(state["seen"]), int(state["boundary"])
        self.kept.load_state(
            {n.removeprefix("kept."): x for n, x in state.items() if n.startswith("kept.")}
        )
        self.queries = state.get("queries")
        rows = sorted({int(n.split(".")[1]) for n in state if n.startswith("context.")})
        made = []
        for row in rows:
            prefix = f"context.{row}."
            own = {n.removeprefix(prefix): x for n, x in state.items() if n.startswith(prefix)}
            table = own.pop("table", None)
            ranks = None if table is None else self.budget.rows.setdefault(row, Ranks(table.cpu()))
            made.append(Context(**own, ranks=ranks))
        self.contexts = tuple(made) or None
        for part in self.segments():
            self.lazy_initialization(part.k, part.v)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)
        if self.contexts is not None and len(self.contexts) > 1:
            self.contexts = tuple(self.contexts[int(i)] for i in beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        if self.contexts is not None and len(self.contexts) > 1:
            self.contexts = tuple(c for c in self.contexts for _ in range(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        if self.contexts is not None and len(self.contexts) > 1:
            picked = indices.nonzero()[:, 0] if indices.dtype == torch.bool else indices
            self.contexts = tuple(self.contexts[int(i)] for i in picked)

    def _arguments(self) -> tuple[Any, ...]:
        return self.layout, self.budget.keep

    def _tensors(self) -> dict[str, Tensor | None]:
        return {"queries": self.queries}

    def _map(self, change: Any) -> None:
        super()._map(change)
        self.kept.map(change)


def _together(contexts: Sequence[Context]) -> tuple[KV]:
    """The contexts of a batch as one segment, shorter ones padded."""
    if len(contexts) == 1:
        context = contexts[0]
        return (KV(context.k[None], context.v[None], None),)
    longest = max(context.tokens for context in contexts)
    k = contexts[0].k.new_zeros(
        len(contexts), contexts[0].k.shape[0], longest, contexts[0].k.shape[2]
    )
    v = contexts[0].v.new_zeros(*k.shape[:3], contexts[0].v.shape[2])
    positions = torch.full((len(contexts), longest), -1, device=k.device)
    for row, context in enumerate(contexts):
        k[row, :, -context.tokens :], v[row, :, -context.tokens :] = context.k, context.v
        positions[row, -context.tokens :] = torch.arange(context.tokens, device=k.device)
    return (KV(k, v, positions),)
