"""HiP as a method: any decoder reads and writes with the keys that a tree search finds.

What: settings of `extend(model, "hip")`; the mechanism is `sparse`.
Source: Lee et al. (2024), "HiP Attention"; defaults of the released v1.1 (and, for the variant
"multistage", of v1.2).
Differs from the released code: settings are fields, printed and saved with the method; short texts
are read densely, which is faster and exact.
Cost: the whole cache stays. Shapes: as `Call`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from unspool.attention.call import Attend
from unspool.attention.dense import Dense
from unspool.attention.hip.functional import Variant, pattern
from unspool.attention.hip.search import Representative
from unspool.attention.hip.sparse import Blocks, BlocksAttend
from unspool.caches.chosen import ChosenStore
from unspool.caches.dense import DenseStore
from unspool.errors import ConfigError
from unspool.methods import Method, Slot, spell_value

if TYPE_CHECKING:
    from unspool._facts import ModelFacts
    from unspool.attention.hip.layout import BlockLayout
    from unspool.attention.hip.search import Chooser
    from unspool.caches.base import Store

_MOST_DENSE = 8192
_DENSE_LAYERS = (0, 1, 2)
_DEFAULTS = {"tree": (512, 256, 16), "multistage": (2048, 1024, 256)}


@dataclass(frozen=True, kw_only=True)
class ChosenBlocks(Method):
    """What methods that choose blocks of keys have in common."""

    family: ClassVar[str] = "attention"
    slots: ClassVar[tuple[Slot, ...]] = ("store", "attend")
    needs_rotated: ClassVar[bool] = True

    k_tokens: int | None = None
    """Keys that are chosen for each block of queries; none: 512 (2048 in stages)."""
    window: int | None = None
    """Newest keys that are always met; none: 256 (1024 in stages)."""
    sink: int | None = None
    """First keys that are always met; none: 16 (256 in stages)."""
    block_q: int = 64
    """Queries that share a choice while a text is read."""
    block_k: int = 2
    """Keys a block; stages end in blocks of 8."""
    refresh: int = 2
    """Written tokens that share a choice. The paper has 8, with which a small model loses a number
    while copying it: its later digits stand at keys that the choice for the first left out."""
    dense_layers: tuple[int, ...] = _DENSE_LAYERS
    """Layers that meet every key."""
    dense_below: int | None = None
    """Queries at positions below this meet every key; none: 8192, or a quarter of the trained
    window if that is less."""

    def __post_init__(self) -> None:
        if self.refresh < 1:
            raise ConfigError(f"{self.name} needs refresh >= 1, got refresh={self.refresh}.")
        if self.dense_below is not None and self.dense_below < 0:
            raise ConfigError(
                f"{self.name} needs dense_below >= 0, got dense_below={self.dense_below}."
            )
        self._pattern(say=False)  # refuses what is out of range

    def resolve(self, facts: ModelFacts) -> ChosenBlocks:
        for number in facts.pick_layers(self.layers):
            if facts.layer_types[number] != "full_attention":
                raise ConfigError(
                    f"{self.name} takes full-attention layers, and layer {number} of {facts.name} "
                    f"is of type {facts.layer_types[number]}. Leave `layers` at its default."
                )
        self._check_dense_layers(facts)
        layout, _ = self._pattern(say=True)
        below = self.dense_below
        if below is None:
            below = _MOST_DENSE if facts.window is None else min(_MOST_DENSE, facts.window // 4)
        return replace(
            self, k_tokens=layout.k_tokens, window=layout.window, sink=layout.sink,
            block_k=layout.block_k, dense_below=-(-below // self.block_q) * self.block_q,
        )  # fmt: skip

    def _check_dense_layers(self, facts: ModelFacts) -> None:
        strange = [n for n in self.dense_layers if not 0 <= n < facts.num_layers]
        if strange and self.dense_layers != _DENSE_LAYERS:
            raise ConfigError(
                f"{self.name}: dense_layers names layer {strange[0]}; {facts.name} has layers 0 to "
                f"{facts.num_layers - 1}."
            )
        if set(facts.pick_layers(self.layers)) <= set(self.dense_layers):
            warnings.warn(
                f"{self.name}:dense_layers={spell_value(self.dense_layers)} are all that "
                f"{self.name} has of {facts.name}: this is the model as it was. Name fewer, or "
                f"none, as dense_layers= (and nothing).",
                stacklevel=3,
            )

    def attend(self, facts: ModelFacts, layer: int) -> Attend:
        if layer in self.dense_layers:
            return Dense()
        layout, chooser = self._pattern(say=False)
        blocks = Blocks(layout, chooser, dense_below=self.dense_below or 0, share=self._shares())
        return BlocksAttend(blocks, self.name)

    def store(self, facts: ModelFacts, layer: int) -> Store:
        return DenseStore() if layer in self.dense_layers else ChosenStore()

    def exact_within(self, facts: ModelFacts) -> int | None:
        if set(facts.pick_layers(self.layers)) <= set(self.dense_layers):
            return None  # at any length
        chosen, window, sink = self._sizes()
        return max(self.dense_below or 0, chosen + window + sink)

    def prefill_chunk(self, facts: ModelFacts) -> int:
        return max(1, 1024 // self.block_q) * self.block_q

    def _sizes(self) -> tuple[int, int, int]:
        """Chosen keys, window and sinks, with the defaults filled in."""
        given = (self.k_tokens, self.window, self.sink)
        defaults = _DEFAULTS[self._variant()]
        chosen, window, sink = (y if x is None else x for x, y in zip(given, defaults, strict=True))
        return chosen, window, sink

    def _variant(self) -> Variant:
        return "tree"

    def _shares(self) -> bool:
        return False

    def _pattern(self, *, say: bool) -> tuple[BlockLayout, Chooser]:
        raise NotImplementedError(f"{type(self).__name__} has no pattern of blocks.")


@dataclass(frozen=True, kw_only=True)
class HiP(ChosenBlocks):
    """Each block of queries meets the keys that a tree search finds, the first and newest ones."""

    name: ClassVar[str] = "hip"
    recalls: ClassVar[str] = "what a search over all keys finds, inside the window"
    costs: ClassVar[str] = "memory grows with the text; time of a token with its logarithm"
    system: ClassVar[str] = "hip-attention"

    stride: int = 2
    """Every how many-th query of a block takes part in its search."""
    representative: Representative = "center"
    """Which block stands for a group of blocks."""
    variant: Variant = "tree"
    """tree, or the three stages of InfiniteHiP (multistage)."""
    share_heads: bool = False
    """Query heads that share keys meet what any of them chose."""

    def _variant(self) -> Variant:
        return self.variant

    def _shares(self) -> bool:
        return self.share_heads

    def _pattern(self, *, say: bool) -> tuple[BlockLayout, Chooser]:
        chosen, window, sink = self._sizes()
        return pattern(
            self.variant, k_tokens=chosen, block_q=self.block_q, block_k=self.block_k,
            window=window, sink=sink, stride=self.stride, representative=self.representative,
            refresh=(self.refresh,), say=say,
        )  # fmt: skip
