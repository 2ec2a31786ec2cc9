"""One written token through a decoder with as little as possible around the arithmetic.

What: runs the layers of a Llama-like model for a single new token a sequence, over the same stores
and mechanisms that `extend` installed; optionally with weights in 8 bits.
Source: as `decoder_rows`, which holds the arithmetic; `native_rows` does it in the native engine,
where that knows every part of the model.
Differs from the model's own forward: modules, hooks and keyword arguments are left out. What the
step computes is tried against the model when it is made, and a model it does not reproduce is
refused.
Cost: reads every weight once a token: 4, 2 or 1 byte each. Shapes: ids [B, 1] to logits [B, 1, V].
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unspool.backends.decoder_parts import ModelParts, read_parts
from unspool.backends.decoder_rows import Rows, TorchRows, Weights
from unspool.errors import ConfigError, Unsupported

if TYPE_CHECKING:
    from unspool.caches.cache import UnspoolCache
    from unspool.extension import Extension


class DecodeStep:
    """Logits of one new token for every sequence of a cache. Made by `Extension`."""

    def __init__(
        self,
        extension: Extension,
        weights: Weights = "same",
        *,
        native: bool | None = None,
        fuse: bool = True,
    ) -> None:
        """Find the parts of an extended model, and prepare (or quantise) its weights.

        Args:
            extension: Of the model.
            weights: "same" or "int8".
            native: Through the native engine or not; None: where it can.
            fuse: See `TorchRows`.

        Raises:
            Unsupported: The model's layers have parts that the step does not know.
            ConfigError: `weights` is neither "same" nor "int8", or the native engine was asked for
                and can't run the model.
        """
        if weights not in ("same", "int8"):
            raise ConfigError(f"weights must be 'same' or 'int8', got {weights!r}.")
        self.extension = extension
        self.weights = weights
        facts = extension.facts
        self._parts = parts = read_parts(extension.model, facts)
        self._layout = next(iter(facts.rotations.values())).layout if facts.rotations else "half"
        reason = _why_not_native(parts)
        if native and reason is not None:
            raise ConfigError(f"The native decode step can't run {facts.name}: {reason}.")
        self.native = reason is None if native is None else native
        self._rows: Rows
        if self.native:
            from unspool.backends.native_rows import NativeRows

            self._rows = NativeRows(parts, weights, self._layout)
        else:
            self._rows = TorchRows(parts, weights, self._layout, fuse=fuse)
        self._lock = threading.Lock()

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
        with self._lock:  # the rows are one place for all callers
            return self._step(ids, cache)[:, None].to(self.extension.facts.dtype)

    def _step(self, ids: Tensor, cache: UnspoolCache) -> Tensor:
        from unspool._dispatch import run_layer

        rows = self._rows
        x = self._parts.embed(ids)[:, 0]
        rows.begin(x)
        position = torch.full((1, 1), cache.get_seq_length(), device=ids.device)
        angles: dict[str, tuple[Tensor, Tensor]] = {}
        turned = ""
        for layer in self._parts.layers:
            if layer.kind != turned:
                turned = layer.kind
                if turned not in angles:
                    angles[turned] = self._angles(turned, x, position)
                rows.turn(*angles[turned])
            store: Any = cache.layers[layer.number]
            q, k, v = rows.before(layer.number, store.dtype)
            plan = self.extension.plan_of(layer.number)
            out = run_layer(plan, store, cache, q, k, v, layer.scale, layer.window)
            rows.after(layer.number, out)
        return rows.logits()

    def _angles(self, kind: str, x: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin [1, 1, 1, rotary/2] of the new position; empty where rotation is late."""
        rotary = self._parts.rotary
        if self.extension.is_late(kind) or rotary is None:
            return x.new_empty(0), x.new_empty(0)
        arguments = (kind,) if len(set(self.extension.facts.layer_types)) > 1 else ()
        cos, sin = rotary(x[:, None], position, *arguments)
        half = cos.shape[-1] // 2
        if self._layout == "half":
            return cos[:, None, :, :half], sin[:, None, :, :half]
        return cos[:, None, :, 0::2], sin[:, None, :, 0::2]


def routed(
    extension: Extension, weights: Weights, forward: Callable[..., Any]
) -> Callable[..., Any]:
    """A forward that sends single tokens through a `DecodeStep`, and all else to the model's own.

    Raises:
        Unsupported: The step cannot be made for this model, or does not reproduce it.
    """
    from transformers.modeling_outputs import CausalLMOutputWithPast

    step = make_step(extension, weights, forward)

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


def make_step(extension: Extension, weights: Weights, forward: Callable[..., Any]) -> DecodeStep:
    """A step that was compared with the model on a few tokens.

    The parts are tried with the weights as they are, so that one that is missing or misread cannot
    pass for rounding to 8 bits; what the rounding itself changes has a bound of its own.

    Raises:
        Unsupported: The logits differ by more than rounding.
    """
    facts = extension.facts
    exact = DecodeStep(extension, "same", fuse=weights == "same")
    half = facts.dtype in (torch.float16, torch.bfloat16)
    reference = _last_logits(exact, forward)
    if reference is not None:
        expected, found = reference
        _refuse_above(0.03 if half else 1e-4, found, expected, f"{facts.name} gives other logits "
                      f"through the decode step", "rounding")  # fmt: skip
    if weights == "same":
        return exact
    del exact
    step = DecodeStep(extension, weights)
    reference = _last_logits(step, forward)
    if reference is not None:
        # On random tokens 8 bits move logits by 0.01 (SmolLM2-135M) to 0.1 (Gemma-3-270M).
        _refuse_above(0.15, *reference[::-1], f"Weights in 8 bits change the logits of "
                      f"{facts.name} too much", "usual")  # fmt: skip
    return step


def _refuse_above(bound: float, found: Tensor, expected: Tensor, what: str, bounded: str) -> None:
    apart = float((found - expected).norm() / expected.norm())
    if not apart <= bound:
        raise Unsupported(
            f"{what} (relative difference {apart:.3g}, at most {bound:g} is {bounded}). Leave "
            f"weights out."
        )


def _last_logits(step: DecodeStep, forward: Callable[..., Any]) -> tuple[Tensor, Tensor] | None:
    """The model's logits after a few random tokens, and the step's; None where layers keep
    transformers' own cache and so take the model's own forward."""
    facts = step.extension.facts
    vocabulary = int(step.extension.model.get_input_embeddings().weight.shape[0])
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (1, 9), generator=generator).to(facts.device)
    caches = [step.extension.new_cache() for _ in range(2)]
    with torch.inference_mode():
        for cache in caches:
            forward(ids[:, :-1], past_key_values=cache, use_cache=True)
        if not step.supports(caches[0]):
            return None
        expected = forward(ids[:, -1:], past_key_values=caches[0], use_cache=True).logits.float()
        return expected, step(ids[:, -1:], caches[1]).float()


def _why_not_native(parts: ModelParts) -> str | None:
    try:
        from unspool.backends.native_rows import why_not_native
    except ImportError as error:  # an engine of another version
        return str(error)
    return why_not_native(parts)
