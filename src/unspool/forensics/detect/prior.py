"""How much of a machine text can be told from human text, by its length.

What: an abstract reader starts at state 0 and moves with each token one down with probability
`prior`, one up otherwise, never below 0. The prior of a text of l tokens is 1 - E[state] / l: short
texts leave the reader unsure.
Source: Tian et al. (2023), "Multiscale Positive-Unlabeled Detection of AI-Generated Texts",
section 3.2 (the length-variant prior).
Differs from the released code: one dynamic program for all lengths in place of a power of a matrix
for each. The upper bound l of the state is never met in l steps, so it needs no place here.
Cost: O(L^2) time for all lengths up to L, O(L) memory; 512 lengths take milliseconds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unspool.errors import ConfigError

_SHORTEST = 3
"""Below so many tokens the prior is that of one token."""


def prior_table(prior: int | float, max_length: int) -> NDArray[np.float64]:
    """The prior of each length from 0 to `max_length` tokens; it tends to min(2 * prior, 1).

    Raises:
        ConfigError: `prior` is not a probability, or there is no length.
    """
    if not 0 <= prior <= 1:
        raise ConfigError(f"prior must be a probability from 0 to 1, got {prior}.")
    if max_length < 1:
        raise ConfigError(f"max_length must be at least 1 token, got {max_length}.")
    table = np.full(max_length + 1, float(prior))
    state = np.zeros(max_length + 2)
    state[0] = 1.0
    places = np.arange(max_length + 2, dtype=np.float64)
    for length in range(1, max_length + 1):
        moved = np.zeros_like(state)
        moved[1:] = (1 - prior) * state[:-1]
        moved[:-1] += prior * state[1:]
        moved[0] += prior * state[0]
        state = moved
        if length >= _SHORTEST:
            table[length] = 1.0 - float(places @ state) / length
    return table
