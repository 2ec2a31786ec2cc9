"""A text that arrives in pieces, for methods that read it for a question.

What: takes pieces until there is no more, then answers from the whole, as `ask` does.
Source: this project's own contract.
Differs from `Stream`: the text is held on the host, and read when the question is asked, once a
question; nothing of it stays on the device between two.
Cost: the text in memory; that of the method for every question.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unspool.errors import ConfigError, InputError

if TYPE_CHECKING:
    from unspool.extension import Extension
    from unspool.types import Answer, Passage


class PromptStream:
    """Pieces of one text and the question that it is read for. Made by `Extension.stream`."""

    def __init__(self, extension: Extension, question: str) -> None:
        if not question.strip():
            raise InputError("The question is empty: say what to look for in the text.")
        self.extension = extension
        self.question = question
        self._pieces: list[str] = []

    def feed(self, source: str | Path | Iterable[str]) -> PromptStream:
        """Take more of the text: a piece, pieces, or a file.

        Raises:
            ConfigError: Token ids were given.
        """
        if isinstance(source, Path):
            source = source.read_bytes().decode("utf-8")
        for piece in (source,) if isinstance(source, str) else source:
            if not isinstance(piece, str):
                raise ConfigError(
                    f"{self.extension.spec} reads sentences of a text, got a piece of type "
                    f"{type(piece).__name__}. Feed text, or use extension.generate for token ids."
                )
            self._pieces.append(piece)
        return self

    def answer(self, question: str | None = None, **options: Any) -> Answer:
        """The answer, its passages and the count of tokens; options are those of `ask`.

        Args:
            question: Another one than the stream was opened with.
            options: As of `Extension.ask`.
        """
        return self.extension.ask(self._text(), question or self.question, **options)

    def select(self, question: str | None = None, **options: Any) -> tuple[Passage, ...]:
        """The passages that the method would answer from."""
        return self.extension.select(self._text(), question or self.question, **options)

    def generate(self, prompt: str | None = None, **options: Any) -> str:
        """The text of `answer`."""
        return self.answer(prompt, **options).text

    def fork(self) -> PromptStream:
        """A stream with the same text that goes on by itself."""
        other = PromptStream(self.extension, self.question)
        other._pieces = list(self._pieces)
        return other

    def _text(self) -> str:
        if not self._pieces:
            raise InputError("Nothing was fed yet: there is nothing to answer from.")
        return "".join(self._pieces)
