"""MASFormer: full attention in a few layers of a decoder, local attention in all the others.

What: each layer takes a span, everything or the blocks around a query; long-range information
enters through the few full layers. Made for continual training; the layers' caches follow.
Source: Zhang et al. (2023), "Efficient Long-Range Transformers: You Need to Attend More, but Not
Necessarily at Every Layer", section 3. No code was released.
Differs from the paper: any pretrained decoder in place of GPT-Neo; where the full layers lie is a
setting (the paper puts them at the bottom) and can be measured; blocks or a sliding window; whether
the block before is met (by default it is) decides between the paper's text and its 75%.
Cost: O(n^2) in the full layers, O(n * reach) in the others, whose caches hold at most `reach`
tokens. Shapes: as `Call`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from unspool.attention.spans import FULL, Span, SpanAttend, SpanKind
from unspool.errors import ConfigError
from unspool.methods import Method, Slot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unspool._facts import ModelFacts
    from unspool.attention.call import Attend
    from unspool.caches.base import Store

_AUTO_MOST = 8192
"""Tokens that `auto` measures on, at most."""


@dataclass(frozen=True, kw_only=True)
class MASFormer(Method):
    """A few full layers, the others local: for continual training, a fraction of the cost."""

    name: ClassVar[str] = "masformer"
    family: ClassVar[str] = "attention"
    slots: ClassVar[tuple[Slot, ...]] = ("store", "attend")
    recalls: ClassVar[str] = "everything, through the full layers, once trained so"
    costs: ClassVar[str] = "time and memory grow with the text in the full layers only"
    trains: ClassVar[bool] = True
    needs_rotated: ClassVar[bool] = True
    system: ClassVar[str] = "masformer"

    full: str = "bottom:4"
    """Layers that see everything: bottom:N, top:N, middle:N, uniform:N, every:K, numbers as
    0-3,11, all, none, or auto:N, which measures where attention goes far (needs a tokenizer)."""
    block: int = 1024
    """Tokens of a block of the other layers, or of their window."""
    kind: SpanKind = "block"
    """block, as the paper; window, the sliding window that other engines can run."""
    previous_blocks: int = 1
    """Blocks before a query's own that it meets; 0: its own only. Of kind block."""

    def __post_init__(self) -> None:
        if self.block < 1 or self.previous_blocks < 0:
            raise ConfigError(
                f"masformer needs block >= 1 and previous_blocks >= 0, got block={self.block} and "
                f"previous_blocks={self.previous_blocks}."
            )

    @property
    def span(self) -> Span:
        """Of the local layers."""
        return Span(self.block, self.previous_blocks, self.kind)

    def prepare(self, model: Any, tokenizer: Any) -> MASFormer:
        """`auto:N` measured on the model, with the language reference of the running Python."""
        word, _, count = self.full.partition(":")
        if word != "auto":
            return self
        from unspool._facts import read_facts
        from unspool.attention.span_choice import choose_layers, reference_ids

        if tokenizer is None:
            raise ConfigError(
                f"full={self.full!r} measures the model on a text, which needs extend(…, "
                f"tokenizer=…); or choose with choose_layers(model, texts, {count or 'N'}) and "
                f"give the numbers."
            )
        facts = read_facts(model)
        tokens = min(facts.window or _AUTO_MOST, _AUTO_MOST)
        chosen = choose_layers(
            model,
            [reference_ids(tokenizer, tokens)],
            _count(self.full, count, facts.pick_layers(self.layers)),
            span=self.span,
            layers=self.layers,
        )
        return replace(self, full=",".join(map(str, chosen)) or "none")

    def resolve(self, facts: ModelFacts) -> MASFormer:
        layers = facts.pick_layers(self.layers)
        chosen = pick_full(self.full, layers, facts.name)
        local = len(chosen) < len(layers)
        asked = self.full.partition(":")[2]
        if asked.isdigit() and int(asked) > len(layers):
            warnings.warn(
                f"masformer:full={self.full} asks for more than the {len(layers)} full layers of "
                f"{facts.name}: this is the model as it was.",
                stacklevel=2,
            )
        if local and facts.window is not None and self.span.oldest(facts.window - 1) == 0:
            warnings.warn(
                f"masformer:block={self.block} reaches {self.span.reach:,} tokens, and the window "
                f"of {facts.name} is {facts.window:,}: within it every layer is full.",
                stacklevel=2,
            )
        return replace(self, full=",".join(map(str, chosen)) or "none")

    def attend(self, facts: ModelFacts, layer: int) -> Attend:
        return FULL if self._is_full(facts, layer) else SpanAttend(self.span)

    def store(self, facts: ModelFacts, layer: int) -> Store:
        from unspool.caches.dense import DenseStore
        from unspool.caches.sliding import SlidingStore
        from unspool.caches.spans import SpanStore

        if self._is_full(facts, layer):
            return DenseStore()
        return SlidingStore(self.block) if self.kind == "window" else SpanStore(self.span)

    def capacity(self, facts: ModelFacts) -> int | None:
        """Any number if no layer is full and positions are relative: no distance is long."""
        local = not pick_full(self.full, facts.pick_layers(self.layers), facts.name)
        every = set(facts.pick_layers(self.layers)) >= set(facts.full_layers)
        return None if local and every and facts.rotations else facts.window

    def kept_tokens(self, facts: ModelFacts) -> int | None:
        full = pick_full(self.full, facts.pick_layers(self.layers), facts.name)
        return None if full else self.span.reach

    def exact_within(self, facts: ModelFacts) -> int | None:
        layers = facts.pick_layers(self.layers)
        full = pick_full(self.full, layers, facts.name)
        return self.span.reach if len(full) < len(layers) else None

    def export(self, facts: ModelFacts) -> dict[str, Any]:
        """`layer_types` and `sliding_window` of a configuration that plain transformers runs.

        Raises:
            Unsupported: Blocks, a family whose code has one span for all layers, or one with
                sliding layers of its own.
        """
        from unspool.errors import Unsupported

        if self.kind == "block":
            raise Unsupported(
                "masformer: no configuration says kind=block, so plain transformers would run "
                "every layer in full. Use kind=window, or keep the method with the model and "
                "extend() it again."
            )
        if not facts.reads_layer_types:
            raise Unsupported(
                f"masformer: {facts.name} gives all layers one span, so plain transformers would "
                f"run every layer in full. Families with layer_types (Qwen3, SmolLM3) can be "
                f"exported."
            )
        local = set(facts.pick_layers(self.layers)) - set(
            pick_full(self.full, facts.pick_layers(self.layers), facts.name)
        )
        if not local:
            return {}
        if len(facts.full_layers) < facts.num_layers:
            raise Unsupported(
                f"masformer: {facts.name} has sliding layers of its own, and its configuration has "
                f"one span and one kind of positions for every sliding layer. Keep the method with "
                f"the model and extend() it again."
            )
        kinds = [
            "sliding_attention" if layer in local else kind
            for layer, kind in enumerate(facts.layer_types)
        ]
        return {"layer_types": kinds, "sliding_window": self.block, "use_sliding_window": True}

    def _is_full(self, facts: ModelFacts, layer: int) -> bool:
        return layer in pick_full(self.full, facts.pick_layers(self.layers), facts.name)


