"""What prompt methods do around their choice: frame the text, shorten it, generate from the rest.

What: `PromptReader` is `ask`, `select` and `reduce` of a method that says which tokens of a body it
would keep; a subclass says no more than that.
Source: this project's own contract.
Cost: that of the choice, and one pass over the prompt that is left.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from unspool._machine import peak_rss
from unspool.reading.long_text import Context, LongText
from unspool.reading.reader import Reader, begins, encode, frame
from unspool.reading.support import rank_by_support, unsupported_words
from unspool.types import Answer, Passage, Usage

if TYPE_CHECKING:
    from unspool.extension import Extension


_QUESTION_TOKENS = 128
"""Of a prompt without a marked question: about 500 characters."""


class Kept(NamedTuple):
    """Tokens [first, last) of a body that stay in the prompt, the characters [start, end) that they
    stand for (0 where only token ids are known), and a score: higher is better."""

    first: int
    last: int
    start: int
    end: int
    score: float


class Reduced(NamedTuple):
    """A prompt that was shortened, and the tokens that were read for it."""

    ids: list[int]
    read_tokens: int


@dataclass(frozen=True, slots=True)
class Framed:
    """A prompt in three parts, of which the body may be made shorter."""

    head: list[int]
    body: list[int]
    tail: list[int]
    written: int
    """Tokens of the answer that need room."""
    text: LongText | None = None
    """The body as text; None: only its token ids are known."""
    offsets: Sequence[tuple[int, int]] = ()
    """Characters [start, end) of each token of the body."""
    tell: Any = None
    """Called with tokens done and in all."""


class PromptReader(ABC):
    """`ask`, `select` and `reduce` of an extension with a prompt method."""

    @classmethod
    @abstractmethod
    def keep(cls, reader: Reader, framed: Framed) -> list[Kept]:
        """What of the body the method keeps, in the order of the text."""

    @classmethod
    def question_tokens(cls, reader: Reader) -> int:
        """Last tokens of a prompt that are its question, where nobody said which they are."""
        return _QUESTION_TOKENS

    @classmethod
    def ask(
        cls,
        extension: Extension,
        context: Context,
        question: str,
        *,
        template: str | None = None,
        max_new_tokens: int = 64,
        tell: Any = None,
        **options: Any,
    ) -> Answer:
        """Answer from what was kept."""
        started = time.perf_counter()
        reader, text = Reader(extension), LongText(context)
        framed = _framed(reader, text, question, template, max_new_tokens, tell)
        kept = cls.keep(reader, framed)
        words = _words(framed.body, kept)
        return answer(
            reader,
            question,
            _passages(text, kept),
            [*framed.head, *words, *framed.tail],
            input_tokens=len(framed.head) + len(framed.body) + len(framed.tail),
            dropped_tokens=len(framed.body) - len(words),
            started=started,
            max_new_tokens=max_new_tokens,
            **options,
        )

    @classmethod
    def select(
        cls,
        extension: Extension,
        context: Context,
        question: str,
        *,
        template: str | None = None,
        max_new_tokens: int = 64,
        tell: Any = None,
    ) -> tuple[Passage, ...]:
        """The passages that would be kept, with their scores."""
        reader, text = Reader(extension), LongText(context)
        framed = _framed(reader, text, question, template, max_new_tokens, tell)
        return _passages(text, cls.keep(reader, framed))

    @classmethod
    def reduce(
        cls,
        extension: Extension,
        ids: Sequence[int],
        written: int,
        *,
        head: int = 0,
        tail: int = 0,
        asked: bool = False,
    ) -> Reduced:
        """A prompt of token ids, shortened to what is kept of it.

        Args:
            extension: With the method.
            ids: The prompt.
            written: Tokens of the answer that need room.
            head: First tokens that stay whatever they are.
            tail: Last tokens that stay, as those that a chat template puts at the end.
            asked: Whether the question is among the tail; otherwise it is what stands before it.
        """
        reader = Reader(extension)
        if not asked:
            tail += min(cls.question_tokens(reader), (len(ids) - head - tail) // 4)
        body = list(ids[head : len(ids) - tail])
        framed = Framed(list(ids[:head]), body, list(ids[len(ids) - tail :]), written)
        left = [*framed.head, *_words(body, cls.keep(reader, framed)), *framed.tail]
        return Reduced(left, reader.read_tokens)


def _framed(
    reader: Reader,
    text: LongText,
    question: str,
    template: str | None,
    written: int,
    tell: Any,
) -> Framed:
    before, after = frame(reader.tokenizer, question, template)
    head = begins(reader.tokenizer, encode(reader.tokenizer, before))
    tail = encode(reader.tokenizer, after)
    ids, offsets = token_offsets(reader.tokenizer, text)
    return Framed(head, ids, tail, written, text, offsets, tell)


def _words(body: Sequence[int], kept: Sequence[Kept]) -> list[int]:
    return [token for piece in kept for token in body[piece.first : piece.last]]


def _passages(text: LongText, kept: Sequence[Kept]) -> tuple[Passage, ...]:
    return text.passages((piece.start, piece.end, piece.score) for piece in kept)


def write(
    reader: Reader, ids: Sequence[int], *, max_new_tokens: int = 64, **options: Any
) -> tuple[str, int]:
    """What the model writes after a prompt, and how many tokens it is."""
    import torch

    extension = reader.extension
    options.setdefault("do_sample", False)
    prompt = torch.tensor([list(ids)], device=reader.facts.device)
    mask = torch.ones_like(prompt)
    with torch.inference_mode():
        out = extension.generate_plain(
            prompt, attention_mask=mask, max_new_tokens=max_new_tokens, **options
        )
    new = out[0, prompt.shape[1] :]
    reader.read_tokens += len(ids)
    text = str(reader.tokenizer.decode(new, skip_special_tokens=True)).strip()
    return text, int(new.shape[0])


def answer(
    reader: Reader,
    question: str,
    passages: Sequence[Passage],
    ids: Sequence[int],
    *,
    input_tokens: int,
    dropped_tokens: int,
    started: float,
    **options: Any,
) -> Answer:
    """Generate from the reduced prompt; evidence that supports the answer comes first."""
    text, written = write(reader, ids, **options)
    usage = Usage(
        input_tokens=input_tokens,
        read_tokens=reader.read_tokens,
        dropped_tokens=dropped_tokens,
        output_tokens=written,
        seconds=time.perf_counter() - started,
        peak_bytes=peak_rss(),
    )
    evidence = rank_by_support(text, question, passages)
    return Answer(text, evidence, usage, unsupported_words(text, [p.span.text for p in passages]))


def token_offsets(tokenizer: Any, text: LongText) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of the whole text with the characters that each stands for."""
    made = tokenizer(
        text.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    return list(made["input_ids"]), [(int(a), int(b)) for a, b in made["offset_mapping"]]
