"""Guesses of the next tokens by look-up: in the text so far, and in an index.

What: the text so far is searched for an earlier place that ended as it ends now, and what followed
there is the guess; an index is asked again and again for the likeliest next symbol, as long as the
guess as a whole stays likely.
Source: prompt look-up decoding (Saxena 2023); retrieval as a draft: He et al. (2024), "REST"
(arXiv 2311.08252), section 3, with an exact suffix array as the datastore.
Differs from both: the earlier place is the one with the longest match, the latest of equals, where
prompt look-up takes the first of a short n-gram; the index gives one chain, not a tree, and says
with its counts how likely the chain is.
Cost: of the text, one table entry a token and a comparison with at most 64 places; of an index, one
search a symbol.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from unspool.errors import ConfigError
from unspool.index.alphabet import END, Tokens

if TYPE_CHECKING:
    from unspool.index.engine import Index

_PLACES = 64
"""Earlier places of the text that are compared, the latest ones."""
_REACH = 64
"""Tokens that a match is followed back; a longer one is as good."""
_TAIL = 48
"""Tokens of the text that an index is asked with."""
_BYTES_A_TOKEN = 6
"""Bytes that are drafted for each token wanted; what is left over is not used."""


class Draft(NamedTuple):
    """Guessed tokens, and how many tokens before them were found again elsewhere."""

    tokens: list[int]
    match: int


@runtime_checkable
class Drafter(Protocol):
    """Where guesses come from."""

    def draft(self, ids: Sequence[int], most: int) -> Draft:
        """At most `most` tokens that may follow; none if there is no guess."""


class TextDrafts:
    """Guesses from the text that was read and written so far."""

    def __init__(self, match: int = 2) -> None:
        """Guess only after `match` tokens or more that stood together before."""
        if match < 1:
            raise ConfigError(f"match must be at least 1 token, got {match}.")
        self.match = match
        self._places: dict[tuple[int, ...], list[int]] = defaultdict(list)
        self._known: list[int] = []

    def draft(self, ids: Sequence[int], most: int) -> Draft:
        """What followed the latest of the longest matches of the end of the text."""
        self._learn(ids)
        if most < 1 or len(ids) <= self.match:
            return Draft([], 0)
        best, place = 0, 0
        for after in reversed(self._places[tuple(ids[-self.match :])][-_PLACES - 1 :]):
            if after == len(ids):
                continue  # the end itself
            length = self.match
            while length < min(_REACH, after) and ids[after - 1 - length] == ids[-1 - length]:
                length += 1
            if length > best:
                best, place = length, after
        return Draft(list(ids[place : place + most]) if best else [], best)

    def _learn(self, ids: Sequence[int]) -> None:
        """Note where each n-gram ends; a text that is no continuation is learnt anew."""
        known = len(self._known)
        if list(ids[:known]) != self._known:
            self._places.clear()
            known = 0
        self._known = list(ids)
        for end in range(max(known + 1, self.match), len(ids) + 1):
            self._places[tuple(ids[end - self.match : end])].append(end)


class IndexDrafts:
    """Guesses from an index, of the model's tokens or of bytes."""

    def __init__(
        self,
        index: Index,
        tokenizer: Any,
        *,
        match: int | None = None,
        chance: int | float = 0.4,
    ) -> None:
        """Take up an index.

        Args:
            index: Of bytes, or of the tokens of the model's own tokenizer.
            tokenizer: The model's, of transformers.
            match: Fewest symbols that must be found again; None: 3 tokens, or 12 bytes.
            chance: A guess ends where its probability, by the counts of the index, falls below.

        Raises:
            ConfigError: The index holds the tokens of another tokenizer.
        """
        self.index, self.chance = index, chance
        self.tokens: Tokens | None = None
        if index.info().alphabet == "bytes":
            self.tokens = Tokens(tokenizer.backend_tokenizer)
        else:
            from unspool.backends.ngram import require_same_tokens

            require_same_tokens(index, tokenizer)
        self.match = match if match is not None else 3 if self.tokens is None else 12
        if self.match < 1 or not 0 <= chance <= 1:
            raise ConfigError(
                f"match must be at least 1 and chance between 0 and 1, got {match} and {chance}."
            )

    def draft(self, ids: Sequence[int], most: int) -> Draft:
        """The likeliest continuation of the longest end of the text that the index knows."""
        if most < 1 or not len(ids):
            return Draft([], 0)
        tail = list(ids[-_TAIL:])
        if self.tokens is None:
            followed, match = self._follow(tail, most)
            return Draft(followed, match)
        known = self.tokens.spell(tail)
        followed, match = self._follow(list(known), most * _BYTES_A_TOKEN)
        tokens = self._as_tokens(self.tokens, known, bytes(followed))
        return Draft(tokens[:most], match * len(tail) // max(1, len(known)))

    def _follow(self, context: list[int], most: int) -> tuple[list[int], int]:
        """A chain of likeliest symbols, and how many symbols its first match has."""
        found: list[int] = []
        first, chance = 0, 1.0
        while len(found) < most:
            (answer,) = self.index.infgram_counts([context])
            if answer.suffix_length < self.match or not len(answer.symbols):
                break
            best = int(np.argmax(answer.counts))
            symbol = int(answer.symbols[best])
            chance *= float(answer.counts[best]) / answer.prompt_count
            if symbol == END or chance < self.chance:
                break
            first = first or answer.suffix_length
            found.append(symbol)
            context.append(symbol)
        return found, first

    def _as_tokens(self, tokens: Tokens, known: bytes, followed: bytes) -> list[int]:
        """The tokens of drafted bytes, where the tokenizer keeps a boundary before them.

        The last one is left out: more bytes might have made it another.
        """
        try:
            ids = tokens.encode((known + followed).decode())
        except UnicodeDecodeError:  # cut inside a character, at either end
            ids = tokens.encode((known + followed).decode(errors="replace"))
        ends = np.cumsum(tokens.byte_lengths[ids])
        (at,) = np.nonzero(ends == len(known))
        if not len(at) or tokens.spell(ids[: at[0] + 1]) != known:
            return []
        return [int(token) for token in ids[at[0] + 1 : -1]]
