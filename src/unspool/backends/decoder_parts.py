"""The parts of a Llama-like decoder layer, found by name and handed on without a copy.

What: which modules of a layer make queries, keys and values, which come after attention, and what
its norms and activation compute.
Source: the layer classes of transformers (5.17 to 5.23).
Differs from running the modules: nothing is run here; a layer with a part that is not known is
refused, so that no part is left out.
Cost: nothing; weights are referred to. Shapes: weights [out, in].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from unspool.errors import Unsupported

if TYPE_CHECKING:
    from unspool._facts import ModelFacts

_GEMMA = {"pre_feedforward_layernorm", "post_feedforward_layernorm"}


@dataclass(frozen=True, slots=True)
class LayerParts:
    """Modules of one decoder layer."""

    number: int
    kind: str
    window: int | None
    scale: float
    before: nn.Module
    qkv: list[nn.Linear]
    query_norm: nn.Module | None
    key_norm: nn.Module | None
    out: nn.Linear
    after_attention: nn.Module | None
    middle: nn.Module
    gate_up: list[nn.Linear]
    """Two, or one whose first half of rows is the gate."""
    activate: Callable[[Tensor], Tensor]
    down: nn.Linear
    after_mlp: nn.Module | None


@dataclass(frozen=True, slots=True)
class ModelParts:
    """Modules of a decoder."""

    facts: ModelFacts
    embed: nn.Module
    rotary: Any
    layers: list[LayerParts]
    final: nn.Module
    head: nn.Linear


def read_parts(model: Any, facts: ModelFacts) -> ModelParts:
    """The parts of a model.

    Raises:
        Unsupported: The model's layers have parts that are not known.
    """
    body = getattr(model, "model", None)
    layers, final = getattr(body, "layers", None), getattr(body, "norm", None)
    head = model.get_output_embeddings()
    if not isinstance(layers, nn.ModuleList) or not isinstance(head, nn.Linear):
        raise Unsupported(f"{facts.name} has no plain list of layers to run step by step.")
    if final is None:
        raise Unsupported("The decode step needs a final norm, and this model has none.")
    return ModelParts(
        facts=facts,
        embed=model.get_input_embeddings(),
        rotary=getattr(body, "rotary_emb", None),
        layers=[_read(layer, number, facts) for number, layer in enumerate(layers)],
        final=final,
        head=plain_linear(head),
    )


def plain_linear(module: Any) -> nn.Linear:
    """The module, if it computes what its weight says.

    Raises:
        Unsupported: It is an adapter, a quantised layer or the like.
    """
    if type(module) is not nn.Linear:
        raise Unsupported(
            f"The decode step takes plain linear layers, and this model has "
            f"{type(module).__name__}."
        )
    return module


def norm_numbers(module: nn.Module) -> tuple[Tensor, float] | None:
    """Weight and epsilon of a root-mean-square norm; None for a norm of another kind."""
    weight: Any = getattr(module, "weight", None)
    eps: Any = getattr(module, "variance_epsilon", None)
    name = type(module).__name__
    if weight is None:
        return None
    if name.endswith("RMSNorm") and eps is not None:
        return weight.detach(), float(eps)
    small: Any = getattr(module, "eps", None)
    if name.startswith("Gemma") and small is not None:
        return 1.0 + weight.detach().float(), float(small)
    return None


def _read(layer: Any, number: int, facts: ModelFacts) -> LayerParts:
    names = {name for name, part in layer.named_children() if not isinstance(part, nn.Dropout)}
    attention, mlp = getattr(layer, "self_attn", None), getattr(layer, "mlp", None)
    known = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"} | _GEMMA
    if attention is None or mlp is None or names - known:
        raise Unsupported(
            f"{facts.name}: layer {number} has {', '.join(sorted(names - known)) or names}, "
            f"which the decode step does not know."
        )
    middle, after_attention, after_mlp = layer.post_attention_layernorm, None, None
    if names >= _GEMMA:
        middle = layer.pre_feedforward_layernorm
        after_attention = layer.post_attention_layernorm
        after_mlp = layer.post_feedforward_layernorm
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
        out, down = attention.o_proj, mlp.down_proj
    except AttributeError as error:
        raise Unsupported(f"{facts.name}: layer {number}: {error}.") from error
    sliding = facts.layer_types[number] == "sliding_attention"
    return LayerParts(
        number=number,
        kind=facts.layer_types[number],
        window=facts.sliding_window if sliding else None,
        scale=scale,
        before=layer.input_layernorm,
        qkv=[plain_linear(x) for x in qkv],
        query_norm=getattr(attention, "q_norm", None),
        key_norm=getattr(attention, "k_norm", None),
        out=plain_linear(out),
        after_attention=after_attention,
        middle=middle,
        gate_up=[plain_linear(x) for x in gate_up],
        activate=activate,
        down=plain_linear(down),
        after_mlp=after_mlp,
    )
