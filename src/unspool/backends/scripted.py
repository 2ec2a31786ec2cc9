"""A model that follows a script, with a tokenizer of whole words: for tests of what asks models."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from unspool._overflow import fit
from unspool.backends.prompts import check_request, encode_continuation, encode_prompt
from unspool.errors import ConfigError
from unspool.types import Generation, Overflow, Prompt, Scored, Usage

Script = Callable[[str], str] | Sequence[str]


class Encoded(NamedTuple):
    input_ids: list[int]


class WordTokenizer:
    """One token a word with the space before it; decoding gives back the same text."""

    chat_template = "role: content"
    eos_token_id = 0
    all_special_tokens = ("<end>",)

    def __init__(self) -> None:
        self._ids: dict[str, int] = {"<end>": 0}
        self._words: list[str] = ["<end>"]

    def __call__(
        self, text: str, add_special_tokens: bool = True, split_special_tokens: bool = False
    ) -> Encoded:
        pattern = r"\s*[^\s<]+|\s*<|\s+" if split_special_tokens else r"<end>|\s*[^\s<]+|\s*<|\s+"
        words = re.findall(pattern, text)
        for word in dict.fromkeys(words):
            if word not in self._ids:
                self._ids[word] = len(self._words)
                self._words.append(word)
        return Encoded([self._ids[word] for word in words])

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return "".join(self._words[i] for i in ids)

    def apply_chat_template(
        self, messages: Sequence[Any], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        turns = "".join(f"{m['role']}: {m['content']}\n" for m in messages)
        return f"{turns}assistant:" if add_generation_prompt else turns


class ScriptedModel:
    """A `LanguageModel` whose answers are given in advance.

    Args:
        script: Answers in the order of the calls, or a function of the prompt's text.
        window: Most tokens (words) of prompt and answer; None: no limit.
        score: Log-probability of each continuation token; default: -1.0 each.
    """

    def __init__(
        self,
        script: Script,
        *,
        window: int | None = None,
        score: Callable[[str, str], float] = lambda prompt, token: -1.0,
    ) -> None:
        self._script = script
        self._window = window
        self._score = score
        self._tokenizer = WordTokenizer()
        self.prompts: list[str] = []
        """Every prompt that was read, in order, as text."""

    @property
    def name(self) -> str:
        return "scripted@1"

    @property
    def tokenizer(self) -> WordTokenizer:
        return self._tokenizer

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
        """The script's answers, cut at `max_tokens` and at stop strings as a model's would be."""
        check_request(prompts, max_tokens, stop, temperature)
        limit = None if self._window is None else self._window - max_tokens
        results = []
        for prompt in prompts:
            ids = encode_prompt(self._tokenizer, prompt)
            kept = fit(ids, limit, on_overflow, what="The prompt")
            answer = self._answer(self._tokenizer.decode(kept.ids))
            written = self._tokenizer(answer).input_ids
            text = self._tokenizer.decode(written[:max_tokens])
            reason = "stop" if len(written) <= max_tokens else "length"
            ends = [text.find(s) for s in stop if s in text]
            if ends:
                text, reason = text[: min(ends)], "stop"
            output = len(self._tokenizer(text).input_ids)
            usage = Usage(len(ids), len(kept.ids), kept.dropped, output)
            results.append(Generation(text, reason, usage))
        return results

    def logprobs(
        self, prompt: Prompt, continuations: Sequence[str], *, on_overflow: Overflow = "error"
    ) -> list[Scored]:
        """The scores of the script's `score`; the first usage holds the prompt."""
        ids = encode_prompt(self._tokenizer, prompt)
        text = self._tokenizer.decode(ids)
        results = []
        for number, continuation in enumerate(continuations):
            tail = encode_continuation(self._tokenizer, prompt, ids, continuation)
            each = tuple(self._score(text, self._tokenizer.decode([i])) for i in tail)
            total = len(tail) + (len(ids) if number == 0 else 0)
            results.append(Scored(math.fsum(each), each, False, Usage(total, total)))
        return results

    def _answer(self, prompt: str) -> str:
        self.prompts.append(prompt)
        if callable(self._script):
            return self._script(prompt)
        if len(self.prompts) > len(self._script):
            raise ConfigError(
                f"The script holds {len(self._script)} answers and was asked for one more."
            )
        return self._script[len(self.prompts) - 1]
