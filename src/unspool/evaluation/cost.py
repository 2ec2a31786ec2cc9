"""What a run will cost, before it is paid, and what it did cost.

Tokens are the model's own and exact; without a tokenizer (an endpoint, and no `--tokenizer`) they
are unknown and stay unknown. A price is an upper bound before the run, since answers may end early.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from unspool.errors import ConfigError, InputError, PathNotFound


@dataclass(frozen=True, slots=True)
class Price:
    """Money for a million tokens."""

    input: float
    output: float
    cached_input: float | None = None
    """None: as `input`."""
    currency: str = "USD"


@dataclass(slots=True)
class Cost:
    """Tokens and time of some requests."""

    requests: int = 0
    prompt_tokens: int | None = 0
    """None: not known."""
    output_tokens: int = 0
    """Before the run: at most so many."""
    cached_tokens: int = 0
    shared_tokens: int = 0
    """Before the run: tokens that stand at the beginning of the prompt before, too; a backend that
    keeps what it has read need not read them again."""
    truncated_samples: int = 0
    truncated_tokens: int = 0
    first_token_seconds: float = 0.0
    """Reading prompts, as far as the backend tells it apart."""
    seconds: float = 0.0
    peak_bytes: int = 0
    price: float | None = None
    """None: no price is known."""

    def add(self, prompt: int | None, output: int, *, truncated: int = 0, cached: int = 0) -> None:
        """Count one request."""
        self.requests += 1
        known = prompt is not None and self.prompt_tokens is not None
        self.prompt_tokens = (self.prompt_tokens or 0) + (prompt or 0) if known else None
        self.output_tokens += output
        self.cached_tokens += cached
        self.truncated_samples += truncated > 0
        self.truncated_tokens += truncated

    def priced(self, price: Price | None) -> Cost:
        """The same cost with its price filled in."""
        if price is not None and self.prompt_tokens is not None:
            again = price.input if price.cached_input is None else price.cached_input
            fresh = self.prompt_tokens - self.cached_tokens
            self.price = round(
                (
                    fresh * price.input
                    + self.cached_tokens * again
                    + self.output_tokens * price.output
                )
                / 1e6,
                6,
            )
        return self

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def total(costs: Iterable[Cost]) -> Cost:
    """All of them together; memory is the largest."""
    whole = Cost()
    for cost in costs:
        whole.requests += cost.requests
        known = cost.prompt_tokens is not None and whole.prompt_tokens is not None
        whole.prompt_tokens = (
            (whole.prompt_tokens or 0) + (cost.prompt_tokens or 0) if known else None
        )
        whole.output_tokens += cost.output_tokens
        whole.cached_tokens += cost.cached_tokens
        whole.shared_tokens += cost.shared_tokens
        whole.truncated_samples += cost.truncated_samples
        whole.truncated_tokens += cost.truncated_tokens
        whole.first_token_seconds += cost.first_token_seconds
        whole.seconds += cost.seconds
        whole.peak_bytes = max(whole.peak_bytes, cost.peak_bytes)
        if cost.price is not None:
            whole.price = round((whole.price or 0.0) + cost.price, 6)
    return whole


def read_prices(path: Path) -> dict[str, Price]:
    """Prices by model name, from TOML or JSON: `{NAME: {input, output, cached_input, currency}}`.

    Raises:
        PathNotFound: There is no such file.
        InputError: It is not a price table; the message names the entry.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise PathNotFound(f"There is no price table at {path}.") from None
    try:
        table = tomllib.loads(raw.decode()) if path.suffix == ".toml" else orjson.loads(raw)
        return {str(name): Price(**entry) for name, entry in table.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path.name} is not a price table: {error}. It holds, for each model name, input and "
            f"output in money for a million tokens."
        ) from error


def price_of(model: str, prices: Mapping[str, Price]) -> Price:
    """The price of a model, by its name with or without what follows the `@`."""
    found = prices.get(model) or prices.get(model.partition("@")[0])
    if found is None:
        raise ConfigError(
            f"The price table has no entry for {model.partition('@')[0]!r}. It has "
            f"{', '.join(sorted(prices)) or 'none'}."
        )
    return found
