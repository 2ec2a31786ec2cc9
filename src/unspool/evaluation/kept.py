"""A model whose answers are kept in a response cache, so that a judge that was paid is not again.

What: `generate` looks each prompt up first; what is found costs nothing and says so in its usage.
Source: this project's own; the cache is that of `evaluation.cache`.
Differs from a run folder: there is no plan, only answers, so a judge may ask what depends on what
it heard before.
Cost: one look-up a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unspool.evaluation.cache import ResponseCache
from unspool.evaluation.spec import Request, Response
from unspool.types import Generation, LanguageModel, Overflow, Prompt, Scored, Usage


class KeptModel:
    """A `LanguageModel` over another one and a cache."""

    def __init__(self, model: LanguageModel, cache: ResponseCache | None) -> None:
        """Wrap a model; without a cache every prompt is asked."""
        self._model = model
        self._cache = cache
        self.asked = 0
        """Prompts that went to the model."""
        self.kept = 0
        """Prompts that the cache answered."""

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def tokenizer(self) -> Any:
        return self._model.tokenizer

    @property
    def window(self) -> int | None:
        return self._model.window

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
        """The answers of the model or of the cache; see `LanguageModel`."""
        found = []
        for prompt in prompts:
            request = Request(
                kind="generate",
                prompt=prompt,
                max_new_tokens=max_tokens,
                stop=tuple(stop),
                temperature=temperature,
                seed=seed if temperature else 0,
            )
            known = self._cache.get(request) if self._cache is not None else None
            if known is not None:
                self.kept += 1
                found.append(Generation(known.text, known.finish_reason, Usage()))
                continue
            (said,) = self._model.generate(
                [prompt],
                max_tokens=max_tokens,
                stop=stop,
                temperature=temperature,
                seed=seed,
                on_overflow=on_overflow,
            )
            self.asked += 1
            if self._cache is not None:
                self._cache.put(request, Response(text=said.text, finish_reason=said.finish_reason))
            found.append(said)
        return found

    def logprobs(
        self, prompt: Prompt, continuations: Sequence[str], *, on_overflow: Overflow = "error"
    ) -> list[Scored]:
        """The scores of the model; they are not kept."""
        return self._model.logprobs(prompt, continuations, on_overflow=on_overflow)