def pick_full(text: str, layers: Sequence[int], model: str = "the model") -> tuple[int, ...]:
    """The layers that a `full` setting names, of those that the method takes.

    Args:
        text: As the field `full`; `auto` has to be measured first.
        layers: What is chosen from, ascending.
        model: For messages.

    Raises:
        ConfigError: No known form, more layers than there are, or a layer of another kind.
    """
    word, colon, number = text.partition(":")
    if text in ("all", "none"):
        return tuple(layers) if text == "all" else ()
    if word == "auto":
        raise ConfigError(
            f"full={text!r} has to be measured on the model: extend(model, …, tokenizer=…) does "
            f"it, or choose_layers(model, texts, {number or 'N'})."
        )
    if colon:
        return _preset(text, word, number, layers)
    picked: set[int] = set()
    for piece in text.split(","):
        first, dash, last = piece.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ConfigError(
                f"full={text!r} is none of bottom:N, top:N, middle:N, uniform:N, every:K, auto:N, "
                f"all, none, or numbers as 0-3,11."
            )
        if dash and int(last) < int(first):
            raise ConfigError(f"full={text!r}: {piece} runs backwards; write {last}-{first}.")
        picked.update(range(int(first), int(last if dash else first) + 1))
    strange = sorted(picked - set(layers))
    if strange:
        raise ConfigError(
            f"full={text!r} names layer {strange[0]}, and {model} has full attention to keep in "
            f"{_numbers(layers)}."
        )
    return tuple(sorted(picked))


def _preset(text: str, word: str, number: str, layers: Sequence[int]) -> tuple[int, ...]:
    if word == "every":
        if not number.isdigit() or int(number) < 1:
            raise ConfigError(f"full={text!r} needs a step of at least 1, as every:4.")
        return tuple(layers[:: int(number)])
    count, total = _count(text, number, layers), len(layers)
    start = (total - count) // 2
    if word == "bottom":
        return tuple(layers[:count])
    if word == "top":
        return tuple(layers[total - count :])
    if word == "middle":
        return tuple(layers[start : start + count])
    if word == "uniform":  # the middle of each of `count` equal stretches
        return tuple(layers[(2 * i + 1) * total // (2 * count)] for i in range(count))
    raise ConfigError(
        f"full={text!r}: {word!r} is none of bottom, top, middle, uniform, every and auto."
    )


def _count(text: str, number: str, layers: Sequence[int]) -> int:
    """How many layers a preset asks for; all where there are fewer."""
    if not number.isdigit():
        raise ConfigError(f"full={text!r} needs a number of layers, as bottom:4.")
    return min(int(number), len(layers))


def _numbers(layers: Sequence[int]) -> str:
    return f"layers {', '.join(map(str, layers))}" if layers else "no layer"
