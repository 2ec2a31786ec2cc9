"""A transformers model that reads what a prompt shares with the last one only once.

What: prompts that begin alike, such as tests after the same demonstrations, keep the cache of their
common beginning; only the rest is read. Asked in an order that keeps such prompts together.
Source: prefix caching as in serving engines (vLLM, SGLang), for one prompt at a time.
Differs from reading anew: the beginning is read in another chunk than the rest, so numbers differ
in the last bits of the dtype; models whose cache cannot be cut (sliding windows, states) read anew.
Cost: keeps one cache; comparing prompts is linear in their tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from unspool.backends.transformers import TransformersModel
from unspool.errors import ConfigError
from unspool.types import Generation, Overflow, Prompt, Scored, Usage

if TYPE_CHECKING:
    import torch

LEAST = 32
"""Common tokens below which a prompt is read anew."""


class SharedPrefix(TransformersModel):
    """A loaded model with the cache of its last prompt; make it with `SharedPrefix.of(model)`."""

    _ids: list[int]
    _cache: Any
    reused: int
    """Tokens of the last prompt that were not read anew."""

    @classmethod
    def of(cls, model: Any) -> SharedPrefix:
        """The same model, sharing prefixes.

        Raises:
            ConfigError: The model is not a plain transformers model: an endpoint, or one that a
                method extends, whose store cannot be cut.
        """
        if not isinstance(model, TransformersModel) or getattr(model, "extension", None):
            raise ConfigError(
                f"Only a plain transformers model shares prefixes, got {model!r}. Load it without "
                "an endpoint and without a method."
            )
        found = cls.__new__(cls)
        found.__dict__.update(model.__dict__)
        found._ids, found._cache, found.reused = [], None, 0
        return found

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int = 0,
        on_overflow: Overflow = "error",
    ) -> list[Generation]:
        """See `TransformersModel.generate`; `read_tokens` leaves out what was not read anew."""
        found = []
        for prompt in prompts:
            self.reused = 0
            (made,) = super().generate(
                [prompt],
                max_tokens=max_tokens,
                stop=stop,
                temperature=temperature,
                seed=seed,
                on_overflow=on_overflow,
            )
            found.append(replace(made, usage=self._less(made.usage)))
        return found

    def logprobs(
        self, prompt: Prompt, continuations: Sequence[str], *, on_overflow: Overflow = "error"
    ) -> list[Scored]:
        """See `TransformersModel.logprobs`; `read_tokens` leaves out what was not read anew."""
        self.reused = 0
        found = super().logprobs(prompt, continuations, on_overflow=on_overflow)
        return [replace(found[0], usage=self._less(found[0].usage)), *found[1:]] if found else []

    def _less(self, usage: Usage) -> Usage:
        return replace(usage, read_tokens=usage.read_tokens - self.reused)

    def _prefill(self, ids: list[int]) -> tuple[torch.Tensor, Any]:
        # The last token is always read: its logits are what is wanted.
        shared = _common(self._ids, ids[:-1])
        cache, self._cache = self._cache, None  # nothing is kept if the model fails
        if shared < LEAST or not _can_be_cut(cache):
            shared, cache = 0, None
        else:
            surplus = cache.get_seq_length() - shared
            if surplus > 0:
                cache.crop(-surplus)
        logits, cache = self._forward(ids[shared:], cache, keep=1)
        self._ids, self._cache, self.reused = list(ids), cache, shared
        return logits[0, -1], cache


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common beginning."""
    most = min(len(one), len(other))
    if one[:most] == other[:most]:
        return most
    return next(i for i in range(most) if one[i] != other[i])


def _can_be_cut(cache: Any) -> bool:
    from transformers.cache_utils import DynamicLayer

    layers = getattr(cache, "layers", None) or ()
    return len(layers) > 0 and all(type(layer) is DynamicLayer for layer in layers)
