"""An OpenAI-compatible endpoint (vLLM, SGLang, llama.cpp, hosted) as a `LanguageModel`.

What: chat messages go to `chat/completions`, plain prompts to `completions`; token counts are the
ones that the server reports, and a server that reports none is an error, never a guess.
Source: the OpenAI HTTP interface; `echo` with `logprobs` of its completions form for scoring.
Differs from a local model: there is no tokenizer and, unless the server says it, no known window,
so a prompt cannot be shortened here, and one that is too long is refused by the server. Chat
continuations cannot be scored (`Unsupported`). `first_token_seconds` is that of the whole answer.
Cost: one request a prompt; one a continuation in `logprobs`, whose prompt is sent each time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from unspool.backends._http import JsonClient
from unspool.backends.prompts import check_messages, check_request
from unspool.errors import BackendError, ConfigError, Unsupported
from unspool.types import Generation, Overflow, Prompt, Scored, Usage


class EndpointModel:
    """A model behind an OpenAI-compatible server."""

    def __init__(
        self,
        endpoint: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        timeout: float = 120.0,
        attempts: int = 5,
        first_wait: float = 0.5,
    ) -> None:
        """Ask the server what it serves.

        Args:
            endpoint: Base address; without a path, `/v1` is added.
            model: The name it serves the model under; None: its only one.
            api_key: Sent as a bearer token, shown nowhere.
            timeout: Seconds to wait for an answer.
            attempts: Tries of a request that the server puts off (429, 5xx).
            first_wait: Seconds before the second try; each later wait is twice as long.

        Raises:
            ConfigError: The address cannot be one, or `model` is needed and missing.
            BackendError: The server cannot be reached or does not answer as it should.
        """
        self._client = JsonClient(
            _base_address(endpoint),
            api_key=api_key,
            timeout=timeout,
            attempts=attempts,
            first_wait=first_wait,
        )
        self._model, self._window = self._find(model)

    def __repr__(self) -> str:
        return f"EndpointModel({self._client.base!r}, model={self._model!r})"

    @property
    def name(self) -> str:
        """The model's name and the server that answers for it; a server tells no revision."""
        return f"{self._model}@{urlsplit(self._client.base).netloc.rpartition('@')[2]}"

    @property
    def tokenizer(self) -> None:
        """Not known: the server counts."""
        return None

    @property
    def window(self) -> int | None:
        """What the server says; None if it does not say."""
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
        """Continue each prompt; see `LanguageModel`.

        Raises:
            Unsupported: A prompt was to be shortened, which needs a tokenizer.
            BackendError: The server failed, or says no token counts.
        """
        check_request(prompts, max_tokens, stop, temperature)
        self._check_overflow(on_overflow)
        return [self._generate_one(p, max_tokens, stop, temperature, seed) for p in prompts]

    def logprobs(
        self, prompt: Prompt, continuations: Sequence[str], *, on_overflow: Overflow = "error"
    ) -> list[Scored]:
        """Score continuations of a plain prompt, where the server echoes log-probabilities.

        Raises:
            Unsupported: Chat messages, or a server that does not echo or splits a token across the
                end of the prompt.
        """
        self._check_overflow(on_overflow)
        if not isinstance(prompt, str):
            raise Unsupported(f"{self.name} cannot score a continuation of chat messages.")
        return [self._score_one(prompt, c) for c in continuations]

    def _check_overflow(self, on_overflow: Overflow) -> None:
        if on_overflow != "error":
            raise Unsupported(
                f"{self.name} tells no tokenizer, so a prompt cannot be shortened for it "
                f"(on_overflow={on_overflow!r}). Send a shorter one."
            )

    def _find(self, model: str | None) -> tuple[str, int | None]:
        try:
            listed = self._client.get("/models").get("data") or []
            by_name = {str(m["id"]): m for m in listed}
        except (AttributeError, KeyError, TypeError):
            by_name = {}
        except BackendError as error:
            # Some servers list nothing; with a name given, the first request will tell.
            if model is None or "cannot be reached" in str(error):
                raise
            by_name = {}
        if model is None:
            if len(by_name) != 1:
                served = ", ".join(sorted(by_name)) or "none"
                raise ConfigError(
                    f"{self._client.base} serves {len(by_name)} models ({served}). "
                    f"Name one with --model."
                )
            model = next(iter(by_name))
        window = by_name.get(model, {}).get("max_model_len")
        return model, int(window) if isinstance(window, int) else None

    def _generate_one(
        self, prompt: Prompt, max_tokens: int, stop: Sequence[str], temperature: float, seed: int
    ) -> Generation:
        started = time.perf_counter()
        body: dict[str, Any] = {
            "model": self._model,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
        }
        if stop:
            body["stop"] = list(stop)
        if isinstance(prompt, str):
            answer = self._client.post("/completions", {**body, "prompt": prompt})
        else:
            check_messages(prompt)
            messages = [dict(m) for m in prompt]
            answer = self._client.post("/chat/completions", {**body, "messages": messages})
        seconds = time.perf_counter() - started
        choice = self._choice(answer)
        text = choice.get("text") if isinstance(prompt, str) else _content(choice)
        if not isinstance(text, str):
            raise BackendError(f"{self.name} sent an answer without text: {str(choice)[:200]}")
        read, written = self._counts(answer)
        reason = "length" if choice.get("finish_reason") == "length" else "stop"
        return Generation(text, reason, Usage(read, read, 0, written, seconds), seconds)

    def _score_one(self, prompt: str, continuation: str) -> Scored:
        started = time.perf_counter()
        body = {"model": self._model, "prompt": prompt + continuation, "max_tokens": 1}
        answer = self._client.post(
            "/completions", {**body, "temperature": 0, "echo": True, "logprobs": 1}
        )
        table = self._choice(answer).get("logprobs") or {}
        tokens, values = table.get("tokens"), table.get("token_logprobs")
        if not tokens or not values or not "".join(tokens).startswith(prompt + continuation):
            raise Unsupported(f"{self.name} cannot score a continuation: it echoes no prompt.")
        offset, per_token, greedy = 0, [], True
        best = table.get("top_logprobs") or [None] * len(tokens)
        for token, value, top in zip(tokens, values, best, strict=False):
            start, offset = offset, offset + len(token)
            if offset <= len(prompt):
                continue
            if start >= len(prompt + continuation):
                break
            if start < len(prompt) or value is None or offset > len(prompt + continuation):
                raise Unsupported(
                    f"{self.name} cannot score {continuation!r}: the token {token!r} crosses one "
                    f"of its ends."
                )
            per_token.append(float(value))
            greedy = greedy and bool(top) and value >= max(top.values())
        read, _ = self._counts(answer)
        usage = Usage(read, read, seconds=time.perf_counter() - started)
        return Scored(math.fsum(per_token), tuple(per_token), greedy, usage)

    def _choice(self, answer: Any) -> dict[str, Any]:
        try:
            return dict(answer["choices"][0])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise BackendError(
                f"{self.name} sent an answer without choices: {str(answer)[:200]}"
            ) from error

    def _counts(self, answer: Any) -> tuple[int, int]:
        try:
            usage = answer["usage"]
            return int(usage["prompt_tokens"]), int(usage.get("completion_tokens") or 0)
        except (KeyError, TypeError, ValueError) as error:
            raise BackendError(
                f"{self.name} does not say how many tokens it read, and a guess is not good "
                f"enough. Use a server that fills in 'usage'."
            ) from error


def _content(choice: dict[str, Any]) -> object:
    message = choice.get("message")
    return message.get("content") if isinstance(message, dict) else None


def _base_address(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    try:
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        sound = False
    if not sound or parts.query or parts.fragment:
        raise ConfigError(
            f"endpoint must be an address like http://localhost:8000/v1, got {endpoint!r}."
        )
    path = parts.path.rstrip("/")
    for ending in ("/chat/completions", "/completions"):
        path = path.removesuffix(ending)
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"
