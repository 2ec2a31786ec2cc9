"""The one attention function that this project registers with transformers, and its mask function.

What: builds a `Call` from what a module hands over, meets the store's mark, gives the chunk its
positions and runs the layer's mechanism.
Source: transformers' AttentionInterface and AttentionMaskInterface (5.17 to 5.23).
Differs from the built-in functions: the cache reaches the function through a forward pre-hook that
finds it by type, per thread; the mask is the 2D padding mask over everything seen and new.
Cost: nothing beside the mechanism; positions of padded batches are summed once a forward.
Shapes: q [B, Hq, T, D], k and v [B, Hkv, T|S, D]; the function returns [B, T, Hq, Dv].
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.masking_utils import sdpa_mask

from unspool._packed import KEY as PACKED
from unspool._packed import packed_attention, packed_now
from unspool.attention.call import Attend, Call
from unspool.attention.dense import Dense
from unspool.attention.kernel import of_one_type
from unspool.attention.spec import Spec
from unspool.caches.base import KV, Store
from unspool.caches.cache import UnspoolCache
from unspool.errors import ConfigError, UnspoolError
from unspool.positions.rotation import Rotation

NAME = "unspool"


@dataclass(eq=False)
class LayerPlan:
    """What one layer does, resolved at install."""

    layer: int
    attend: Attend = field(default_factory=Dense)
    rotation: Rotation | None = None
    """Set when the model's own rotation of this layer is switched off."""
    rotate_at_entry: bool = False
    """Rotate q and k before they are stored: the mechanism itself is not late."""
    frequency: Callable[[int], tuple[Tensor, float]] | None = None
    """Inverse frequencies and factor by length, when they change while generating."""
    scales: Sequence[Callable[[Tensor], Tensor]] = ()
    needs_store: bool = False
    """A foreign cache is refused."""
    learned: nn.Module | None = None
    """What was trained of this layer, out of `Extension.module`."""
    seed: int = 0


@dataclass
class _Frame:
    module: nn.Module
    cache: Any
    layer: Any


class _Borrowed:
    """A foreign cache layer's keys and values, for mechanisms that only read segments."""

    def __init__(self, kv: KV) -> None:
        self._kv = kv

    def segments(self) -> Sequence[KV]:
        return (self._kv,)


class _Local(threading.local):
    def __init__(self) -> None:
        self.frames: list[_Frame] = []
        self.discovered: dict[nn.Module, int] | None = None
        self.memo: tuple[Any, Tensor] | None = None
        self.tap: Callable[[Call], None] | None = None


_local = _Local()
_plans: weakref.WeakKeyDictionary[nn.Module, LayerPlan] = weakref.WeakKeyDictionary()
_registered = False


def register() -> None:
    """Make `unspool` known to transformers, function and mask function together."""
    global _registered
    if not _registered:
        AttentionInterface.register(NAME, unspool_attention)
        AttentionMaskInterface.register(NAME, unspool_mask)
        _registered = True


def discover(run: Callable[[], Tensor]) -> tuple[dict[nn.Module, int], Tensor]:
    """The attention modules that call the function while `run` runs, with their layer numbers, and
    what it returned; they attend densely, without a cache."""
    _local.discovered = {}
    try:
        result = run()
        return _local.discovered, result
    finally:
        _local.discovered = None


@contextmanager
def tapped(see: Callable[[Call], None]) -> Iterator[None]:
    """Show every attention call of this thread to a function, before the mechanism runs."""
    before, _local.tap = _local.tap, see
    try:
        yield
    finally:
        _local.tap = before


def plan_layer(module: nn.Module, plan: LayerPlan) -> list[Any]:
    """Give a module its plan and its hooks; the handles undo the hooks."""
    _plans[module] = plan
    before = module.register_forward_pre_hook(_enter, with_kwargs=True)
    after = module.register_forward_hook(_leave, always_call=True)
    return [before, after]


def forget(module: nn.Module) -> None:
    """Take a module's plan away."""
    _plans.pop(module, None)


def _enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    cache = next((x for x in (*args, *kwargs.values()) if isinstance(x, Cache)), None)
    if isinstance(cache, EncoderDecoderCache):
        cache = cache.self_attention_cache
    layer = None
    number = _plans[module].layer
    if cache is not None and number < len(cache.layers):
        layer = cache.layers[number]
    _local.frames.append(_Frame(module, cache, layer))


