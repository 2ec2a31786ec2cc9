"""A transformers model that does not read again what the last prompt began with.

What: prompts are read in blocks of a fixed number of tokens, and the keys and values of the last
prompt are kept; a prompt that begins with the same blocks is read from the first that differs.
Source: the prefix caches of serving engines (Kwon et al. 2023, "PagedAttention", section 4.4).
Differs from them: one prompt is kept, not many. Since blocks are always the same ones, whether they
were kept or not, an answer does not depend on what was asked before, which a run that is resumed
needs; sharing at any other token would break that. An answer may differ in its last bits from one
that is read in one pass, so the block size is part of the model's name.
Cost: the memory of one cache between two calls. Models whose layers cannot be taken back to an
earlier length (sliding windows, states) are read anew each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from unspool.backends.transformers import TransformersModel
from unspool.errors import ConfigError
from unspool.types import Generation, LanguageModel, Overflow, Prompt, Scored

if TYPE_CHECKING:
    import torch

BLOCK = 256
"""Tokens of a block: small enough to lose little at the end of a shared prefix."""


class PrefixModel(TransformersModel):
    """A `TransformersModel` that keeps what it has read of the last prompt."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        window: int | None = None,
        block: int = BLOCK,
    ) -> None:
        """Wrap a loaded model; see `TransformersModel`.

        Args:
            model: A causal language model of transformers.
            tokenizer: The tokenizer that belongs to it.
            name: Identity and revision; the block size is added to it.
            window: Most tokens of prompt and answer together.
            block: Tokens read at a time, and the grain of what is shared.
        """
        if block < 1:
            raise ConfigError(f"block must be >= 1, got {block}.")
        super().__init__(model, tokenizer, name=f"{name} [block={block}]", window=window)
        self.block = block
        self._read: list[int] = []
        self._cache: Any = None
        self.reused = 0
        """Tokens of the last prompt that were not read anew."""

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
        """Continue each prompt; `read_tokens` counts what was read anew."""
        found = []
        for prompt in prompts:
            (answer,) = super().generate(
                [prompt],
                max_tokens=max_tokens,
                stop=stop,
                temperature=temperature,
                seed=seed,
                on_overflow=on_overflow,
            )
            usage = replace(answer.usage, read_tokens=answer.usage.read_tokens - self.reused)
            found.append(replace(answer, usage=usage))
        return found

    def logprobs(
        self, prompt: Prompt, continuations: Sequence[str], *, on_overflow: Overflow = "error"
    ) -> list[Scored]:
        """Score each continuation; the first `read_tokens` counts what was read anew."""
        found = super().logprobs(prompt, continuations, on_overflow=on_overflow)
        if found:
            usage = found[0].usage
            fresh = replace(usage, read_tokens=usage.read_tokens - self.reused)
            found[0] = replace(found[0], usage=fresh)
        return found

    def forget(self) -> None:
        """Free what is kept."""
        self._read, self._cache, self.reused = [], None, 0

    def _prefill(self, ids: list[int]) -> tuple[torch.Tensor, Any]:
        # Whole blocks only, and never the last token, whose logits are wanted.
        same = _common(ids, self._read)
        start = min(same, len(ids) - 1) // self.block * self.block
        cache = self._cache if start else None
        if cache is not None and cache.get_seq_length() > start:
            cache.crop(start - cache.get_seq_length())
        self._cache, self._read = None, []  # nothing half-read stays after an exception
        for at in range(start, len(ids), self.block):
            logits, cache = self._forward(ids[at : at + self.block], cache, keep=1)
        self.reused = start
        if _croppable(cache):
            self._cache, self._read = cache, list(ids)
        return logits[0, -1], cache


def keep_prefixes(model: LanguageModel, *, block: int = BLOCK) -> LanguageModel:
    """The model, keeping what it has read of the last prompt; as it is if it is one that cannot.

    An endpoint keeps prefixes by itself or not at all, and what a method has stored cannot be taken
    back to an earlier length.
    """
    if type(model) is not TransformersModel or model.extension is not None:
        return model
    return PrefixModel(
        model.model, model.tokenizer, name=model.name, window=model.window, block=block
    )


def _common(a: list[int], b: list[int]) -> int:
    """Length of the common beginning, by halving: comparing slices is fast."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _croppable(cache: Any) -> bool:
    from transformers.cache_utils import DynamicLayer

    layers = getattr(cache, "layers", None) or ()
    return len(layers) > 0 and all(type(layer) is DynamicLayer for layer in layers)
