"""Any model of lm-evaluation-harness as a `LanguageModel`.

What: `generate_until` and `loglikelihood` of an `lm_eval.api.model.LM`.
Source: lm-evaluation-harness 0.4.13, `lm_eval/api/{model,instance}.py`.
Differs from our own backends: the harness returns no token counts, so they are counted with the
model's tokenizer; scores come by continuation and not by token. Its models cut long prompts from
the left and say nothing, so a prompt that does not fit is refused here.
Cost: that of the model; a shared prompt is read as often as the model reads it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from unspool._optional import require
from unspool._overflow import fit
from unspool.backends.prompts import (
    check_messages,
    check_request,
    encode_continuation,
    encode_prompt,
)
from unspool.errors import ConfigError, Unsupported
from unspool.types import Generation, Overflow, Prompt, Scored, Usage


class LmEvalModel:
    """A `LanguageModel` over an `lm_eval` one."""

    def __init__(self, lm: Any, *, name: str, window: int | None = None) -> None:
        """Wrap a model.

        Args:
            lm: An `lm_eval.api.model.LM`.
            name: Identity and revision, as results should state it.
            window: Most tokens of prompt and answer; None: its `max_length`, if it tells one.
        """
        if not hasattr(lm, "generate_until") or not hasattr(lm, "loglikelihood"):
            raise ConfigError(
                f"lm must be an lm_eval model with generate_until and loglikelihood, got "
                f"{type(lm).__name__}."
            )
        self._lm = lm
        self._name = name
        said = getattr(lm, "max_length", None)
        self._window = window if window is not None else said if isinstance(said, int) else None

    @property
    def name(self) -> str:
        return self._name

    @property
    def tokenizer(self) -> Any:
        """The one that the model brings; None if it brings none."""
        return getattr(self._lm, "tokenizer", None)

    @property
    def window(self) -> int | None:
        return self._window

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
        """Continue each prompt; all go to the harness's model in one call.

        Raises:
            Unsupported: Sampling, which the harness cannot seed for one request, or shortening.
            OverflowPolicyError: A prompt does not fit.
        """
        check_request(prompts, max_tokens, stop, temperature)
        self._only_errors(on_overflow)
        if temperature:
            raise Unsupported(f"{self._name} runs in lm_eval, where a draw has no seed of its own.")
        options = {
            "until": list(stop),
            "max_gen_toks": max_tokens,
            "do_sample": False,
            "temperature": 0.0,
        }
        read = [self._check(prompt, max_tokens) for prompt in prompts]
        started = time.perf_counter()
        requests = [
            self._instance("generate_until", (self._text(prompt), dict(options)), i)
            for i, prompt in enumerate(prompts)
        ]
        texts = self._lm.generate_until(requests, disable_tqdm=True)
        seconds = (time.perf_counter() - started) / max(1, len(prompts))
        found = []
        for text, tokens in zip(texts, read, strict=True):
            written = self._count(text)
            reason = "length" if written >= max_tokens else "stop"
            found.append(Generation(text, reason, Usage(tokens, tokens, 0, written, seconds)))
        return found

    def logprobs(
        self, prompt: Prompt, continuations: Sequence[str], *, on_overflow: Overflow = "error"
    ) -> list[Scored]:
        """Score each continuation; `per_token` stays empty, and usages count the prompt alone."""
        self._only_errors(on_overflow)
        text = self._text(prompt)
        tokenizer = self.tokenizer
        ids = encode_prompt(tokenizer, prompt) if tokenizer is not None else []
        tails = [
            len(encode_continuation(tokenizer, prompt, ids, each)) if tokenizer is not None else 0
            for each in continuations
        ]
        self._check(prompt, max(tails, default=0))
        started = time.perf_counter()
        requests = [
            self._instance("loglikelihood", (text, each), i) for i, each in enumerate(continuations)
        ]
        pairs = self._lm.loglikelihood(requests, disable_tqdm=True)
        seconds = (time.perf_counter() - started) / max(1, len(continuations))
        found = []
        for number, (total, greedy) in enumerate(pairs):
            tokens = len(ids) if number == 0 else 0
            usage = Usage(tokens, tokens, seconds=seconds)
            found.append(Scored(float(total), (), bool(greedy), usage))
        return found

    def _instance(self, kind: str, arguments: tuple[Any, ...], index: int) -> Any:
        instance = require("lm_eval.api.instance", extra="eval", purpose="A model of lm_eval")
        return instance.Instance(
            request_type=kind,
            doc={},
            arguments=arguments,
            idx=index,
            metadata=("unspool", index, 1),
        )

    def _text(self, prompt: Prompt) -> str:
        if isinstance(prompt, str):
            return prompt
        check_messages(prompt)
        messages = [dict(turn) for turn in prompt]
        begun = len(messages) > 1 and messages[-1]["role"] == "assistant"
        answer = messages.pop()["content"] if begun else ""
        return str(self._lm.apply_chat_template(messages, add_generation_prompt=True)) + answer

    def _check(self, prompt: Prompt, needed: int) -> int:
        """Tokens of a prompt that fits; 0 where no tokenizer is known."""
        if self.tokenizer is None:
            return 0
        ids = encode_prompt(self.tokenizer, prompt)
        room = None if self._window is None else self._window - needed
        return len(fit(ids, room, "error", what="The prompt").ids)

    def _count(self, text: str) -> int:
        if self.tokenizer is None:
            return 0
        return len(self.tokenizer(text, add_special_tokens=False).input_ids)

    def _only_errors(self, on_overflow: Overflow) -> None:
        if on_overflow != "error":
            raise Unsupported(
                f"{self._name} runs in lm_eval, which cuts prompts without saying so: "
                f"on_overflow={on_overflow!r} cannot be had. Send a shorter prompt."
            )
