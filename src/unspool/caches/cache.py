"""The cache of an extended model: one store a layer, transformers' own for layers left alone.

What: a `Cache` of transformers that knows where the prefill ends and can report what it holds.
Source: this project's own contract (section "How a mechanism meets a model" of the architecture).
Differs from `DynamicCache`: lengths are tokens seen; the end of the prefill is told, not guessed.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache

from unspool.caches.base import Store, StoreReport, held_bytes


class UnspoolCache(Cache):
    """Stores and foreign layers, one a layer."""

    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__(layers=list(layers))
        for store in self.stores:
            store.join(self.stores)
        self.prefill_end: int | None = None
        """Token count (padding counted) at which the prefill is complete; None: not told yet."""

    @property
    def stores(self) -> list[Store]:
        return [layer for layer in self.layers if isinstance(layer, Store)]

    def end_prefill(self) -> None:
        """Say that what was read so far is the whole prefill (a hand-written loop calls this)."""
        self.prefill_end = self.get_seq_length()
        for store in self.stores:
            store.prefilled_to = self.prefill_end
            store.finish_prefill()

    def reports(self) -> list[StoreReport]:
        """One report a layer, transformers' own layers included."""
        return [_report(layer) for layer in self.layers]

    def state(self) -> dict[str, Tensor]:
        """Everything as named tensors, for a file."""
        named: dict[str, Tensor] = {}
        for number, layer in enumerate(self.layers):
            state = layer.state() if isinstance(layer, Store) else _foreign_state(layer)
            named.update({f"{number}.{name}": value for name, value in state.items()})
        return named

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave."""
        for number, layer in enumerate(self.layers):
            prefix = f"{number}."
            own = {n.removeprefix(prefix): x for n, x in state.items() if n.startswith(prefix)}
            if isinstance(layer, Store):
                layer.load_state(own)
            else:
                _load_foreign(layer, own)

    def copy(self) -> UnspoolCache:
        """An independent cache with the same content."""
        layers = [
            layer.copy() if isinstance(layer, Store) else copy.deepcopy(layer)
            for layer in self.layers
        ]
        other = UnspoolCache(layers)
        other.prefill_end = self.prefill_end
        return other


def _report(layer: Any) -> StoreReport:
    if isinstance(layer, Store):
        return layer.report()
    keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
    seen = int(layer.get_seq_length()) if hasattr(layer, "get_seq_length") else 0
    held = int(keys.shape[-2]) if keys is not None and keys.numel() else 0
    return StoreReport(seen=seen, attended=held, stored=0, bytes_device=held_bytes([keys, values]))


def _foreign_state(layer: Any) -> dict[str, Tensor]:
    import torch

    named: dict[str, Tensor] = {}
    for name in ("keys", "values"):
        value = getattr(layer, name, None)
        if value is not None:
            named[name] = value.contiguous()
    if hasattr(layer, "cumulative_length"):
        named["cumulative_length"] = torch.tensor(int(layer.cumulative_length))
    return named


def _load_foreign(layer: Any, state: dict[str, Tensor]) -> None:
    if "keys" not in state:
        return
    layer.lazy_initialization(state["keys"], state["values"])
    layer.keys, layer.values = state["keys"], state["values"]
    if "cumulative_length" in state:
        layer.cumulative_length = int(state["cumulative_length"])
