"""The one place that shortens an input, and says by how much.

The names say what is KEPT: `head` the oldest tokens, `tail` the newest, `ends` half of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from unspool.errors import ConfigError, OverflowPolicyError
from unspool.types import Overflow

Keep = Literal["head", "tail", "ends"]


class Shortened(NamedTuple):
    """What is left of a sequence and how many items are not."""

    ids: list[int]
    dropped: int


def shorten(ids: Sequence[int], limit: int, keep: Keep = "tail") -> Shortened:
    """Keep at most `limit` items; the default drops the oldest."""
    if limit < 0:
        raise ConfigError(f"limit must be >= 0, got {limit}.")
    total = len(ids)
    if total <= limit:
        return Shortened(list(ids), 0)
    if keep == "head":
        kept = list(ids[:limit])
    elif keep == "tail":
        kept = list(ids[total - limit :])
    elif keep == "ends":
        head = (limit + 1) // 2
        kept = [*ids[:head], *ids[total - (limit - head) :]]
    else:
        raise ConfigError(f"keep must be head, tail or ends, got {keep!r}.")
    return Shortened(kept, total - limit)


def fit(ids: Sequence[int], limit: int | None, on_overflow: Overflow, *, what: str) -> Shortened:
    """Apply an overflow policy to a prompt of one window: pass it, refuse it, or shorten it."""
    if limit is None or len(ids) <= limit:
        return Shortened(list(ids), 0)
    if on_overflow == "truncate":
        return shorten(ids, limit)
    raise OverflowPolicyError(
        f"{what} is {len(ids):,} tokens long and at most {limit:,} fit. Choose a method that reads "
        f"longer texts, or on_overflow='truncate' to drop the oldest {len(ids) - limit:,} tokens."
    )
