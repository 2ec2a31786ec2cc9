"""One written token through a decoder with as little as possible around the arithmetic.

What: runs the layers of a Llama-like model for a single new token as a flat list of fused matrix
products, over the same stores and mechanisms that `extend` installed; optionally with weights in
8 bits.
Source: weight-only quantisation by the largest value of each output row (Dettmers et al. 2022,
"LLM.int8()", section 2.1, without the outlier split: activations are not quantised).
Differs from the model's own forward: query, key and value are one product, gate and up another;
modules, hooks and keyword arguments are left out. What the step computes is tried against the model
when it is made, and a model it does not reproduce is refused.
Cost: reads every weight once a token: 4, 2 or 1 byte each. Shapes: ids [B, 1] to logits [B, 1, V].
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from unspool.errors import ConfigError, Unsupported
from unspool.positions.rotation import rotate

if TYPE_CHECKING:
    from unspool.caches.cache import UnspoolCache
    from unspool.extension import Extension

Weights = Literal["same", "int8"]
Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class _Layer:
    """One decoder layer as functions of a row."""

    number: int
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
    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    kind: str
    window: int | None


class DecodeStep:
    """Logits of one new token for every sequence of a cache. Made by `Extension`."""

    def __init__(self, extension: Extension, weights: Weights = "same") -> None:
        """Fuse (and quantise) the weights of an extended model.

        Raises:
            Unsupported: The model's layers have parts that the step does not know.
            ConfigError: `weights` is neither "same" nor "int8".
        """
        if weights not in ("same", "int8"):
            raise ConfigError(f"weights must be 'same' or 'int8', got {weights!r}.")
        self.extension = extension
        self.weights = weights
        facts = extension.facts
        model = extension.model
        body = getattr(model, "model", None)
        layers = getattr(body, "layers", None)
        head = model.get_output_embeddings()
        if not isinstance(layers, nn.ModuleList) or not isinstance(head, nn.Linear):
            raise Unsupported(f"{facts.name} has no plain list of layers to run step by step.")
        quantised = weights == "int8"
        # The 8-bit product of PyTorch is fast for half-precision rows only.
        self.dtype = torch.bfloat16 if quantised else facts.dtype
        self._embed = model.get_input_embeddings()
        self._rotary = getattr(body, "rotary_emb", None)
        self._layout = next(iter(facts.rotations.values())).layout if facts.rotations else "half"
        self._final = _norm(getattr(body, "norm", None), self.dtype)
        self._head = _product([head], quantised, self.dtype)
        self._layers = [self._read(layer, number, quantised) for number, layer in enumerate(layers)]

    def supports(self, cache: Any) -> bool:
        """Whether every layer of a cache is a store of this project, filled without padding."""
        from unspool.caches.base import Store
        from unspool.caches.cache import UnspoolCache

        return isinstance(cache, UnspoolCache) and all(
            isinstance(layer, Store) and layer.is_initialized and not layer.padded
            for layer in cache.layers
        )

    @torch.inference_mode()
    def __call__(self, ids: Tensor, cache: UnspoolCache) -> Tensor:
        """Read one token a sequence, [B, 1], and give the logits [B, 1, V] after it."""
        from unspool._dispatch import run_layer

        x = self._embed(ids)[:, 0].to(self.dtype)
        position = torch.full((1, 1), cache.get_seq_length(), device=ids.device)
        turned: dict[str, tuple[Tensor, Tensor]] = {}
        batch = x.shape[0]
        for layer in self._layers:
            h = layer.qkv(layer.before(x))
            heads = h.view(batch, -1, 1, layer.head_dim)
            sizes = [layer.num_heads, layer.num_kv_heads, layer.num_kv_heads]
            q, k, v = torch.split(heads, sizes, dim=1)
            if layer.query_norm is not None and layer.key_norm is not None:
                q, k = layer.query_norm(q), layer.key_norm(k)
            if layer.kind not in turned:
                turned[layer.kind] = self._angles(layer.kind, x, position)
            cos, sin = turned[layer.kind]
            store: Any = cache.layers[layer.number]
            dtype = store.dtype
            if cos.numel():
                q, k = rotate(q, cos, sin, self._layout), rotate(k, cos, sin, self._layout)
            out = run_layer(
                self.extension.plan_of(layer.number),
                store,
                cache,
                q.to(dtype),
                k.to(dtype),
                v.to(dtype),
                layer.scale,
                layer.window,
            )
            out = layer.out(out.to(self.dtype).reshape(batch, -1))
            if layer.after_attention is not None:
                out = layer.after_attention(out)
            x = x + out
            gate, up = layer.gate_up(layer.middle(x)).chunk(2, dim=-1)
            out = layer.down(layer.activate(gate) * up)
            if layer.after_mlp is not None:
                out = layer.after_mlp(out)
            x = x + out
        return self._head(self._final(x))[:, None].to(self.extension.facts.dtype)

    def _angles(self, kind: str, x: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin [1, 1, 1, rotary/2] of the new position; empty where rotation is late."""
        if self.extension.is_late(kind) or self._rotary is None:
            return x.new_empty(0), x.new_empty(0)
        arguments = (kind,) if len(set(self.extension.facts.layer_types)) > 1 else ()
        cos, sin = self._rotary(x[:, None], position, *arguments)
        half = cos.shape[-1] // 2
        if self._layout == "half":
            return cos[:, None, :, :half], sin[:, None, :, :half]
        return cos[:, None, :, 0::2], sin[:, None, :, 0::2]

    def _read(self, layer: nn.Module, number: int, quantised: bool) -> _Layer:
        facts = self.extension.facts
        parts = layer.named_children()
        names = {name for name, part in parts if not isinstance(part, nn.Dropout)}
        attention, mlp = getattr(layer, "self_attn", None), getattr(layer, "mlp", None)
        gemma = {"pre_feedforward_layernorm", "post_feedforward_layernorm"}
        known = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"} | gemma
        if attention is None or mlp is None or names - known:
            raise Unsupported(
                f"{facts.name}: layer {number} has {', '.join(sorted(names - known)) or names}, "
                f"which the decode step does not know."
            )
        middle, after_attention, after_mlp = layer.post_attention_layernorm, None, None
        if gemma <= names:
            middle = layer.pre_feedforward_layernorm
            after_attention = _norm(layer.post_attention_layernorm, self.dtype)
            after_mlp = _norm(layer.post_feedforward_layernorm, self.dtype)
        try:
            if hasattr(attention, "qkv_proj"):
                qkv = [attention.qkv_proj]
            else:
                qkv = [attention.q_proj, attention.k_proj, attention.v_proj]
            if hasattr(mlp, "gate_up_proj"):
                gate_up, activate = [mlp.gate_up_proj], mlp.activation_fn
            else:
                gate_up, activate = [mlp.gate_proj, mlp.up_proj], mlp.act_fn
            scale = float(attention.scaling)
        except AttributeError as error:
            raise Unsupported(f"{facts.name}: layer {number}: {error}.") from error
        sliding = facts.layer_types[number] == "sliding_attention"
        norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
        return _Layer(
            number=number,
            before=_norm(layer.input_layernorm, self.dtype),
            qkv=_product(qkv, quantised, self.dtype),
            query_norm=_norm(norms[0], self.dtype) if norms[0] is not None else None,
            key_norm=_norm(norms[1], self.dtype) if norms[1] is not None else None,
            out=_product([attention.o_proj], quantised, self.dtype),
            after_attention=after_attention,
            middle=_norm(middle, self.dtype),
            gate_up=_product(gate_up, quantised, self.dtype),
            activate=activate,
            down=_product([mlp.down_proj], quantised, self.dtype),
            after_mlp=after_mlp,
            num_heads=facts.num_heads,
            num_kv_heads=facts.num_kv_heads,
            head_dim=facts.head_dim,
            scale=scale,
            kind=facts.layer_types[number],
            window=facts.sliding_window if sliding else None,
        )


