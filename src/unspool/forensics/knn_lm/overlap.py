"""How much of a test text stands in a datastore word for word.

What: the share of a text's tokens that lie in a run of so many tokens which the datastore's own
text holds, too.
Source: the usual check for contamination, before any gain is believed.
Differs from a search in an index: the values of a datastore are its text, so hashes of their runs
suffice. Two runs with equal 64-bit hashes are taken for equal.
Cost: O(N log N) for a datastore of N tokens.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unspool.errors import ConfigError

_BASE = 0x9E3779B97F4A7C15
_WORD = 1 << 64


def shared_tokens(
    values: NDArray[np.int32], ids: NDArray[np.int32], length: int = 32
) -> NDArray[np.bool_]:
    """For each token, whether it lies in a run of `length` tokens that `values` holds.

    Raises:
        ConfigError: `length` is below 1.
    """
    if length < 1:
        raise ConfigError(f"length must be >= 1, got {length}.")
    found = np.zeros(len(ids), dtype=bool)
    if len(values) < length or len(ids) < length:
        return found
    known = np.unique(run_hashes(np.asarray(values), length))
    hit = np.isin(run_hashes(np.asarray(ids), length), known)
    for start in np.flatnonzero(hit):
        found[start : start + length] = True
    return found


def run_hashes(ids: NDArray[np.int32], length: int) -> NDArray[np.uint64]:
    """A hash of every run of `length` numbers, from one prefix sum."""
    mixed = (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0x94D049BB133111EB)
    powers = np.full(len(ids), _BASE, dtype=np.uint64)
    powers[0] = 1
    powers = np.multiply.accumulate(powers)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed * powers, dtype=np.uint64)])
    runs = sums[length:] - sums[:-length]
    inverse = np.full(len(runs), pow(_BASE, -1, _WORD), dtype=np.uint64)
    inverse[0] = 1
    hashed: NDArray[np.uint64] = runs * np.multiply.accumulate(inverse)
    return hashed
