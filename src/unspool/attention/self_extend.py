"""Self-Extend: neighbours at their true distance, everything older at a grouped one.

What: distance i - j inside `neighbours`, floor(i/g) - floor(j/g) + w - floor(w/g) beyond it, one
softmax over both.
Source: Jin et al. (2024), "LLM Maybe LongLM: Self-Extend LLM Context Window Without Tuning",
section 3, eq. 3 and 4.
Differs from the released code: one attention function for every architecture, chunked reading and
padded batches; keys are rotated once for each of the two branches, not at every step.
Cost: O(n^2) as dense; memory a token as dense, and `neighbours` more keys. Reaches about
(window - neighbours) * group + neighbours tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from unspool.attention.call import Attend, Call
from unspool.attention.kernel import attend, merge
from unspool.attention.spec import Spec
from unspool.caches.base import KV, Store, StoreReport, held_bytes
from unspool.caches.dense import real_tokens
from unspool.caches.growing import Growing
from unspool.errors import ConfigError, UnspoolError
from unspool.methods import Method, Slot
from unspool.positions.rotation import Rotation

if TYPE_CHECKING:
    from unspool._facts import ModelFacts


@dataclass(frozen=True, kw_only=True)
class SelfExtend(Method):
    """A few times the window with everything in reach, distances coarser the older a token is."""

    name: ClassVar[str] = "self-extend"
    family: ClassVar[str] = "remap"
    slots: ClassVar[tuple[Slot, ...]] = ("store", "attend")
    recalls: ClassVar[str] = "everything, old tokens at coarse distances"
    costs: ClassVar[str] = "memory and time as the dense model"

    group: int = 8
    """Tokens that share one position beyond the neighbours."""
    neighbours: int | None = None
    """Tokens met at their true distance; none: an eighth of the trained window."""

    def __post_init__(self) -> None:
        if self.group < 1 or (self.neighbours is not None and self.neighbours < 1):
            raise ConfigError(
                f"self-extend needs group >= 1 and neighbours >= 1, got group={self.group} and "
                f"neighbours={self.neighbours}."
            )

    def resolve(self, facts: ModelFacts) -> SelfExtend:
        if facts.window is None:
            raise ConfigError(f"{facts.name} states no window, so self-extend has none to stretch.")
        neighbours = self.neighbours or max(1, facts.window // 8)
        if neighbours >= facts.window:
            raise ConfigError(
                f"self-extend needs neighbours below the trained window {facts.window:,}, got "
                f"{neighbours:,}."
            )
        return replace(self, neighbours=neighbours)

    def attend(self, facts: ModelFacts, layer: int) -> Attend:
        assert self.neighbours is not None  # resolved
        return Grouped(self.neighbours, self.group)

    def store(self, facts: ModelFacts, layer: int) -> Store:
        assert self.neighbours is not None  # resolved
        return TwoDistances(self.neighbours, self.group)

    def capacity(self, facts: ModelFacts) -> int | None:
        if facts.window is None or self.neighbours is None:
            return None
        return (facts.window - self.neighbours) * self.group + self.neighbours

    def exact_within(self, facts: ModelFacts) -> int | None:
        return self.neighbours


class TwoDistances(Store):
    """Every key rotated by its group, and the neighbours once more by their position."""

    needs_rotated = False

    def __init__(self, neighbours: int, group: int) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.group = group
        self.grouped = Growing()
        self.near = Growing()
        self._chunk: KV | None = None

    def append(self, chunk: KV) -> None:
        self._chunk = chunk

    def take(self, rotation: Rotation) -> None:
        """Rotate the chunk for both branches."""
        chunk, self._chunk = self._chunk, None
        if chunk is None:
            return
        where = chunk.where()
        slack = max(128, len(self.grouped) // 8)
        grouped = rotation(chunk.k, where.clamp(min=0) // self.group)
        self.grouped.append(grouped, chunk.v, chunk.positions, slack=slack)
        at = chunk.start if chunk.positions is None else chunk.positions.clamp(min=0)
        self.near.append(rotation(chunk.k, at), chunk.v, chunk.positions, slack=128)

    def segments(self) -> Sequence[KV]:
        kept = self.grouped
        if kept.k is None or kept.v is None:
            return ()
        return (KV(kept.k, kept.v, kept.positions, kept.start),)

    def settle(self) -> None:
        self.near.drop_front(max(0, len(self.near) - (self.neighbours - 1)))

    def report(self) -> StoreReport:
        real = real_tokens(self.grouped.positions, len(self.grouped))
        tensors = [*self.grouped.tensors(), *self.near.tensors()]
        return StoreReport(seen=real, attended=real, stored=0, bytes_device=held_bytes(tensors))

    def state(self) -> dict[str, Tensor]:
        named = super().state()
        for name in ("grouped", "near"):
            own = getattr(self, name).state()
            named.update({f"{name}.{key}": value for key, value in own.items()})
        return named

    def load_state(self, state: dict[str, Tensor]) -> None:
        super().load_state(state)
        for name in ("grouped", "near"):
            prefix = f"{name}."
            own = {n.removeprefix(prefix): x for n, x in state.items() if n.startswith(prefix)}
            getattr(self, name).load_state(own)
        if self.near.k is not None and self.near.v is not None:
            self.lazy_initialization(self.near.k, self.near.v)

    def _arguments(self) -> tuple[Any, ...]:
        return (self.neighbours, self.group)

    def _tensors(self) -> dict[str, Tensor | None]:
        return {}

    def _map(self, change: Any) -> None:
        self.grouped.map(change)
        self.near.map(change)


@dataclass(frozen=True, slots=True)
class Grouped:
    """The two branches (eq. 4), merged."""

    neighbours: int
    group: int
    late: bool = True
    reads_segments: bool = False

    def __call__(self, call: Call) -> Tensor:
        rotation = call.rotate
        if not isinstance(rotation, Rotation):
            raise UnspoolError("Self-Extend needs a rotary embedding.")
        if call.spec.mask is not None or call.spec.q_documents is not None:
            raise ConfigError("Self-Extend reads plain causal text, one a row.")
        store = call.store
        if store is None:
            store = TwoDistances(self.neighbours, self.group)
            store.append(KV(call.k, call.v, call.positions, call.start, rotated=False))
        if not isinstance(store, TwoDistances):
            raise UnspoolError(f"Self-Extend needs its own store, got {type(store).__name__}.")
        store.take(rotation)
        near, old = store.near, store.grouped
        assert near.k is not None  # just appended
        assert near.v is not None
        assert old.k is not None
        assert old.v is not None
        at = call.start if call.positions is None else call.positions.clamp(min=0)
        padded = call.positions is not None
        spec = Spec(window=self.neighbours if len(near) > self.neighbours else None)
        if padded:
            spec = Spec(
                window=self.neighbours, q_positions=call.where(), k_positions=near.positions
            )
        q = rotation(call.q, at)
        parts = [attend(q, near.k, near.v, spec=spec, scale=call.scale, return_lse=True)]
        end = call.start + call.q.shape[2] - self.neighbours  # no query sees more than these
        if padded:
            end = len(old)
        if end > 0:
            where = call.where().clamp(min=0)
            offset = self.neighbours - self.neighbours // self.group
            q = rotation(call.q, where // self.group + offset)
            spec = self._old_spec(call, old, end, padded)
            k, v = old.k[:, :, :end], old.v[:, :, :end]
            parts.append(attend(q, k, v, spec=spec, scale=call.scale, return_lse=True))
        return merge(parts)[0]

    def _old_spec(self, call: Call, old: Growing, end: int, padded: bool) -> Spec:
        if not padded and call.q.shape[2] == 1:
            return Spec(causal=False)
        where = old.positions
        if where is None:
            where = torch.arange(end, device=call.q.device)[None].expand(call.q.shape[0], -1)
        return Spec(beyond=self.neighbours, q_positions=call.where(), k_positions=where[:, :end])