def routed(
    extension: Extension, weights: Weights, forward: Callable[..., Any]
) -> Callable[..., Any]:
    """A forward that sends single tokens through a `DecodeStep`, and all else to the model's own.

    Raises:
        Unsupported: The step cannot be made for this model, or does not reproduce it.
    """
    from transformers.modeling_outputs import CausalLMOutputWithPast

    step = DecodeStep(extension, weights)
    _try(step, forward)

    @functools.wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        ids = args[0] if args else kwargs.get("input_ids")
        cache, mask = kwargs.get("past_key_values"), kwargs.get("attention_mask")
        special = any(kwargs.get(name) is not None for name in ("inputs_embeds", "labels")) or any(
            kwargs.get(f"output_{name}") for name in ("attentions", "hidden_states")
        )
        plain = mask is None or (mask.ndim == 2 and bool(mask.all()))
        if ids is None or cache is None or ids.shape[1] != 1 or special or not plain:
            return forward(*args, **kwargs)
        if not step.supports(cache):
            return forward(*args, **kwargs)
        return CausalLMOutputWithPast(logits=step(ids, cache), past_key_values=cache)

    return run


def _try(step: DecodeStep, forward: Callable[..., Any]) -> None:
    """Compare the step with the model on a few tokens."""
    facts = step.extension.facts
    vocabulary = int(step.extension.model.get_input_embeddings().weight.shape[0])
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (1, 9), generator=generator).to(facts.device)
    caches = [step.extension.new_cache() for _ in range(2)]
    with torch.inference_mode():
        for cache in caches:
            forward(ids[:, :-1], past_key_values=cache, use_cache=True)
        if not step.supports(caches[0]):
            return  # layers that keep transformers' own cache take the model's own forward
        expected = forward(ids[:, -1:], past_key_values=caches[0], use_cache=True).logits.float()
        found = step(ids[:, -1:], caches[1]).float()
    apart = float((found - expected).norm() / expected.norm())
    half = facts.dtype in (torch.float16, torch.bfloat16)
    # Eight bits alone part random tokens by 0.01 (SmolLM2-135M) to 0.1 (Gemma-3-270M, whose step
    # with the same weights agrees to 2e-6); a part that is missing or misread, by far more.
    bound = 0.15 if step.weights == "int8" else 0.03 if half else 1e-4
    if not apart <= bound:
        raise Unsupported(
            f"{facts.name} gives other logits through the decode step (relative difference "
            f"{apart:.3g}, at most {bound:g} is rounding). Leave weights out."
        )


