"""What a decoder layer does to the row of a new token outside attention, in PyTorch.

What: the residual stream of one token a sequence, carried from layer to layer by a flat list of
matrix products.
Source: weight-only quantisation by the largest value of each output row (Dettmers et al. 2022,
"LLM.int8()", section 2.1, without the outlier split: activations are not quantised).
Differs from the model's own forward: modules, hooks and keyword arguments are left out.
Cost: reads every weight once a token: 4, 2 or 1 byte each. Shapes: rows [B, hidden].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor, nn

from unspool.backends.decoder_parts import norm_numbers
from unspool.positions.rotation import Layout, rotate

if TYPE_CHECKING:
    from unspool.backends.decoder_parts import LayerParts, ModelParts

Weights = Literal["same", "int8"]
Product = Callable[[Tensor], Tensor]
QKV = tuple[Tensor, Tensor, Tensor]


class Rows(Protocol):
    """The residual stream of new tokens, one a sequence."""

    def begin(self, x: Tensor) -> None:
        """Take the embeddings [B, hidden] in."""

    def turn(self, cos: Tensor, sin: Tensor) -> None:
        """Rotate queries and keys by angles [pairs] from here on; not at all if there are none."""

    def before(self, layer: int, dtype: torch.dtype) -> QKV:
        """Queries, keys and values [B, H, 1, D] of a layer, in memory of their own."""

    def after(self, layer: int, attended: Tensor) -> None:
        """Go on with what attention gave, [B, Hq, 1, D]."""

    def logits(self) -> Tensor:
        """[B, V] after the last layer."""


@dataclass(frozen=True, slots=True)
class _Layer:
    before: Product
    qkv: Product
    query_norm: Product | None
    key_norm: Product | None
    out: Product
    after_attention: Product | None
    middle: Product
    gate_up: Product
    activate: Product
    down: Product
    after_mlp: Product | None


class TorchRows:
    """On any device, for any norm and activation."""

    def __init__(self, parts: ModelParts, weights: Weights, layout: Layout, *, fuse: bool) -> None:
        """Prepare the products.

        Args:
            parts: Of the model.
            weights: "same", or "int8" (a copy in 8 bits).
            layout: Which dimensions of a head form a pair.
            fuse: Copy weights that read the same row side by side, for one product of theirs.
        """
        facts = parts.facts
        # The 8-bit product of PyTorch is fast for half-precision rows only.
        self._dtype = torch.bfloat16 if weights == "int8" else facts.dtype
        self._sizes = [facts.num_heads, facts.num_kv_heads, facts.num_kv_heads]
        self._head_dim, self._layout = facts.head_dim, layout
        self._int8, self._fuse = weights == "int8", fuse
        self._layers = [self._prepare(layer) for layer in parts.layers]
        self._final, self._head = self._norm(parts.final), self._product([parts.head])
        self._x = torch.empty(0)
        self._cos = self._sin = torch.empty(0)

    def begin(self, x: Tensor) -> None:
        self._x = x.to(self._dtype)

    def turn(self, cos: Tensor, sin: Tensor) -> None:
        self._cos, self._sin = cos, sin

    def before(self, layer: int, dtype: torch.dtype) -> QKV:
        part = self._layers[layer]
        heads = part.qkv(part.before(self._x)).view(self._x.shape[0], -1, 1, self._head_dim)
        q, k, v = torch.split(heads, self._sizes, dim=1)
        if part.query_norm is not None and part.key_norm is not None:
            q, k = part.query_norm(q), part.key_norm(k)
        if self._cos.numel():
            q, k = (rotate(x, self._cos, self._sin, self._layout) for x in (q, k))
        return q.to(dtype), k.to(dtype), v.to(dtype)

    def after(self, layer: int, attended: Tensor) -> None:
        part = self._layers[layer]
        out = part.out(attended.to(self._dtype).reshape(self._x.shape[0], -1))
        if part.after_attention is not None:
            out = part.after_attention(out)
        x = self._x + out
        gate, up = part.gate_up(part.middle(x)).chunk(2, dim=-1)
        out = part.down(part.activate(gate) * up)
        if part.after_mlp is not None:
            out = part.after_mlp(out)
        self._x = x + out

    def logits(self) -> Tensor:
        return self._head(self._final(self._x))

    def _prepare(self, layer: LayerParts) -> _Layer:
        return _Layer(
            before=self._norm(layer.before),
            qkv=self._product(layer.qkv),
            query_norm=None if layer.query_norm is None else self._norm(layer.query_norm),
            key_norm=None if layer.key_norm is None else self._norm(layer.key_norm),
            out=self._product([layer.out]),
            after_attention=self._norm_or_none(layer.after_attention),
            middle=self._norm(layer.middle),
            gate_up=self._product(layer.gate_up),
            activate=layer.activate,
            down=self._product([layer.down]),
            after_mlp=self._norm_or_none(layer.after_mlp),
        )

    def _norm_or_none(self, module: nn.Module | None) -> Product | None:
        return None if module is None else self._norm(module)

    def _norm(self, module: nn.Module) -> Product:
        """A root-mean-square norm as one fused call; anything else as it is."""
        numbers = norm_numbers(module)
        if numbers is None:
            return lambda x: module(x)
        weight, eps = numbers
        scale, size = weight.to(self._dtype), weight.shape
        return lambda x: nn.functional.rms_norm(x, size, scale, eps)

    def _product(self, linears: list[nn.Linear]) -> Product:
        """x -> x W^T + b of several linear layers side by side, [B, in] to [B, out]."""
        if self._int8:
            return _int8_product(linears, self._dtype)
        weights = [linear.weight.detach() for linear in linears]
        biases = [None if linear.bias is None else linear.bias.detach() for linear in linears]
        pairs = list(zip(weights, biases, strict=True))
        if len(pairs) == 1:
            return lambda x: nn.functional.linear(x, *pairs[0])
        if not self._fuse:
            return lambda x: torch.cat([nn.functional.linear(x, *pair) for pair in pairs], dim=-1)
        weight, bias = torch.cat(weights), join_biases(linears)
        bias = None if bias is None else bias.to(self._dtype)
        return lambda x: nn.functional.linear(x, weight, bias)


def quantise_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """8-bit codes [out, in] of a weight, and the float32 scale of each row."""
    wide = weight.detach().float()
    scale = (wide.abs().amax(dim=1) / 127).clamp(min=1e-12)
    return torch.round(wide / scale[:, None]).to(torch.int8), scale


def join_biases(linears: list[nn.Linear]) -> Tensor | None:
    """Biases side by side in float32, 0 where there is none; None if none has one."""
    if all(linear.bias is None for linear in linears):
        return None
    return torch.cat(
        [
            linear.weight.new_zeros(linear.out_features, dtype=torch.float32)
            if linear.bias is None
            else linear.bias.detach().float()
            for linear in linears
        ]
    )


def _int8_product(linears: list[nn.Linear], dtype: torch.dtype) -> Product:
    rows = [quantise_rows(linear.weight) for linear in linears]
    codes = torch.cat([codes for codes, _ in rows])
    scale = torch.cat([scale for _, scale in rows]).to(dtype)
    bias = join_biases(linears)
    if bias is None:
        return lambda x: torch._weight_int8pack_mm(x, codes, scale)
    added = bias.to(dtype)
    return lambda x: torch._weight_int8pack_mm(x, codes, scale) + added
