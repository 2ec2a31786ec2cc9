"""What a decoder layer does to the row of a new token outside attention, in the native engine.

What: norms, products, rotation and gated activation of a layer as two calls, on all processors,
over the model's own weights (float32, bfloat16) or a copy in 8 bits.
Source: as `decoder_rows`.
Differs from `decoder_rows`: sums and rows are float32 whatever the weights are; no graphics card.
Cost: reads every weight once a token, near the speed of memory. Shapes: rows [B, hidden].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unspool import _native
from unspool.backends.decoder_parts import norm_numbers
from unspool.backends.decoder_rows import QKV, Weights, join_biases, quantise_rows
from unspool.positions.rotation import Layout

if TYPE_CHECKING:
    from unspool.backends.decoder_parts import ModelParts

_SILU, _GELU_TANH = 0, 1
_Matrix = tuple[Tensor, Tensor | None, Tensor | None]


def why_not_native(parts: ModelParts) -> str | None:
    """Why the native engine can't run a model's rows; None: it can."""
    facts = parts.facts
    if _native.DECODER_KERNELS is None:
        return "it was built by a compiler without vectors"
    if facts.device.type != "cpu":
        return f"the model is on {facts.device.type}"
    if facts.dtype not in (torch.float32, torch.bfloat16):
        return f"dtype is {facts.dtype}"
    norms: list[nn.Module | None] = [parts.final]
    for layer in parts.layers:
        if _activation(layer.activate) is None:
            return f"layer {layer.number} activates with {type(layer.activate).__name__}"
        if (layer.query_norm is None) != (layer.key_norm is None):
            return f"layer {layer.number} normalises either queries or keys"
        norms += [layer.before, layer.query_norm, layer.key_norm, layer.after_attention]
        norms += [layer.middle, layer.after_mlp]
    for norm in norms:
        if norm is not None and norm_numbers(norm) is None:
            return f"{type(norm).__name__} is no root-mean-square norm"
    tensors = [linear.weight for layer in parts.layers for linear in layer.qkv]
    if any(x.dtype != facts.dtype or not x.is_contiguous() for x in tensors):
        return "weights differ in dtype or are not contiguous"
    return None


class NativeRows:
    """For models that `why_not_native` lets pass."""

    def __init__(self, parts: ModelParts, weights: Weights, layout: Layout) -> None:
        """Hand the weights over, or quantise them."""
        facts = parts.facts
        self._int8, self._layout = weights == "int8", layout
        self._head_dim = facts.head_dim
        self._sizes = (facts.num_heads, facts.num_kv_heads, facts.num_kv_heads)
        head = parts.head.weight
        self._hidden, self._vocabulary = int(head.shape[1]), int(head.shape[0])
        self._layers: Any = _native.Layers(self._hidden, torch.get_num_threads())
        for layer in parts.layers:
            gate, up = self._gate_up(layer.gate_up)
            activation = _activation(layer.activate)
            assert activation is not None  # `why_not_native` looked
            self._layers.add(
                _norm(layer.before),
                [self._matrix(linear) for linear in layer.qkv],
                _norm(layer.query_norm),
                _norm(layer.key_norm),
                self._matrix(layer.out),
                _norm(layer.after_attention),
                _norm(layer.middle),
                gate,
                up,
                activation,
                self._matrix(layer.down),
                _norm(layer.after_mlp),
                facts.num_heads,
                facts.num_kv_heads,
                facts.head_dim,
            )
        self._layers.set_head(_norm(parts.final), self._matrix(parts.head))
        self._x = self._qkv = self._attended = self._logits = torch.empty(0, 0)

    def begin(self, x: Tensor) -> None:
        if self._x.shape[0] != x.shape[0]:
            self._make_room(int(x.shape[0]))
        self._x.copy_(x)

    def turn(self, cos: Tensor, sin: Tensor) -> None:
        if not cos.numel():
            self._layers.set_angles(None, None)
            return
        angles = (x.reshape(-1).float().contiguous() for x in (cos, sin))
        self._layers.set_angles(*angles, self._layout == "interleaved")

    def before(self, layer: int, dtype: torch.dtype) -> QKV:
        self._layers.before(layer)
        # A copy: stores and observers keep what they are given.
        heads = self._qkv.to(dtype, copy=True).view(self._x.shape[0], -1, 1, self._head_dim)
        q, k, v = heads.split_with_sizes(self._sizes, dim=1)
        return q, k, v

    def after(self, layer: int, attended: Tensor) -> None:
        self._attended.copy_(attended.reshape(self._attended.shape))
        self._layers.after(layer)

    def logits(self) -> Tensor:
        self._layers.logits()
        return self._logits.clone()

    def _make_room(self, batch: int) -> None:
        heads = self._sizes[0]
        self._x = torch.empty(batch, self._hidden)
        self._qkv = torch.empty(batch, sum(self._sizes) * self._head_dim)
        self._attended = torch.empty(batch, heads * self._head_dim)
        self._logits = torch.empty(batch, self._vocabulary)
        self._layers.bind(self._x, self._qkv, self._attended, self._logits)

    def _matrix(self, linear: nn.Linear) -> _Matrix:
        return self._numbers(linear.weight.detach(), join_biases([linear]))

    def _gate_up(self, linears: list[nn.Linear]) -> list[_Matrix]:
        if len(linears) == 2:
            return [self._matrix(linear) for linear in linears]
        weights = linears[0].weight.detach().chunk(2)
        bias = join_biases(linears)
        biases = (None, None) if bias is None else bias.chunk(2)
        return [self._numbers(*pair) for pair in zip(weights, biases, strict=True)]

    def _numbers(self, weight: Tensor, bias: Tensor | None) -> _Matrix:
        """What the engine takes: bfloat16 as its bits."""
        if self._int8:
            return (*quantise_rows(weight), bias)
        if weight.dtype == torch.bfloat16:
            weight = weight.view(torch.int16)
        return weight.contiguous(), None, bias


def _norm(module: nn.Module | None) -> tuple[Tensor, float] | None:
    numbers = None if module is None else norm_numbers(module)
    return None if numbers is None else (numbers[0].float().contiguous(), numbers[1])


def _activation(function: Any) -> int | None:
    """The engine's number of an activation."""
    name = type(function).__name__
    if name in ("SiLU", "SiLUActivation"):
        return _SILU
    if name in ("GELUTanh", "PytorchGELUTanh"):
        return _GELU_TANH
    gelu = isinstance(function, nn.GELU) and function.approximate == "tanh"
    return _GELU_TANH if gelu else None
