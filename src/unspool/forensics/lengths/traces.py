"""Traces of requests out of collected rows and a predictor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unspool.errors import ConfigError, InputError
from unspool.forensics.lengths.predictor import LEVELS, Predictor
from unspool.forensics.lengths.rows import Row
from unspool.forensics.lengths.simulate import Request, poisson


def requests_of(
    rows: Sequence[Row],
    predictor: Predictor,
    *,
    quantile: float = 0.9,
    count: int = 500,
    rate: int | float = 10.0,
    seed: int = 0,
) -> list[Request]:
    """Requests that arrive at random, each one of the collected answers.

    Args:
        rows: Prompts and their answers; for an honest simulation, not those of the fit.
        predictor: Says what to reserve.
        quantile: The level that is reserved, a multiple of 0.05, or 0.99.
        count: How many requests, drawn with replacement.
        rate: Requests a second.
        seed: Of the draws.

    Raises:
        ConfigError: The predictor has no such level.
        InputError: There are no rows.
    """
    if quantile not in LEVELS:
        raise ConfigError(f"quantile must be one of {', '.join(map(str, LEVELS))}, got {quantile}.")
    if not rows:
        raise InputError("There are no rows to draw requests from.")
    times = poisson(count, rate, seed)
    draw = np.random.default_rng([seed, 1])
    said = [
        predictor.predict([row.prompt_text], model=row.model, dataset=row.dataset)[0]
        for row in rows
    ]
    found = []
    for arrival in times:
        which = int(draw.integers(len(rows)))
        row = rows[which]
        size = row.output_sizes[int(draw.integers(len(row.output_sizes)))]
        found.append(
            Request(
                arrival=arrival,
                prompt=row.input_size,
                output=size,
                reserve=round(said[which].quantiles[quantile]),
                expected=said[which].mean,
            )
        )
    return found