def _product(linears: list[Any], quantised: bool, dtype: torch.dtype) -> Product:
    """x -> x W^T + b of several linear layers side by side, [B, in] to [B, out]."""
    if not all(type(linear) is nn.Linear for linear in linears):
        kinds = ", ".join(type(linear).__name__ for linear in linears)
        raise Unsupported(f"The decode step takes plain linear layers, and this model has {kinds}.")
    weight = torch.cat([linear.weight.detach() for linear in linears])
    if len(linears) == 1:
        weight = linears[0].weight.detach()
    biases = [linear.bias for linear in linears]
    bias = None
    if any(b is not None for b in biases):
        parts = [
            torch.zeros(linear.out_features) if b is None else b.detach().cpu()
            for linear, b in zip(linears, biases, strict=True)
        ]
        bias = torch.cat([part.float() for part in parts]).to(weight.device, dtype)
    if not quantised:
        return lambda x: nn.functional.linear(x, weight, bias)
    scale = (weight.float().abs().amax(dim=1) / 127).clamp(min=1e-12)
    codes = torch.round(weight.float() / scale[:, None]).to(torch.int8)
    scale = scale.to(dtype)
    if bias is None:
        return lambda x: torch._weight_int8pack_mm(x, codes, scale)
    return lambda x: torch._weight_int8pack_mm(x, codes, scale) + bias


def _norm(module: Any, dtype: torch.dtype) -> Product:
    """A root-mean-square norm as one fused call; anything else as it is."""
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", None)
    name = type(module).__name__
    if name.endswith("RMSNorm") and weight is not None and eps is not None:
        scale, size = weight.detach().to(dtype), weight.shape
        return lambda x: nn.functional.rms_norm(x, size, scale, eps)
    if name.startswith("Gemma") and weight is not None and hasattr(module, "eps"):
        scale, size, small = (1.0 + weight.detach().float()).to(dtype), weight.shape, module.eps
        return lambda x: nn.functional.rms_norm(x, size, scale, small)
    if module is None:
        raise Unsupported("The decode step needs a final norm, and this model has none.")
    return lambda x: module(x)
