"""The words that every part of unspool shares: documents, spans, answers, models.

Offsets are UTF-8 byte offsets everywhere. Counts of tokens are exact, never estimates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

Overflow: TypeAlias = Literal["error", "truncate", "window"]
"""What to do with a text that is too long: refuse it, drop tokens and count them, or read it all
in several windows."""

ChatMessage: TypeAlias = Mapping[str, str]
"""One chat turn, `{"role": ..., "content": ...}`."""

Prompt: TypeAlias = str | Sequence[ChatMessage]
"""A str is sent as it is; a list of chat messages goes through the model's chat template."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text with a stable, unique id and whatever metadata came with it."""

    id: str
    text: str
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a document: UTF-8 byte offsets `[start, end)` and the text they quote."""

    document: str
    start: int
    end: int
    text: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Passage:
    """A span with the score that a search or a reader gave it; higher is better."""

    span: Span
    score: float

    def to_json(self) -> dict[str, Any]:
        return {**self.span.to_json(), "score": self.score}


@dataclass(frozen=True, slots=True)
class Usage:
    """What a call read, dropped and cost. Tokens are the model's, seconds are wall time."""

    input_tokens: int = 0
    read_tokens: int = 0
    dropped_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0

    def __add__(self, other: Usage) -> Usage:
        """The cost of two calls, one after the other: memory is the larger, the rest adds up."""
        return Usage(
            self.input_tokens + other.input_tokens,
            self.read_tokens + other.read_tokens,
            self.dropped_tokens + other.dropped_tokens,
            self.output_tokens + other.output_tokens,
            self.seconds + other.seconds,
            max(self.peak_bytes, other.peak_bytes),
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, the passages it rests on, and what reading cost."""

    text: str
    evidence: tuple[Passage, ...]
    usage: Usage
    unsupported: tuple[str, ...] = ()
    """Content words of the answer that occur in nothing the model read."""

    def to_json(self) -> dict[str, Any]:
        return {
            "answer": self.text,
            "evidence": [p.to_json() for p in self.evidence],
            "usage": self.usage.to_json(),
            "unsupported": list(self.unsupported),
        }


@dataclass(frozen=True, slots=True)
class Generation:
    """One generated text and why it ended (`stop`, `length`)."""

    text: str
    finish_reason: str
    usage: Usage
    first_token_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Scored:
    """Log-probability (nats) of one continuation, and whether greedy decoding would produce it."""

    total: float
    per_token: tuple[float, ...]
    greedy: bool
    usage: Usage


@runtime_checkable
class LanguageModel(Protocol):
    """What everything above the backends speaks to."""

    @property
    def name(self) -> str:
        """Identity and revision."""

    @property
    def tokenizer(self) -> Any: ...

    @property
    def window(self) -> int | None:
        """Most tokens of prompt and answer together; None: no limit."""

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int = 0,
        on_overflow: Overflow = "error",
    ) -> list[Generation]: ...

    def logprobs(
        self, prompt: Prompt, continuations: Sequence[str], *, on_overflow: Overflow = "error"
    ) -> list[Scored]: ...
