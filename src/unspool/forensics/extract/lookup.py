"""Is what a model said really in the corpus? Exact search answers without knowing the truth.

What: the surest answer of every prefix is looked up in indexes of the training corpus, alone and
behind its prefix.
Source: the audit mode that a data owner needs: he holds the corpus, not pairs with known suffixes.
Departures: none; there is no paper. Characters that the tokens cut in half (U+FFFD at either end of
a text) are left out of the query, and `cut` says so.
Cost: two counts a prefix and index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unspool.errors import ConfigError, InputError
from unspool.index.engine import Index
from unspool.index.open import open_index

_BROKEN = "�"


def verify(
    rows: Sequence[Mapping[str, Any]], indexes: Sequence[str | Path] | Index
) -> list[dict[str, Any]]:
    """Count every answer in indexes of bytes; counts of several indexes add up.

    Args:
        rows: Of an `Extraction`.
        indexes: Directories, or an open index.

    Returns:
        The rows with `found` (the answer, anywhere), `behind` (prefix and answer together) and
        `cut` (whether half a character was left out).

    Raises:
        ConfigError: An index holds tokens.
        InputError: The answers hold no text.
    """
    opened = [indexes] if isinstance(indexes, Index) else [open_index(each) for each in indexes]
    if not opened:
        raise ConfigError("Say in which index to look: --index DIR, as often as there are.")
    for each in opened:
        if each.info().alphabet != "bytes":
            raise ConfigError(
                "An index of tokens may cut a text otherwise than the model did. Build one of "
                "bytes: unspool index build PATH… --out DIR."
            )
    found = []
    for row in rows:
        if row.get("text") is None or row.get("prefix_text") is None:
            raise InputError(
                f"The answer to {row['id']!r} holds no text, because its model had no tokenizer."
            )
        alone = row["text"].strip(_BROKEN)
        whole = (row["prefix_text"] + row["text"]).strip(_BROKEN)
        cut = len(alone) < len(row["text"]) or _BROKEN in whole
        counts = [
            sum(each.count(text) for each in opened) if text else 0 for text in (alone, whole)
        ]
        found.append({**row, "found": counts[0], "behind": counts[1], "cut": cut})
    return found
