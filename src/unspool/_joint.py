"""Compute the projections of one input, queries, keys and values, in one matrix product.

What: the weights of linear layers that an attention module applies to the same input become rows
of one matrix; where no gradient is wanted, the first of them computes for all.
Source: Zhai et al. (2022), "ByteTransformer", section 3.1: one product for queries, keys and
values.
Differs from a fused layer: the model's modules, parameters and names stay; a layer that is called
with another input (cross-attention) computes for itself, and weights that were changed are used.
Cost: no memory but while weights move; one look at every pointer a pass. Shapes: T rows of h to
T rows of the sum of all widths.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NAMES = (
    ("query", "key", "value"),
    ("q_proj", "k_proj", "v_proj"),
    ("q_lin", "k_lin", "v_lin"),
    ("q", "k", "v"),
)
"""What attention modules call the three."""


class Joint:
    """Linear layers of one input."""

    def __init__(self, layers: list[nn.Linear]) -> None:
        self.layers = layers
        self.sizes = [layer.out_features for layer in layers]
        self.weight: Tensor = torch.empty(0)
        self.bias: Tensor = torch.empty(0)
        self.held: tuple[Tensor, tuple[Tensor, ...]] | None = None
        self.gather()

    def gather(self) -> None:
        """Lay weights side by side, unless they lie so."""
        with torch.inference_mode(False):
            self.weight = _side_by_side([layer.weight for layer in self.layers], self.weight)
            if self.layers[0].bias is not None:
                self.bias = _side_by_side([layer.bias for layer in self.layers], self.bias)

    def scatter(self) -> None:
        """Give every layer memory of its own again."""
        for layer in self.layers:
            for weight in (layer.weight, layer.bias):
                if weight is not None:
                    weight.data = weight.data.clone()

    def forward(self, number: int) -> Callable[[Tensor], Tensor]:
        """What layer `number` does instead of its own product."""
        layer, last = self.layers[number], number == len(self.layers) - 1
        biased = layer.bias is not None

        def project(x: Tensor) -> Tensor:
            if torch.is_grad_enabled():
                return F.linear(x, layer.weight, layer.bias)
            if number == 0:
                out = F.linear(x, self.weight, self.bias if biased else None)
                parts: tuple[Tensor, ...] = torch.split(out, self.sizes, dim=-1)
                self.held = (x, parts)
                return parts[0]
            held = self.held
            if held is None or held[0] is not x:
                return F.linear(x, layer.weight, layer.bias)
            if last:
                self.held = None
            return held[1][number]

        return project


class Watch:
    """Tells when a weight of a model lies elsewhere than before: what is compiled or captured by
    address has to be made anew."""

    def __init__(self, base: nn.Module) -> None:
        stores = [store for m in base.modules() for store in (m._parameters, m._buffers)]
        self._stores: list[Any] = [store for store in stores if store]
        self._pointers: tuple[int, ...] = ()

    def moved(self, settle: Callable[[], None]) -> bool:
        """Whether one has moved since the last call; `settle` may move them once more."""
        if self._look() == self._pointers:
            return False
        settle()
        self._pointers = self._look()
        return True

    def _look(self) -> tuple[int, ...]:
        return tuple(
            0 if value is None else value.data_ptr()
            for store in self._stores
            for value in store.values()
        )


def join(base: nn.Module, undo: contextlib.ExitStack) -> list[Joint]:
    """Join the projections of every attention module, until `undo` is closed."""
    found = []
    for module in base.modules():
        for names in NAMES:
            layers: list[Any] = [getattr(module, name, None) for name in names]
            if not _alike(layers):
                continue
            joint = Joint(layers)
            undo.callback(joint.scatter)
            for number, layer in enumerate(layers):
                layer.forward = joint.forward(number)
                undo.callback(layer.__dict__.pop, "forward", None)
            found.append(joint)
    return found


def _alike(layers: list[Any]) -> bool:
    """Whether layers are plain linear ones of one input, whose weights may lie side by side."""
    if not all(type(layer) is nn.Linear and "forward" not in layer.__dict__ for layer in layers):
        return False
    facts = {(x.in_features, x.bias is None, x.weight.dtype, x.weight.device) for x in layers}
    apart = {x.weight.untyped_storage().data_ptr() for x in layers}
    hooked = any(x._forward_hooks or x._forward_pre_hooks for x in layers)
    return len(facts) == 1 and len(apart) == len(layers) and not hooked


def _side_by_side(weights: list[Any], joint: Tensor) -> Tensor:
    at, size = joint.data_ptr(), joint.element_size()
    fits = joint.numel() == sum(w.numel() for w in weights)
    for weight in weights:
        fits = fits and weight.dtype == joint.dtype and weight.data_ptr() == at
        at += weight.numel() * size
    if fits:
        return joint
    joint = nn.Parameter(torch.cat([w.detach() for w in weights]), requires_grad=False)
    start = 0
    for weight in weights:
        weight.data = joint.data[start : start + len(weight)]
        start += len(weight)
    return joint
