"""Adapters of NTK-Attention on an extended model: add, switch, train, make from text, save, load.

What: the handle on what `Extension.module` holds; a module that a Trainer takes; states in closed
form out of a context's or a trained prefix's keys and values.
Source: Liang et al. (2024), section 4; file names as in PEFT.
Differs from PEFT: nothing is put on the model, so its own state never changes.
Cost: a context is read once. Shapes: prefixes are keys and values [Hkv, m, D] a layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unspool.attention.ntk.files import check_fit, read_header, read_layer, write_adapter
from unspool.attention.ntk.layer import NTKLayer
from unspool.attention.ntk.method import NTK
from unspool.attention.ntk.state import PrefixState
from unspool.errors import ConfigError, InputError

if TYPE_CHECKING:
    from unspool.extension import Extension


@dataclass(frozen=True, slots=True)
class Trainable:
    """What training an adapter moves."""

    parameters: int
    base_parameters: int
    layers: int
    bytes: int
    adapters: tuple[str, ...]

    @property
    def share(self) -> float:
        """Of the base model's parameters."""
        return self.parameters / self.base_parameters


class NTKAdapters:
    """The adapters of an extended model; the one in use is `active`."""

    def __init__(self, extension: Extension) -> None:
        """Of an extension with the method `ntk`.

        Raises:
            ConfigError: The extension has another method.
        """
        found = [method for method in extension.methods if isinstance(method, NTK)]
        if not found:
            raise ConfigError(
                f"{extension.spec} has no adapters: extend(model, 'ntk') gives a model some."
            )
        self.extension = extension
        self.method = found[0]

    @property
    def layers(self) -> dict[int, NTKLayer]:
        """What each layer learned."""
        return {
            int(number): layer
            for number, layer in self.extension.module.items()
            if isinstance(layer, NTKLayer)
        }

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(next(iter(self.layers.values())).z)

    @property
    def active(self) -> str | None:
        """The adapter in use; None: the base model."""
        return next(iter(self.layers.values())).active

    def add(self, name: str) -> NTKAdapters:
        """An untrained adapter, and its use."""
        if not name.isidentifier():
            raise ConfigError(f"An adapter's name is a word, got {name!r}.")
        if name in self.names:
            raise ConfigError(f"There is an adapter {name!r} already: remove() it first.")
        for layer in self.layers.values():
            layer.add(name, self.method.init, self.method.seed)
        return self.use(name)

    def use(self, name: str | None) -> NTKAdapters:
        """Switch to an adapter; None: to the base model. Only the one in use has gradients."""
        if name is not None and name not in self.names:
            raise ConfigError(f"There is no adapter {name!r}, only {', '.join(self.names)}.")
        for layer in self.layers.values():
            layer.active = name
            for other in layer.z:
                layer.z[other].requires_grad_(other == name)
                layer.kappa[other].requires_grad_(other == name)
        return self

    def remove(self, name: str) -> NTKAdapters:
        """Forget an adapter; if it was in use, the model is the base model."""
        if name not in self.names:
            raise ConfigError(f"There is no adapter {name!r}, only {', '.join(self.names)}.")
        for layer in self.layers.values():
            layer.remove(name)
        return self

    def parameters(self) -> Iterator[nn.Parameter]:
        """Of the adapter in use, for an optimiser."""
        name = self.active
        for layer in self.layers.values():
            if name is not None:
                yield layer.z[name]
                yield layer.kappa[name]

    def trainable(self) -> nn.Module:
        """The model as a module whose only parameters are the adapters': what a Trainer takes."""
        return _TrainedAlone(self.extension)

    def report(self) -> Trainable:
        """How many numbers are trained, beside those of the model."""
        count = sum(p.numel() for p in self.parameters())
        return Trainable(
            parameters=count,
            base_parameters=sum(p.numel() for p in self.extension.model.parameters()),
            layers=len(self.layers),
            bytes=4 * count,
            adapters=self.names,
        )

    # ---- from keys and values

    def from_context(self, ids: Sequence[int] | Tensor, name: str = "context") -> NTKAdapters:
        """An adapter that stands for a text: the sums over the keys and values the model makes of
        it, as a text that follows it would meet them.

        Args:
            ids: Token ids of the text.
            name: Of the adapter; one of that name is replaced.
        """
        text = torch.as_tensor(ids, device=self.extension.facts.device).reshape(1, -1)
        if not text.shape[1]:
            raise InputError("A context needs at least 1 token, got none.")
        before = self.active
        for layer in self.layers.values():
            layer.active = None
        try:
            cache = self.extension.new_cache()
            with torch.no_grad():
                self.extension.model(text, past_key_values=cache, use_cache=True)
        finally:
            self.use(before)
        pairs = {}
        for number in self.layers:
            store: Any = cache.layers[number]
            (kept,) = store.segments()
            pairs[number] = (kept.k[0], kept.v[0])
        return self.from_prefix(pairs, name)

    def from_prefix(
        self, pairs: Mapping[int, tuple[Tensor, Tensor]], name: str = "prefix"
    ) -> NTKAdapters:
        """An adapter that stands for keys and values in front of the text, trained or read.

        Args:
            pairs: Of each layer, keys [Hkv, m, D] as a cache holds them for positions 0 … m - 1,
                and values [Hkv, m, D].
            name: Of the adapter; one of that name is replaced.
        """
        missing = sorted(set(self.layers) - set(pairs))
        if missing:
            raise ConfigError(f"The prefix lacks layer {missing[0]}.")
        facts, scales = self.extension.facts, self._scales()
        states = {}
        for number in self.layers:
            k, v = pairs[number]
            rotation = facts.rotations.get(facts.layer_types[number])
            if rotation is not None:  # the text begins at position 0, where the prefix was
                k = rotation.shift(k[None].float(), -int(k.shape[1]))[0]
            states[number] = PrefixState.of(
                k.float(), v.float(), phi=self.method.phi, scale=scales[number]
            )
        if name in self.names:
            self.remove(name)
        for number, layer in self.layers.items():
            layer.put_state(name, states[number].z, states[number].kappa)
        return self.use(name)

    def _scales(self) -> dict[int, float]:
        """Factor on the scores of each layer, as the model states it when it attends."""
        from unspool._dispatch import tapped

        found: dict[int, float] = {}
        token = torch.zeros(1, 1, dtype=torch.long, device=self.extension.facts.device)
        with torch.no_grad(), tapped(lambda call: found.update({call.layer: call.scale})):
            self.extension.model(token, use_cache=False)
        return found

    # ---- files

    def save(self, directory: str | Path, name: str | None = None) -> Path:
        """Write an adapter (the one in use) as a folder with safetensors and a configuration."""
        name = name if name is not None else self.active
        if name is None or name not in self.names:
            raise ConfigError(f"There is no adapter {name!r} to save, only {self.names}.")
        layers = self.layers
        facts = self.extension.facts
        header = {
            "phi": self.method.phi,
            "heads": self.method.heads,
            "positive": self.method.positive,
            "floor": self.method.floor,
            "layers": sorted(layers),
            "num_states": next(iter(layers.values())).sizes[0],
            "head_dim": facts.head_dim,
            "base_model": facts.name,
        }
        states = {n: (layer.z[name], layer.kappa[name]) for n, layer in layers.items()}
        return write_adapter(Path(directory), header, states)

    def load(self, directory: str | Path, name: str = "loaded") -> NTKAdapters:
        """Read an adapter and use it; one of that name is replaced.

        Raises:
            ConfigError: It is for another model, or another setting of the method.
            InputError: There is none, or it is damaged.
        """
        folder = Path(directory)
        header = read_header(folder)
        check_fit(header, self.extension.facts, folder)
        for key in ("phi", "heads", "positive"):
            if header[key] != getattr(self.method, key):
                raise ConfigError(
                    f"The adapter in {folder} has {key}={header[key]}, and the model was extended "
                    f"with {key}={getattr(self.method, key)}. Extend it with "
                    f"'ntk:adapter={folder}'."
                )
        if sorted(self.layers) != header["layers"]:
            raise ConfigError(
                f"The adapter in {folder} is for layers {header['layers']}, and the model was "
                f"extended in {sorted(self.layers)}."
            )
        found = {number: read_layer(folder, number) for number in self.layers}
        if name in self.names:
            self.remove(name)
        for number, layer in self.layers.items():
            layer.put(name, *found[number])
        return self.use(name)


class _TrainedAlone(nn.Module):
    """The base model in front, its adapters as the only state."""

    def __init__(self, extension: Extension) -> None:
        super().__init__()
        self.adapters = extension.module
        object.__setattr__(self, "_model", extension.model)  # not a part of the module's state

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **inputs: Any,
    ) -> Any:
        """As the model's own, without a cache."""
        model: Any = self.__dict__["_model"]
        return model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            labels=labels,
            use_cache=False,
            **inputs,
        )
