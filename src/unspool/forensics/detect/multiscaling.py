"""Texts of many lengths out of long ones: each sentence is deleted with a fixed probability.

What: the sentences that stay keep their order; a text of one sentence, or one that would lose all
of them, stays as it is.
Source: Tian et al. (2023), "Multiscale Positive-Unlabeled Detection of AI-Generated Texts",
section 3.3 (text multiscaling).
Differs from the released code: sentences are those of `unspool.corpus.split` in place of NLTK's
punkt, whose rules are a download.
Cost: that of splitting, about 7 MB/s.
"""

from __future__ import annotations

import random
import unicodedata

from unspool.corpus.split import sentences
from unspool.errors import ConfigError


def split(text: str) -> list[str]:
    """The sentences of a text without the white space around them; none is empty."""
    data = text.encode()
    found = (data[start:end].decode().strip() for start, end in sentences(text))
    return [sentence for sentence in found if sentence]


def multiscale(text: str, deletion: int | float, draw: random.Random) -> str:
    """Delete each sentence with the probability `deletion`; what stays is joined by blanks.

    Args:
        text: Any text; scripts without blanks between sentences are joined without.
        deletion: From 0 (nothing happens) to 1 (nothing happens, since all would go).
        draw: Where the coins come from.

    Raises:
        ConfigError: `deletion` is not a probability.
    """
    if not 0 <= deletion <= 1:
        raise ConfigError(f"deletion must be a probability from 0 to 1, got {deletion}.")
    parts = split(text)
    if len(parts) < 2:
        return text
    kept = [part for part in parts if draw.random() >= deletion]
    if not kept or len(kept) == len(parts):
        return text
    return join(kept)


def join(parts: list[str]) -> str:
    """Sentences as one text again."""
    out = parts[0]
    for part in parts[1:]:
        wide = unicodedata.east_asian_width(out[-1]) in "WF"
        out += part if wide else f" {part}"
    return out


def runs(text: str) -> list[str]:
    """A text at many lengths: whole, and its runs of 1, 2, 4, ... sentences, none overlapping
    another of its size."""
    parts = split(text)
    found, size = [], 1
    while size < len(parts):
        found += [join(parts[i : i + size]) for i in range(0, len(parts) - size + 1, size)]
        size *= 2
    return [*found, text] if parts else []