def _leave(module: nn.Module, args: Any, output: Any) -> None:
    # Unwind to this module's frame: an exception may have left inner ones behind.
    while _local.frames:
        frame = _local.frames.pop()
        if frame.module is module:
            break


def unspool_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Any = None,
    attention_mask: Tensor | None = None,
    allow_is_causal_skip: bool = True,
    **kwargs: Any,
) -> Tensor | None:
    """The 2D padding mask [B, seen + new], None without padding; a 4D bool mask for patterns that
    are more than causal or sliding (packing, prefixes, image blocks)."""
    if not allow_is_causal_skip and q_length > 1:
        options = {} if mask_function is None else {"mask_function": mask_function}
        kwargs.pop("allow_is_bidirectional_skip", None)
        mask: Tensor | None = sdpa_mask(
            batch_size=batch_size,
            q_length=q_length,
            kv_length=kv_length,
            q_offset=q_offset,
            kv_offset=kv_offset,
            attention_mask=attention_mask,
            allow_is_causal_skip=False,
            **options,
            **kwargs,
        )
        return mask
    if attention_mask is None or bool(attention_mask.all()):
        return None
    return attention_mask.bool()


def unspool_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    position_bias: Tensor | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend as the layer's plan says, or inside the sentences of a packed row."""
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    window = sliding_window if isinstance(sliding_window, int) and sliding_window > 0 else None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    query, key, value = of_one_type(query, key, value)
    row = kwargs.get(PACKED) or packed_now()
    if row is not None and softcap is None and s_aux is None:
        rule = (scale, causal, window, dropout, position_bias)
        return packed_attention(module, row, query, key, value, *rule), None
    for name, given in (("position_bias", position_bias), ("s_aux", s_aux)):
        if given is not None:
            raise ConfigError(f"{type(module).__name__} asks for {name}, which extend() lacks.")
    if dropout:
        raise ConfigError(
            f"{type(module).__name__} asks for attention dropout {dropout}; set "
            f"attention_dropout=0 in its configuration."
        )
    if _local.discovered is not None:
        _local.discovered[module] = int(getattr(module, "layer_idx", len(_local.discovered)))
    plan = _plans.get(module)
    if plan is None and _local.discovered is None:
        raise ConfigError(
            f"The attention function {NAME!r} belongs to extended models, and this "
            f"{type(module).__name__} is of none. Use extend(model, method)."
        )
    plan = plan or LayerPlan(layer=-1)
    if softcap is not None and not getattr(plan.attend, "softcaps", False):
        raise ConfigError(
            f"{type(module).__name__} asks for softcap, which the mechanism of layer {plan.layer} "
            f"lacks. Dense attention and methods that choose blocks (hip) have it."
        )
    frame = _local.frames[-1] if _local.frames else None
    if frame is not None and frame.module is not module:
        raise UnspoolError(
            f"{type(module).__name__} called the attention function inside "
            f"{type(frame.module).__name__}; extend() cannot tell their caches apart."
        )
    cache = frame.cache if frame is not None else None
    layer = frame.layer if frame is not None else None
    start = _seen_before(plan, module, cache, layer, query.shape[2])
    explicit, everywhere = _split_mask(attention_mask, start + query.shape[2])
    spec = Spec(
        causal=causal and explicit is None, window=window, mask=explicit, softcap=softcap or None
    )
    training = module.training and not isinstance(layer, Store)
    call = _call(plan, layer, cache, (query, key, value), everywhere, start, spec, scale, training)
    return _attend(plan, call, layer, cache).transpose(1, 2), None


def run_layer(
    plan: LayerPlan,
    store: Store,
    cache: Any,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    window: int | None = None,
) -> Tensor:
    """One causal layer over unpadded tokens, called by what runs a model without its modules.

    Args:
        plan: Of the layer.
        store: Of the layer; the chunk is stored in it.
        cache: That holds the store.
        q: [B, Hq, T, D], raw if the plan rotates, else rotated.
        k: [B, Hkv, T, D], as q.
        v: [B, Hkv, T, Dv].
        scale: Factor on the scores.
        window: Of a sliding layer.

    Returns:
        [B, Hq, T, Dv].
    """
    store.update(k, v)
    store.meet()
    start = store.seen - q.shape[2]
    spec = Spec(window=window)
    call = _call(plan, store, cache, (q, k, v), None, start, spec, scale, False)
    return _attend(plan, call, store, cache)


