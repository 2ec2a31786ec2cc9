"""StreamingLLM: attention sinks and a rolling window, positions counted inside the cache.

What: each token meets the last `window` tokens and the first `sinks` ones; positions are those of
the cache, so a sink j appears at distance sinks + window - 1 - j once the window is full.
Source: Xiao et al. (2024), "Efficient Streaming Language Models with Attention Sinks", section 3.2.
Differs from the released code and from the Hub's SinkCache: a chunk of any length may follow, new
keys and kept ones move together, prompts longer than the window work. Unlike LM-Infinite the sinks
keep different distances.
Cost: O(n * (window + sinks)) to read, O(window + sinks) a written token, constant memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from unspool.attention.call import Attend, Call
from unspool.attention.kernel import attend
from unspool.attention.sinks import Part, SinkWindow, sink_spec
from unspool.caches.window import WindowStore
from unspool.errors import ConfigError
from unspool.methods import Method, Slot
from unspool.positions.rotation import Rotation

if TYPE_CHECKING:
    from torch import Tensor

    from unspool._facts import ModelFacts
    from unspool.caches.base import Store


@dataclass(frozen=True, kw_only=True)
class StreamingLLM(Method):
    """Endless streams in constant memory; the model knows the last `window` tokens, no more."""

    name: ClassVar[str] = "streaming-llm"
    family: ClassVar[str] = "remap"
    slots: ClassVar[tuple[Slot, ...]] = ("store", "attend")
    recalls: ClassVar[str] = "the last `window` tokens"
    costs: ClassVar[str] = "constant memory and time a token"

    window: int | None = None
    """Newest tokens kept; none: half the trained window."""
    sinks: int = 4
    """First tokens that stay visible."""

    def __post_init__(self) -> None:
        if self.window is not None and not 0 <= self.sinks < self.window:
            raise ConfigError(
                f"streaming-llm needs 0 <= sinks < window, got sinks={self.sinks} and "
                f"window={self.window}."
            )

    def resolve(self, facts: ModelFacts) -> StreamingLLM:
        if self.window is not None:
            return self
        if facts.window is None:
            raise ConfigError(f"{facts.name} states no window; give one, as window=2048.")
        return replace(self, window=max(self.sinks + 1, facts.window // 2))

    def attend(self, facts: ModelFacts, layer: int) -> Attend:
        assert self.window is not None  # resolved
        return SinkWindow(self.window, self.sinks, InCache(self.window, self.sinks))

    def store(self, facts: ModelFacts, layer: int) -> Store:
        assert self.window is not None  # resolved
        return WindowStore(self.window, self.sinks)

    def capacity(self, facts: ModelFacts) -> int | None:
        return None

    def kept_tokens(self, facts: ModelFacts) -> int | None:
        return (self.window or 0) + self.sinks

    def exact_within(self, facts: ModelFacts) -> int | None:
        return self.window


@dataclass(frozen=True, slots=True)
class InCache:
    """Sinks at the distance that their place in the cache gives them."""

    window: int
    count: int

    @property
    def distance(self) -> int:
        return self.count + self.window - 1

    def sinks(self, rotation: Rotation, k: Tensor) -> Tensor:
        return rotation(k, 0)

    def __call__(self, call: Call, rotation: Rotation, k: Tensor, v: Tensor) -> list[Part]:
        import torch

        spec = sink_spec(call, self.window, self.count)
        slots = torch.arange(self.count, device=k.device)
        q = rotation(call.q, call.where().clamp(min=0, max=self.distance))
        return [attend(q, rotation(k, slots), v, spec=spec, scale=call.scale, return_lse=True)]
