"""What `--ngram` and `--draft` of `unspool generate` make of writing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unspool._optional import require
from unspool.errors import ConfigError

if TYPE_CHECKING:
    from unspool.extension import Extension


class Ways:
    """Opened before a model is loaded, so that a wrong path is told at once."""

    def __init__(self, ngram: str | None, draft: Sequence[str], weights: str | None) -> None:
        """Open the indexes that are named.

        Args:
            ngram: DIR, DIR:WEIGHT or DIR:SPARSE,OTHER.
            draft: "text", or directories.
            weights: How the model writes, as `extend` takes it.

        Raises:
            ConfigError: A combination that would write another text with drafts than without.
        """
        if draft and weights == "int8":
            raise ConfigError(
                "--draft reads guessed tokens with the model's own weights, and --weights int8 "
                "writes with others: the text would depend on the guesses. Leave one of them out."
            )
        from unspool.index.open import open_index

        self.asked = ngram is not None or bool(draft)
        self.lookup: Any = None
        self._mixed: tuple[Any, Any] | None = None
        if ngram is not None:
            require("torch", extra="read", purpose="Running a model")
            from unspool.backends.ngram import parse_mix

            folder, shares = parse_mix(ngram)
            self._mixed = open_index(folder), shares
        self._drafts = [None if each == "text" else open_index(each) for each in draft]
        self._mixture: Any = None
        self._drafters: list[Any] = []

    def meet(self, extension: Extension) -> None:
        """Check the indexes against the tokens of a model, and drafts against its method.

        Raises:
            ConfigError: An index has other tokens, or the method cannot give tokens back.
        """
        tokenizer = extension.tokenizer
        if self._mixed is not None:
            from unspool.backends.ngram import NgramMix

            self._mixture = NgramMix(self._mixed[0], tokenizer, self._mixed[1])
        if self._drafts:
            from unspool.backends.drafts import IndexDrafts, TextDrafts
            from unspool.backends.lookup import check_cache

            check_cache(extension.new_cache())

            self._drafters = [
                TextDrafts() if index is None else IndexDrafts(index, tokenizer)
                for index in self._drafts
            ]

    def options(self, before: Sequence[int]) -> dict[str, Any]:
        """Arguments of `generate`, which is given only what comes after `before`."""
        found: dict[str, Any] = {}
        if self._mixture is not None:
            self._mixture.before = list(before)
            found["logits_processor"] = [self._mixture]
        if self._drafters:
            from unspool.backends.lookup import Lookup

            self.lookup = found["custom_generate"] = Lookup(*self._drafters, before=before)
        return found