def _attend(plan: LayerPlan, call: Call, layer: Any, cache: Any) -> Tensor:
    """Run the mechanism, let the store evict, and end the prefill where it was told to end."""
    if _local.tap is not None:
        _local.tap(call)
    out = plan.attend(call)
    if isinstance(layer, Store):
        layer.settle()
        end = cache.prefill_end if isinstance(cache, UnspoolCache) else None
        if end is not None and layer.seen >= end and layer.prefilled_to != end:
            layer.prefilled_to = end
            layer.finish_prefill()
    return out


def _seen_before(plan: LayerPlan, module: nn.Module, cache: Any, layer: Any, new: int) -> int:
    """Tokens that the layer has seen before this chunk; meets the store's mark."""
    if isinstance(layer, Store):
        if layer.meet() is None:
            raise UnspoolError(
                f"Layer {plan.layer} of {type(module).__name__} attends without having stored its "
                f"chunk: this architecture does not update its cache before attending."
            )
        return layer.seen - new
    if cache is None:
        return 0
    if plan.needs_store:
        raise ConfigError(
            f"Layer {plan.layer} needs its own store, and was given a {type(cache).__name__}. "
            f"Pass past_key_values=ext.new_cache()."
        )
    return int(cache.get_seq_length(plan.layer)) - new


def _call(
    plan: LayerPlan,
    layer: Any,
    cache: Any,
    qkv: tuple[Tensor, Tensor, Tensor],
    everywhere: Tensor | None,
    start: int,
    spec: Spec,
    scale: float,
    training: bool,
) -> Call:
    """Give a chunk its positions and its rotation, store it, and describe the call."""
    q, k, v = qkv
    new = q.shape[2]
    total = start + new
    positions = None if everywhere is None else everywhere[:, start:]
    rotation = plan.rotation
    if plan.frequency is not None:
        rotation = Rotation(*plan.frequency(total), rotation.layout if rotation else "half")
    if plan.rotate_at_entry and rotation is not None:
        at = start if positions is None else positions
        q, k = rotation(q, at), rotation(k, at)
    if plan.scales:
        seen = torch.arange(start + 1, total + 1, device=q.device)[None]
        seen = seen if positions is None else positions.clamp(min=0) + 1
        for factor in plan.scales:
            q = q * factor(seen)[:, None, :, None].to(q.dtype)
    if positions is not None and k.shape[2] == new:
        padded = (positions < 0)[:, None, :, None]
        k, v = k.masked_fill(padded, 0), v.masked_fill(padded, 0)
    late = rotation is not None and not plan.rotate_at_entry
    view: Any = None
    if isinstance(layer, Store):
        layer.padded = layer.padded or positions is not None
        layer.append(KV(k, v, positions, start, rotated=not late))
        if not late:
            layer.observe(q)
        view = layer
    elif layer is not None:  # transformers' own layer: keys right-aligned
        first = total - k.shape[2]
        where = None if everywhere is None else everywhere[:, first:]
        if where is not None:
            hidden = (where < 0)[:, None, :, None]
            k, v = k.masked_fill(hidden, 0), v.masked_fill(hidden, 0)
        view = _Borrowed(KV(k, v, where, first, rotated=not late))
    end = getattr(cache, "prefill_end", None)
    return Call(
        q=q,
        k=k[:, :, -new:],
        v=v[:, :, -new:],
        positions=positions,
        start=start,
        spec=spec,
        rotate=rotation if rotation is not None else _no_rotation,
        store=view,
        phase="train" if training else "decode" if new == 1 else "prefill",
        layer=plan.layer,
        scale=scale,
        seed=plan.seed,
        learned=plan.learned,
        answers=new == 1 if end is None else total >= end,
    )


def _split_mask(mask: Tensor | None, total: int) -> tuple[Tensor | None, Tensor | None]:
    """(explicit 4D bool mask, positions [B, total] with -1 at padding); either may be None."""
    if mask is None:
        return None, None
    if mask.ndim == 4:
        return (mask if mask.dtype == torch.bool else mask >= 0), None
    if mask.shape[1] != total:
        raise ConfigError(
            f"attention_mask covers {mask.shape[1]:,} tokens, but {total:,} were seen, the new "
            f"ones included. Pass a mask over all of them, or none."
        )
    memo = _local.memo
    if memo is not None and memo[0] is mask:
        return None, memo[1]
    positions = (mask.long().cumsum(1) - 1).masked_fill(~mask.bool(), -1)
    _local.memo = (mask, positions)
    return None, positions


def _no_rotation(x: Tensor, positions: Tensor | int) -> Tensor:
    return x
