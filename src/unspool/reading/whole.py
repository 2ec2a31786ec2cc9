"""`ask` of a method that reads everything: feed the text, ask, and find where the answer stands.

What: reads the whole text through the method's own stream, generates, and quotes the units of the
text that hold most of the answer's own words.
Source: this project's own contract.
Differs from prompt methods: nothing is selected before the answer, so evidence is found after it,
by words; it says where to look, not what the model looked at.
Cost: that of the stream, and one pass over the words of the text.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from unspool._machine import peak_rss
from unspool.errors import OverflowPolicyError, Unsupported
from unspool.reading.answering import token_offsets
from unspool.reading.long_text import Context, LongText
from unspool.reading.reader import Reader, begins, encode, frame
from unspool.reading.support import rank_by_support, unsupported_words
from unspool.reading.terms import terms
from unspool.reading.units import units
from unspool.types import Answer, Passage, Span, Usage

if TYPE_CHECKING:
    from unspool.extension import Extension

_QUOTED = 8
"""Most passages that an answer quotes."""


class WholeReader:
    """`ask` of an extension without a prompt method."""

    @staticmethod
    def ask(
        extension: Extension,
        context: Context,
        question: str,
        *,
        template: str | None = None,
        max_new_tokens: int = 64,
        tell: Any = None,
        **options: Any,
    ) -> Answer:
        """Answer after reading everything.

        Raises:
            OverflowPolicyError: The method cannot take the text.
        """
        started = time.perf_counter()
        reader, text = Reader(extension), LongText(context)
        before, after = frame(reader.tokenizer, question, template)
        ids, _ = token_offsets(reader.tokenizer, text)
        prompt = [
            *begins(reader.tokenizer, encode(reader.tokenizer, before)),
            *ids,
            *encode(reader.tokenizer, after),
        ]
        capacity = extension.capacity
        if capacity is not None and len(prompt) + max_new_tokens > capacity:
            raise OverflowPolicyError(
                f"Text and question have {len(prompt):,} tokens and the answer may have "
                f"{max_new_tokens:,}; {extension.spec} takes {capacity:,} in all. Choose a method "
                f"that reads any length: bm25, xl3m, infini-retri, infllm or lm-infinite."
            )
        stream = extension.stream()
        step = extension.prefill_chunk
        for start in range(0, len(prompt), step):
            stream.feed(prompt[start : start + step])
            if tell is not None:
                tell(min(start + step, len(prompt)), len(prompt))
        options.setdefault("do_sample", False)
        said = str(stream.generate(max_new_tokens=max_new_tokens, **options)).strip()
        count = stream.report().usage
        usage = Usage(
            input_tokens=len(prompt),
            read_tokens=len(prompt),
            dropped_tokens=count.dropped_tokens,
            output_tokens=count.output_tokens,
            seconds=time.perf_counter() - started,
            peak_bytes=peak_rss(),
        )
        passages = _supporting(text, said, question)
        return Answer(
            said,
            rank_by_support(said, question, passages),
            usage,
            unsupported_words(said, [text.text]),
        )

    @staticmethod
    def select(extension: Extension, context: Context, question: str, **options: Any) -> Any:
        """Refused: nothing is selected.

        Raises:
            Unsupported: Always.
        """
        raise Unsupported(
            f"{extension.spec} reads the whole text and selects no passages. Use ask(), or a "
            f"method that selects: xl3m or infini-retri."
        )


def _supporting(text: LongText, answer: str, question: str) -> tuple[Passage, ...]:
    """Units that hold words of the answer that the question has not, best first."""
    own = set(terms(answer)) - set(terms(question))
    asked = set(terms(question))
    found: list[tuple[float, Passage]] = []
    for document in text.documents if own else ():
        data = document.text.encode()
        for unit in units(document.text):
            words = data[unit.start : unit.end].decode()
            held = set(terms(words))
            hits = len(own & held)
            if hits:
                score = hits / len(own) + 0.5 * len(asked & held) / max(1, len(asked))
                span = Span(document.id, unit.start, unit.end, words)
                found.append((score, Passage(span, score)))
    found.sort(key=lambda pair: -pair[0])  # stable: of equals, the earlier
    return tuple(passage for _, passage in found[:_QUOTED])
