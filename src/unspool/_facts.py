"""What `extend` needs to know of a model, read from its configuration and its modules.

Everything is found by type and shape, nothing by architecture: the rotary modules, the layer types
that transformers' own cache would make, head sizes, the trained window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unspool._position_table import PositionTable, find_table
from unspool.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from unspool.positions.rotation import Layout, Rotation


@dataclass(frozen=True, slots=True, eq=False)
class ModelFacts:
    """Shapes and limits of one model."""

    name: str
    """Class and hidden size, for messages."""
    window: int | None
    """Trained window in tokens."""
    num_layers: int
    layer_types: tuple[str, ...]
    """full_attention, sliding_attention, … as transformers' cache has them."""
    num_heads: int
    num_kv_heads: int
    head_dim: int
    hidden_size: int
    dtype: Any
    device: Any
    rotations: dict[str, Rotation] = field(repr=False)
    """By layer type; empty if the model has no rotary embedding."""
    rotary_modules: tuple[Any, ...] = field(repr=False)
    sliding_window: int | None = None
    """Tokens that a query of a sliding layer meets, itself included; None: no such layer."""
    reads_layer_types: bool = False
    """The family's own code runs each layer as `config.layer_types` says."""
    rope: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    """What the configuration says of the rotary embedding, by layer type; one and the same dict
    where all types share it."""
    table: PositionTable | None = None
    """Of learned positions, past which no text can be read; None: positions are computed."""

    @property
    def bytes_per_token(self) -> int:
        """Of keys and values in one full-attention layer."""
        return 2 * self.num_kv_heads * self.head_dim * int(self.dtype.itemsize)

    @property
    def full_layers(self) -> tuple[int, ...]:
        return tuple(i for i, kind in enumerate(self.layer_types) if kind == "full_attention")

    def pick_layers(self, text: str) -> tuple[int, ...]:
        """Layer numbers that a `layers` setting names.

        Raises:
            ConfigError: The setting is no known form, or names a layer that does not exist.
        """
        return pick_layers(text, self.num_layers, self.full_layers, self.name)


def pick_layers(text: str, num_layers: int, full: tuple[int, ...], name: str) -> tuple[int, ...]:
    """As `ModelFacts.pick_layers`, where there is no model yet."""
    every = range(num_layers)
    word, _, count = text.partition(":")
    if text == "all":
        return tuple(every)
    if text == "full":
        return full
    if text in ("even", "odd"):
        return tuple(i for i in every if i % 2 == (text == "odd"))
    if word in ("first", "last") and count.isdigit() and 0 < int(count) <= num_layers:
        return tuple(every[: int(count)] if word == "first" else every[-int(count) :])
    picked: set[int] = set()
    for piece in text.split(","):
        first, dash, last = piece.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ConfigError(
                f"layers={text!r} is none of all, full, even, odd, first:N, last:N, or "
                f"numbers as 0-3,11."
            )
        if dash and int(last) < int(first):
            raise ConfigError(f"layers={text!r}: {piece} runs backwards; write {last}-{first}.")
        picked.update(range(int(first), int(last if dash else first) + 1))
    if not picked or max(picked) >= num_layers:
        raise ConfigError(
            f"layers={text!r} names layer {max(picked, default=0)}; {name} has layers "
            f"0 to {num_layers - 1}."
        )
    return tuple(sorted(picked))


def read_facts(model: Any, layout: Layout = "half") -> ModelFacts:
    """The facts of a transformers model.

    Raises:
        ConfigError: The model has no attention layers with a cache, or is an encoder-decoder.
    """
    from transformers.cache_utils import DynamicCache

    config = model.config.get_text_config(decoder=True)
    name = f"{type(model).__name__} (hidden size {getattr(config, 'hidden_size', '?')})"
    if getattr(model.config, "is_encoder_decoder", False):
        raise ConfigError(f"{name} is an encoder-decoder; extend() takes decoders.")
    layers = DynamicCache(config=config).layers
    kinds = tuple(_layer_type(layer) for layer in layers)
    if not kinds:
        kinds = ("full_attention",) * int(config.num_hidden_layers)
    num_heads = int(config.num_attention_heads)
    weight = next(model.parameters())
    rotary_modules = tuple(
        module for path, module in model.named_modules() if path.split(".")[-1] == "rotary_emb"
    )
    said = getattr(config, "max_position_embeddings", None)
    return ModelFacts(
        name=name,
        window=_trained_window(config, said),
        num_layers=len(kinds),
        layer_types=kinds,
        num_heads=num_heads,
        num_kv_heads=int(getattr(config, "num_key_value_heads", None) or num_heads),
        head_dim=int(getattr(config, "head_dim", None) or config.hidden_size // num_heads),
        hidden_size=int(config.hidden_size),
        dtype=weight.dtype,
        device=_device(model, weight),
        rotations=_rotations(rotary_modules, kinds, layout),
        rotary_modules=rotary_modules,
        sliding_window=_sliding_window(config, layers),
        reads_layer_types=getattr(config, "layer_types", None) is not None,
        rope=_rope(config, kinds),
        table=None if rotary_modules else find_table(model),
    )


def _device(model: nn.Module, weight: Tensor) -> Any:
    """Where inputs go: where the weights lie or, of those that are fetched for each call, are
    used."""
    import torch

    if weight.device.type != "meta":
        return weight.device
    for module in model.modules():
        hook = getattr(module, "_hf_hook", None)  # of accelerate, which offloads
        for each in getattr(hook, "hooks", (hook,)):
            device = getattr(each, "execution_device", None)
            if device is not None:
                return torch.device(device)
    return weight.device


def _sliding_window(config: Any, layers: Sequence[Any]) -> int | None:
    """The window of the sliding layers, as transformers' own cache keeps it."""
    if "chunked_attention" in (getattr(config, "layer_types", None) or ()):
        return None  # the same cache, but a chunk is no sliding window
    windows = {layer.sliding_window for layer in layers if hasattr(layer, "sliding_window")}
    return int(windows.pop()) if len(windows) == 1 else None


def _trained_window(config: Any, said: int | None) -> int | None:
    """The window that the model was trained on, before any stretch that its config asks for."""
    parameters = getattr(config, "rope_parameters", None) or {}
    original = parameters.get("original_max_position_embeddings")
    if original is not None:
        return int(original)
    return int(said) if said is not None else None


def _rope(config: Any, kinds: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    said = getattr(config, "rope_parameters", None) or {}
    nested = {kind: said[kind] for kind in kinds if isinstance(said.get(kind), dict)}
    return nested or dict.fromkeys(kinds, said)


def _layer_type(layer: Any) -> str:
    from transformers.cache_utils import CacheLayerMixin, DynamicLayer

    if getattr(layer, "is_sliding", False):
        return "sliding_attention"
    if type(layer) is DynamicLayer:
        return "full_attention"
    if isinstance(layer, CacheLayerMixin):
        return type(layer).__name__
    return "no_cache"


def _rotations(
    modules: tuple[Any, ...], kinds: tuple[str, ...], layout: Layout
) -> dict[str, Rotation]:
    from unspool.positions.rotation import Rotation

    found: dict[str, Rotation] = {}
    for module in modules:
        for kind in dict.fromkeys(kinds):
            own = getattr(module, f"{kind}_inv_freq", None)
            factor = getattr(module, f"{kind}_attention_scaling", None)
            if own is None:
                own = getattr(module, "inv_freq", None)
                factor = getattr(module, "attention_scaling", 1.0)
            if own is not None and kind not in found:
                found[kind] = Rotation(own.detach().float(), float(factor or 1.0), layout)
    return found
