"""LM-Infinite: Λ-shaped attention with a capped distance keeps a model fluent at any length.

What: each token meets the last `local` tokens at their true distance and the first `sinks` tokens
at distance min(i - j, distance_limit); optionally the last query of an answer also meets the
`top_k` best tokens between, per head, all at distance `top_k_distance`.
Source: Han et al. (2024), "LM-Infinite: Zero-Shot Extreme Length Generalization for LLMs",
sections 4.1 to 4.3.
Differs from the released code: the cache is really cut (its chunk mode asserts a length that
nothing maintains), decode does not rotate kept keys again, the distance is exactly the limit (a
re-implementation elsewhere uses one less), the top-k branch acts on the queries that an answer
depends on, not on the last one of every chunk, so that chunking changes nothing. Needs local >= 1,
sinks < local and distance_limit >= local. The offset on middle logits (off by default there) is
left out.
Cost: O(n * (local + sinks)) to read, O(local + sinks) a written token; with top_k O(n) memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from unspool.attention.call import Attend, Call
from unspool.attention.kernel import attend, merge
from unspool.attention.sinks import Part, SinkWindow, sink_spec
from unspool.attention.spec import Spec
from unspool.caches.window import WindowStore
from unspool.errors import ConfigError
from unspool.methods import Method, Slot
from unspool.positions.rotation import Rotation

if TYPE_CHECKING:
    from torch import Tensor

    from unspool._facts import ModelFacts
    from unspool.caches.base import Store


@dataclass(frozen=True, kw_only=True)
class LMInfinite(Method):
    """Fluent at any length, in constant memory; forgets the middle unless `top_k` is set."""

    name: ClassVar[str] = "lm-infinite"
    family: ClassVar[str] = "remap"
    slots: ClassVar[tuple[Slot, ...]] = ("store", "attend")
    recalls: ClassVar[str] = "the last `local` tokens; with top_k also tokens of the middle"
    costs: ClassVar[str] = "constant memory and time a token; with top_k memory grows with the text"
    system: ClassVar[str] = "lm-infinite"

    local: int | None = None
    """Tokens met at their true distance; none: half the trained window."""
    sinks: int = 16
    """First tokens that stay visible."""
    distance_limit: int | None = None
    """Distance at which the first tokens appear; none: `local`."""
    top_k: int = 0
    """Middle tokens a head that the answering query may meet; 0: none, and they are not kept."""
    top_k_distance: int | None = None
    """Distance at which they appear; none: half of `local`."""
    top_k_from_layer: int = 4
    """First layer with a middle branch."""
    top_k_to_layer: int | None = None
    """Layer before which the middle branch ends; none: all the rest."""

    def __post_init__(self) -> None:
        if self.local is not None and self.local < 1:
            raise ConfigError(f"lm-infinite needs local >= 1, got local={self.local}.")
        if self.sinks < 0 or self.top_k < 0:
            raise ConfigError(
                f"lm-infinite needs sinks >= 0 and top_k >= 0, got sinks={self.sinks} and "
                f"top_k={self.top_k}."
            )
        if self.local is not None and self.sinks >= self.local:
            raise ConfigError(
                f"lm-infinite needs sinks < local, got sinks={self.sinks} and local={self.local}."
            )
        limit = self.distance_limit
        if limit is not None and self.local is not None and limit < self.local:
            raise ConfigError(
                f"lm-infinite needs distance_limit >= local, got distance_limit={limit} and "
                f"local={self.local}."
            )

    def resolve(self, facts: ModelFacts) -> LMInfinite:
        local = self.local
        if local is None:
            if facts.window is None:
                raise ConfigError(
                    f"{facts.name} states no window; give lm-infinite one, as local=2048."
                )
            local = max(1, facts.window // 2)
        return replace(
            self,
            local=local,
            sinks=self.sinks,
            distance_limit=self.distance_limit if self.distance_limit is not None else local,
            top_k_distance=self.top_k_distance
            if self.top_k_distance is not None
            else max(1, local // 2),
        )

    def attend(self, facts: ModelFacts, layer: int) -> Attend:
        assert self.local is not None  # resolved
        assert self.distance_limit is not None
        assert self.top_k_distance is not None
        base = SinkWindow(self.local, self.sinks, Far(self.local, self.sinks, self.distance_limit))
        if self.top_k and self._has_middle(layer):
            return Lambda(base, self.top_k, self.top_k_distance)
        return base

    def store(self, facts: ModelFacts, layer: int) -> Store:
        assert self.local is not None  # resolved
        keep = bool(self.top_k) and self._has_middle(layer)
        return WindowStore(self.local, self.sinks, keep)

    def capacity(self, facts: ModelFacts) -> int | None:
        return None

    def kept_tokens(self, facts: ModelFacts) -> int | None:
        return None if self.top_k else (self.local or 0) + self.sinks

    def exact_within(self, facts: ModelFacts) -> int | None:
        return self.local

    def _has_middle(self, layer: int) -> bool:
        end = self.top_k_to_layer
        return layer >= self.top_k_from_layer and (end is None or layer < end)


@dataclass(frozen=True, slots=True)
class Far:
    """The global branch: sinks at distance min(i - j, limit)."""

    window: int
    count: int
    limit: int

    @property
    def distance(self) -> int:
        return self.limit

    def sinks(self, rotation: Rotation, k: Tensor) -> Tensor:
        return rotation.at_one(k, 0)

    def __call__(self, call: Call, rotation: Rotation, k: Tensor, v: Tensor) -> list[Part]:
        parts = []
        if self.limit > self.window:  # between window and limit: the true distance
            import torch

            slots = torch.arange(self.count, device=k.device)
            spec = sink_spec(call, self.window, self.count, up_to=self.limit)
            near = call.where().clamp(min=0, max=self.limit + self.count)
            q = rotation(call.q, near)
            parts.append(
                attend(q, rotation(k, slots), v, spec=spec, scale=call.scale, return_lse=True)
            )
        spec = sink_spec(call, self.limit, self.count)
        q, k = rotation.at_one(call.q, self.limit), rotation.at_one(k, 0)
        parts.append(attend(q, k, v, spec=spec, scale=call.scale, return_lse=True))
        return parts


@dataclass(frozen=True, slots=True)
class Lambda:
    """Λ attention with the middle branch: the best tokens a head, for the answering query."""

    base: SinkWindow
    top_k: int
    distance: int
    late: bool = True
    reads_segments: bool = False

    def __call__(self, call: Call) -> Tensor:
        import torch

        parts = self.base.parts(call)
        middle = self._middle(call)
        if middle is None:
            return merge(parts)[0]
        rest = [(out[:, :, :-1], lse[:, :, :-1]) for out, lse in parts]
        last = [(out[:, :, -1:], lse[:, :, -1:]) for out, lse in parts]
        answer = merge([*last, middle])[0]
        if call.q.shape[2] == 1:
            return answer
        return torch.cat([merge(rest)[0], answer], dim=2)

    def _middle(self, call: Call) -> Part | None:
        store = call.store
        if not call.answers or not isinstance(store, WindowStore):
            return None
        k, v = store.everything.k, store.everything.v
        rotation = call.rotate
        if k is None or v is None or not isinstance(rotation, Rotation):
            return None
        where = store.everything.positions
        newest = call.where()[:, -1:]
        if where is None:
            last = int(newest[0, 0])
            first, end = self.base.sinks, last - self.base.window + 1
            if end <= first:
                return None
            k, v = k[:, :, first:end], v[:, :, first:end]
            spec = Spec(causal=False)
        else:
            inside = (where >= self.base.sinks) & (where <= newest - self.base.window)
            spec = Spec(causal=False, mask=inside[:, None, None])
        q = rotation.at_one(call.q[:, :, -1:], self.distance)
        return best_keys(q, rotation.at_one(k, 0), v, self.top_k, spec, call.scale)


def best_keys(q: Tensor, k: Tensor, v: Tensor, top_k: int, spec: Spec, scale: float) -> Part:
    """Attention of one query over its `top_k` best keys, chosen per query head.

    Args:
        q: [B, Hq, 1, D].
        k: [B, Hkv, S, D].
        v: [B, Hkv, S, Dv].
        top_k: Keys a head; all if there are fewer.
        spec: What is visible.
        scale: Factor on the scores.
    """
    import torch

    from unspool.attention.reference import scores, weighted
    from unspool.attention.spec import visible

    s = scores(q.float(), k.float(), scale)
    seen = visible(spec, 1, k.shape[2], q.device)
    if seen is not None:
        s = s.masked_fill(~seen, float("-inf"))
    best = s.topk(min(top_k, s.shape[-1]), dim=-1)
    kept = torch.full_like(s, float("-inf")).scatter(-1, best.indices, best.values)
    lse = torch.logsumexp(kept, dim=-1)
    p = torch.exp(kept - lse.masked_fill(torch.isneginf(lse), 0.0)[..., None])
    return weighted(p, v.float()).to(q.dtype), lse
