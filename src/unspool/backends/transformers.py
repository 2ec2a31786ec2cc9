"""A transformers model as a `LanguageModel`: exact counts, and a shared prompt is read once.

What: greedy or sampled decoding in a plain loop over the model's own cache, and scoring of
continuations that share one prompt. Prompts are run one at a time, so no padding enters a count.
Source: the `LanguageModel` protocol of `unspool.types`; transformers' cache classes.
Differs from `model.generate`: no generation processors; logits are computed for the last position
only (`logits_to_keep`); special-token strings inside chat contents are encoded as plain text, since
a text that is read must not be able to end its own turn.
Cost: one pass over the prompt, one pass a written token. `logprobs` reads a prompt once for any
number of continuations and holds logits for the positions that it scores, no others.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from unspool._machine import peak_rss
from unspool._overflow import Shortened, fit
from unspool.backends.next_token import Picker, end_tokens, interruptible
from unspool.backends.prompts import check_request, encode_continuation, encode_prompt
from unspool.backends.scoring import score_tail, token_score
from unspool.backends.stream import Piece, TokenScore, Unfolder
from unspool.errors import BackendError, ConfigError, InputError
from unspool.types import Generation, Overflow, Prompt, Scored, Usage

if TYPE_CHECKING:
    import torch

    from unspool.extension import Extension


class TransformersModel:
    """A causal language model of transformers behind the `LanguageModel` protocol."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        window: int | None = None,
        extension: Extension | None = None,
    ) -> None:
        """Wrap a loaded model.

        Args:
            model: A causal language model of transformers, on its device, in its dtype.
            tokenizer: The tokenizer that belongs to it.
            name: Identity and revision, as results should state it.
            window: Most tokens of prompt and answer together; None: what the configuration says.
            extension: What `extend` installed on the model. Prompts are then read through it, in
                chunks, and the window is what its method can take. Prompt methods are for
                `ReducingModel`.
        """
        self.model = model.eval()
        self._tokenizer = tokenizer
        self._name = name
        config = (
            model.config.get_text_config() if hasattr(model.config, "get_text_config") else None
        )
        said = getattr(config, "max_position_embeddings", None)
        if extension is not None:
            said = extension.capacity
        self.extension = extension
        self._window = window if window is not None else said
        self._evicted = 0
        """Tokens of the last prompt that the extension's method has given up."""
        self._besides = 0
        """Tokens that were read to shorten the last prompt."""
        self._ends = end_tokens(model, tokenizer)
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters

    @property
    def name(self) -> str:
        """Identity and revision."""
        return self._name

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of transformers that belongs to the model."""
        return self._tokenizer

    @property
    def window(self) -> int | None:
        """Most tokens of prompt and answer together; None: no limit."""
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
        """Continue each prompt.

        Args:
            prompts: Texts, sent as they are, or lists of chat messages.
            max_tokens: Most tokens to write, the end token included.
            stop: The answer ends before the first of these strings.
            temperature: 0 is greedy; otherwise tokens are drawn, each prompt from the same seed.
            seed: Of the draws.
            on_overflow: What to do with a prompt that leaves no room for `max_tokens`.

        Raises:
            OverflowPolicyError: A prompt is too long and may not be shortened.
            ConfigError: A setting has a value that cannot work.
            BackendError: The device ran out of memory.
        """
        check_request(prompts, max_tokens, stop, temperature)
        self._room(max_tokens)  # refused before anything is read
        return [
            self._generate_one(prompt, max_tokens, stop, temperature, seed, on_overflow)
            for prompt in prompts
        ]

    def generate_stream(
        self,
        prompt: Prompt,
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int = 0,
        on_overflow: Overflow = "error",
        top_logprobs: int | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[Piece]:
        """The answer of `generate` piece by piece; see `StreamingModel`."""
        started = time.perf_counter()
        check_request([prompt], max_tokens, stop, temperature)
        self._reset_peak()
        ids = encode_prompt(self._tokenizer, prompt)
        if not ids:
            raise InputError("The prompt has no tokens: give at least one to continue.")
        with interruptible(self.model, cancelled):
            kept = self._fitted(prompt, ids, max_tokens, on_overflow)
        unfolder = Unfolder(self._decode, stop)
        pick = Picker(temperature, seed)
        written, ended = 0, False
        tokens: tuple[TokenScore, ...] = ()
        for token, logits in self._tokens(kept.ids, pick, max_tokens, cancelled):
            written += 1
            ended = token in self._ends
            if ended:
                break
            if top_logprobs is not None:
                tokens += (token_score(self._decode, token, logits, top_logprobs),)
            text = unfolder.add(token)
            if unfolder.stopped:
                break
            if text:
                yield Piece(text, tokens)
                tokens = ()
        last = text if unfolder.stopped else unfolder.rest()
        reason = "stop" if ended or unfolder.stopped else "length"
        yield Piece(last, tokens, reason, self._usage(ids, kept, written, started))

    def _tokens(
        self,
        ids: list[int],
        pick: Picker,
        max_tokens: int,
        cancelled: Callable[[], bool] | None = None,
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Tokens that follow a prompt, each with the logits that it was picked from."""
        import torch

        # Not around the loop: between two tokens the caller's code runs, in the caller's mode.
        with torch.inference_mode(), interruptible(self.model, cancelled):
            logits, cache = self._prefill(ids)
        for number in range(max_tokens):
            token = pick(logits)
            yield token, logits
            if number + 1 == max_tokens or (cancelled and cancelled()):
                return
            with torch.inference_mode():
                rows, cache = self._forward([token], cache, keep=1)
            logits = rows[0, -1]

    def logprobs(
        self, prompt: Prompt, continuations: Sequence[str], *, on_overflow: Overflow = "error"
    ) -> list[Scored]:
        """Score each continuation after the prompt, in nats.

        A continuation is tokenised together with the prompt where that leaves the prompt's tokens
        as they are, else alone. The prompt is read once, and its tokens are counted in the usage
        of the first result, so that the usages add up to what was read.

        Raises:
            InputError: The prompt has no tokens to condition on.
            OverflowPolicyError: Prompt and continuation are longer than the window.
        """
        import torch

        started = time.perf_counter()
        if not continuations:
            return []
        self._reset_peak()
        ids = encode_prompt(self._tokenizer, prompt)
        if not ids:
            raise InputError("The prompt has no tokens: give at least one to condition on.")
        tails = [encode_continuation(self._tokenizer, prompt, ids, c) for c in continuations]
        kept = self._fitted(prompt, ids, max(map(len, tails)), on_overflow, "The shared prompt")
        with torch.inference_mode():
            logits, cache = self._prefill(kept.ids)
            scored = []
            for number, tail in enumerate(tails):
                per_token, greedy = score_tail(self._forward, tail, logits, cache)
                shared = len(ids) if number == 0 else 0
                dropped = kept.dropped + self._evicted if number == 0 else 0
                now = time.perf_counter()
                usage = Usage(
                    input_tokens=shared + len(tail),
                    read_tokens=(self._besides + len(kept.ids) if not number else 0) + len(tail),
                    dropped_tokens=dropped,
                    seconds=now - started,
                    peak_bytes=self._peak(),
                )
                scored.append(Scored(math.fsum(per_token), tuple(per_token), greedy, usage))
                started = now
        return scored

    def _room(self, needed: int) -> int | None:
        """Tokens of a prompt that fit beside `needed` tokens of answer."""
        if self._window is None:
            return None
        if needed >= self._window:
            raise ConfigError(
                f"{self._name} has a window of {self._window:,} tokens, and {needed:,} for the "
                f"answer leave no room for a prompt. Ask for fewer."
            )
        return self._window - needed

    def _fitted(
        self,
        prompt: Prompt,
        ids: list[int],
        needed: int,
        on_overflow: Overflow,
        what: str = "The prompt",
    ) -> Shortened:
        """A prompt that leaves room for `needed` tokens, by the overflow policy."""
        return fit(ids, self._room(needed), on_overflow, what=what)

    def _generate_one(
        self,
        prompt: Prompt,
        max_tokens: int,
        stop: Sequence[str],
        temperature: float,
        seed: int,
        on_overflow: Overflow,
    ) -> Generation:
        started = time.perf_counter()
        self._reset_peak()
        ids = encode_prompt(self._tokenizer, prompt)
        if not ids:
            raise InputError("The prompt has no tokens: give at least one to continue.")
        kept = self._fitted(prompt, ids, max_tokens, on_overflow)
        written: list[int] = []
        text, reason, first = "", None, 0.0
        for token, _ in self._tokens(kept.ids, Picker(temperature, seed), max_tokens):
            first = first or time.perf_counter() - started
            written.append(token)
            text, reason = self._ending(written, stop)
            if reason is not None:
                break
        if reason is None:
            text, reason = self._decode(written), "length"
        usage = self._usage(ids, kept, len(written), started)
        return Generation(text, reason, usage, first)

    def _ending(self, written: list[int], stop: Sequence[str]) -> tuple[str, str | None]:
        """The text and why it ends here, if it does."""
        if written[-1] in self._ends:
            return self._decode(written[:-1]), "stop"
        if not stop:
            return "", None
        # A stop string spans at most its own length in tokens, plus one cut at either end.
        tail = written[-(max(map(len, stop)) + 8) :]
        if not any(s in self._decode(tail) for s in stop):
            return "", None
        text = self._decode(written)
        ends = [text.find(s) for s in stop if s in text]
        return (text[: min(ends)], "stop") if ends else ("", None)

    def _decode(self, ids: list[int]) -> str:
        return str(
            self._tokenizer.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def _prefill(self, ids: list[int]) -> tuple[torch.Tensor, Any]:
        if self.extension is None:
            logits, cache = self._forward(ids, None, keep=1)
            return logits[0, -1], cache
        cache = self.extension.new_cache()
        cache.prefill_end = len(ids)
        step = self.extension.prefill_chunk
        for start in range(0, len(ids), step):
            logits, cache = self._forward(ids[start : start + step], cache, keep=1)
        self._evicted = self.extension.report(cache).dropped_tokens
        return logits[0, -1], cache

    def _forward(self, ids: list[int], cache: Any, *, keep: int) -> tuple[torch.Tensor, Any]:
        import torch

        inputs = torch.tensor([ids], device=self.model.device)
        options: dict[str, Any] = {"logits_to_keep": keep} if self._keeps_logits else {}
        try:
            out = self.model(inputs, past_key_values=cache, use_cache=True, **options)
        except torch.OutOfMemoryError as error:
            raise BackendError(
                f"{self._name} ran out of memory on {self.model.device} with {len(ids):,} new "
                f"tokens. Read fewer tokens, or load the model with dtype='bfloat16'."
            ) from error
        return out.logits[:, -keep:], out.past_key_values

    def _usage(self, ids: list[int], kept: Shortened, output: int, started: float) -> Usage:
        return Usage(
            input_tokens=len(ids),
            read_tokens=self._besides + len(kept.ids),
            dropped_tokens=kept.dropped + self._evicted,
            output_tokens=output,
            seconds=time.perf_counter() - started,
            peak_bytes=self._peak(),
        )

    def _reset_peak(self) -> None:
        if self.model.device.type == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(self.model.device)

    def _peak(self) -> int:
        """Peak bytes on the device; on a CPU, of the whole process since it started."""
        if self.model.device.type == "cuda":
            import torch

            return int(torch.cuda.max_memory_allocated(self.model.device))
        return peak_rss()
