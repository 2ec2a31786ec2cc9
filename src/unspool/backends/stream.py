"""Answers that come piece by piece: what a model that can stream yields, and text that can be sent.

A token need not be a character, and the beginning of a stop string must not be sent before it is
known to be none. `Unfolder` holds such endings back; what it has given out is never taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from unspool.errors import UnspoolError
from unspool.types import Overflow, Prompt, Usage

_CONTEXT = 6
"""Tokens before the new ones that are decoded with them, since spaces depend on neighbours."""


class Cancelled(UnspoolError):
    """Whoever asked for an answer no longer wants it."""


@dataclass(frozen=True, slots=True)
class TokenScore:
    """One written token with its log-probability (nats) and the likeliest ones in its place."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer; the last has the finish reason and the usage of the whole."""

    text: str
    tokens: tuple[TokenScore, ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None


@runtime_checkable
class StreamingModel(Protocol):
    """A `LanguageModel` that can give its answer piece by piece, and stop when told."""

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
        """The pieces of what `generate` returns for this prompt.

        Args:
            prompt: As of `generate`; so are the settings.
            max_tokens: Most tokens to write.
            stop: The answer ends before the first of these strings.
            temperature: 0 is greedy.
            seed: Of the draws.
            on_overflow: What to do with a prompt that is too long.
            top_logprobs: Give each token's log-probability, and so many likeliest ones in its
                place; None: neither.
            cancelled: Asked before each step; once it says yes, nothing more is given.

        Raises:
            Cancelled: While the prompt was still being read.
        """


class Unfolder:
    """Turns token ids, one at a time, into text that can be sent."""

    def __init__(self, decode: Callable[[list[int]], str], stop: Sequence[str]) -> None:
        self._decode = decode
        self._stop = tuple(stop)
        self._ids: list[int] = []
        self._done = 0
        self._held = ""
        self.stopped = False
        """Whether a stop string has come up; what follows it is not given."""

    def add(self, token: int) -> str:
        """What can be sent now that this token is written."""
        self._ids.append(token)
        before = self._ids[max(0, self._done - _CONTEXT) : self._done]
        known = self._decode(before)
        text = self._decode([*before, *self._ids[self._done :]])
        if text.endswith("\ufffd") or not text.startswith(known):
            return ""
        self._done = len(self._ids)
        return self._send(self._held + text[len(known) :])

    def rest(self) -> str:
        """What is still held back when the answer ends."""
        before = self._ids[max(0, self._done - _CONTEXT) : self._done]
        tail = self._decode([*before, *self._ids[self._done :]])[len(self._decode(before)) :]
        self._done = len(self._ids)
        sent = self._send(self._held + tail)
        if self.stopped:
            return sent
        held, self._held = self._held, ""
        return sent + held

    def _send(self, text: str) -> str:
        if self.stopped:
            return ""
        ends = [text.find(s) for s in self._stop if s in text]
        if ends:
            self.stopped, self._held = True, ""
            return text[: min(ends)]
        longest = max(
            (n for s in self._stop for n in range(1, len(s)) if text.endswith(s[:n])), default=0
        )
        cut = len(text) - longest
        self._held = text[cut:]
        return text[:cut]
