"""Texts as tokens, and the windows they are read in so that every token has context to its left.

What: documents become one row of token ids with offsets; each document is cut into windows that
overlap, and every token after the first belongs to exactly one of them, the first that reaches it.
Source: Khandelwal et al. (2020), "Generalization through Memorization", section 2: a key for each
token of the datastore's text, from its context.
Differs from fairseq's blocks: windows never cross from one document into the next, and overlap by
`window - stride` tokens, so only the beginnings of documents have short contexts.
Cost: window / stride reads a token. Shapes: ids [N], offsets [documents + 1].
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unspool.errors import ConfigError, InputError

Ids = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a text is read."""

    window: int = 1024
    """Most tokens the model sees at once."""
    stride: int = 512
    """Tokens from one window to the next; each token but those of the first window has at least
    window - stride tokens before it."""

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= self.window or self.window < 2:
            raise ConfigError(
                f"Reading needs window >= 2 and 1 <= stride <= window, got window={self.window}, "
                f"stride={self.stride}."
            )

    def to_json(self) -> dict[str, Any]:
        return {"window": self.window, "stride": self.stride}


class Window(NamedTuple):
    """Tokens [start, end) of a document, of which [first, end) are predicted here."""

    document: int
    start: int
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Tokens:
    """Documents as one row of token ids."""

    ids: Ids
    offsets: NDArray[np.int64]
    """Document i is ids[offsets[i]:offsets[i + 1]]."""
    prefix: tuple[int, ...] = ()
    """What the tokenizer puts before every text."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def document(self, number: int) -> Ids:
        """The ids of one document."""
        return self.ids[self.offsets[number] : self.offsets[number + 1]]

    def windows(self, reading: Reading) -> list[Window]:
        """Every window of every document, in order."""
        sizes = np.diff(self.offsets).tolist()
        first = 0 if self.prefix else 1
        return [
            Window(number, *cut)
            for number, size in enumerate(sizes)
            for cut in cut_windows(size, reading, first)
        ]

    def digest(self) -> str:
        """A hash of all ids and of where documents end."""
        found = hashlib.sha256(self.ids.astype("<i4").tobytes())
        found.update(self.offsets.astype("<i8").tobytes())
        found.update(repr(self.prefix).encode())
        return found.hexdigest()[:32]


def cut_windows(length: int, reading: Reading, first: int) -> Iterator[tuple[int, int, int]]:
    """(start, first predicted, end) of each window of a text; together they predict it once."""
    start = 0
    while first < length:
        end = min(start + reading.window, length)
        if end > first:
            yield start, first, end
            first = end
        # A stride equal to the window would leave the next token without any context.
        start = min(start + reading.stride, end - 1) if end < length else length


def encode(tokenizer: Any, texts: Iterable[str]) -> Tokens:
    """Tokens of documents; special-token strings inside them are plain text.

    Raises:
        InputError: No text has two tokens.
    """
    parts: list[Ids] = []
    for text in texts:
        found = tokenizer.encode(
            text, add_special_tokens=False, split_special_tokens=True, verbose=False
        )
        parts.append(np.asarray(found, dtype=np.int32))
    return joined(parts, prefix_of(tokenizer))


def joined(
    parts: Sequence[Sequence[int] | NDArray[np.integer]], prefix: Sequence[int] = ()
) -> Tokens:
    """Documents that are token ids already."""
    arrays = [np.asarray(part, dtype=np.int32).reshape(-1) for part in parts]
    if not any(len(array) + len(prefix) >= 2 for array in arrays if len(array)):
        raise InputError("There is no text with at least two tokens to read.")
    offsets = np.concatenate([[0], np.cumsum([len(array) for array in arrays])]).astype(np.int64)
    return Tokens(np.concatenate(arrays), offsets, tuple(int(i) for i in prefix))


def prefix_of(tokenizer: Any) -> tuple[int, ...]:
    """The ids that a tokenizer puts before a text, such as a token of beginning."""
    bare = tokenizer.encode("a", add_special_tokens=False)
    full = tokenizer.encode("a", add_special_tokens=True)
    for at in range(len(full) - len(bare) + 1):
        if full[at : at + len(bare)] == bare:
            return tuple(full[:at])
    return ()
