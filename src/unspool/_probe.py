"""Try a model on a few tokens before it is changed: what calls attention, and how it rotates.

Dense attention through this project's function, with keys rotated early and late, has to give the
stock logits; a model that fails is refused with what failed.
"""

from __future__ import annotations

import contextlib
import weakref
from typing import TYPE_CHECKING, Any

from unspool._dispatch import NAME, LayerPlan, discover, forget, plan_layer
from unspool.attention.dense import Dense
from unspool.errors import ConfigError
from unspool.positions.rotation import Rotation

if TYPE_CHECKING:
    from torch import Tensor, nn

    from unspool._facts import ModelFacts
    from unspool.positions.rotation import Layout

_layouts: weakref.WeakKeyDictionary[Any, Layout | None] = weakref.WeakKeyDictionary()
_PROBE_TOKENS = 11


def use_function(
    model: Any, facts: ModelFacts, undo: contextlib.ExitStack
) -> tuple[dict[nn.Module, int], Tensor]:
    """Select the registered function; the modules that call it, and the probe's logits."""
    from transformers import PreTrainedModel

    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}
    for config in configs.values():
        if hasattr(config, "_attn_implementation_internal"):
            before = config._attn_implementation_internal
            # The attribute behind the property: setting the property would check the name anew.
            undo.callback(setattr, config, "_attn_implementation_internal", before)
    if not isinstance(model, PreTrainedModel):
        raise ConfigError(f"{type(model).__name__} is not a transformers model.")
    model.set_attn_implementation(NAME)
    modules, logits = discover(lambda: forward_probe(model, facts))
    if not modules:
        raise ConfigError(
            f"{facts.name} never calls transformers' AttentionInterface, so no method "
            f"can be plugged in. Prompt methods through the LanguageModel still work."
        )
    return modules, logits


def forward_probe(model: Any, facts: ModelFacts) -> Tensor:
    """Logits of a few tokens, without a cache."""
    import torch

    if facts.device.type == "meta":
        raise ConfigError(
            f"{facts.name} has shapes and no weights: it is on the device 'meta'. Load its weights "
            f"first, as from_pretrained does."
        )
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (1, _PROBE_TOKENS), generator=generator)
    flags = [(m, m.training) for m in model.modules()]
    try:
        model.eval()
        # Rounding to half under autocast would hide what the comparison is about.
        with torch.no_grad(), torch.autocast(facts.device.type, enabled=False):
            logits: Tensor = model(ids.to(facts.device), use_cache=False).logits
            return logits.float()
    finally:
        for module, training in flags:
            module.training = training


def find_layout(model: Any, facts: ModelFacts) -> Layout | None:
    """Try the model on a few tokens: the pair layout of its rotation; None: it cannot be late.

    Raises:
        ConfigError: Dense attention through our function differs from the stock model.
    """
    import torch

    if model in _layouts:
        return _layouts[model]
    stock = forward_probe(model, facts)
    worst = 0.02 if facts.dtype in (torch.bfloat16, torch.float16) else 1e-4
    bound = worst * max(1.0, float(stock.abs().max()))
    with contextlib.ExitStack() as undo:
        modules, logits = use_function(model, facts, undo)
        apart = float((logits - stock).abs().max())
        if not apart <= bound:
            raise ConfigError(
                f"{facts.name} gives other logits through extend()'s attention function "
                f"(apart by {apart:.3g}, at most {bound:.3g} is rounding): unsupported."
            )
        layout = _try_layouts(model, facts, modules, stock, bound)
    _layouts[model] = layout
    return layout


def _try_layouts(
    model: Any, facts: ModelFacts, modules: dict[nn.Module, int], stock: Tensor, bound: float
) -> Layout | None:
    from unspool.positions.hook import RotaryHook

    kinds = facts.layer_types
    if not all(kind in facts.rotations for kind in kinds):
        return None
    layouts: tuple[Layout, ...] = ("half", "interleaved")
    for layout in layouts:
        with contextlib.ExitStack() as undo:
            for module, number in modules.items():
                rotation = facts.rotations[kinds[number]]
                own = Rotation(rotation.inv_freq, rotation.factor, layout)
                plan = LayerPlan(layer=number, attend=Dense(late=True), rotation=own)
                for handle in plan_layer(module, plan):
                    undo.callback(handle.remove)
                undo.callback(forget, module)
            hook = RotaryHook(late=frozenset(kinds), frequencies={}, only=set(kinds))
            for module in facts.rotary_modules:
                undo.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
            if float((forward_probe(model, facts) - stock).abs().max()) <= bound:
                return layout
    return None
