"""Draw sequences to plant, spread evenly over perplexity, in pairs that a coin can decide between.

Source: Meeus et al. (2024), "Copyright Traps for Large Language Models", section 4.1 and the
released generator.
Differs from the released code: traps and controls come from one pool and are paired by perplexity,
so that a coin in each pair makes the test exact; where the count does not fill every unit of
perplexity equally, buckets are filled equally; the search ends after `max_draws` and says what is
missing; white space is made single spaces and a text must come back from the tokenizer with its
length; texts with broken characters are refused.
Cost: about one generation and one scoring a draw; low perplexities take the most draws.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from unspool.errors import ConfigError, Unsupported
from unspool.types import LanguageModel


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """What is drawn."""

    lengths: tuple[int, ...] = (25, 50, 100)
    """Tokens of the generating model."""
    pairs: int = 500
    """Of each length; a multiple of `buckets`."""
    low: int = 1
    high: int = 101
    """Perplexities [low, high)."""
    buckets: int = 10
    jaccard: float = 0.2
    """Two texts of a length share at most this much of their tokens."""
    temperatures: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5)
    max_draws: int = 100_000
    """Of each length."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.lengths or min(self.lengths) < 2 or len(set(self.lengths)) < len(self.lengths):
            raise ConfigError(f"lengths must be different and >= 2, got {self.lengths}.")
        if self.low < 1 or self.high <= self.low or (self.high - self.low) % self.buckets:
            raise ConfigError(
                f"Perplexities need 1 <= low < high and a range that buckets divide, got low="
                f"{self.low}, high={self.high}, buckets={self.buckets}."
            )
        if self.pairs < 1 or self.pairs % self.buckets:
            near = max(1, round(self.pairs / self.buckets)) * self.buckets
            raise ConfigError(
                f"pairs must be a multiple of buckets={self.buckets}, got {self.pairs}. The "
                f"nearest is {near}."
            )
        if not 0 < self.jaccard <= 1 or self.max_draws < 1:
            raise ConfigError(
                f"jaccard must be in (0, 1] and max_draws >= 1, got {self.jaccard} and "
                f"{self.max_draws}."
            )
        if not self.temperatures or min(self.temperatures) <= 0:
            raise ConfigError(f"temperatures must be above 0, got {self.temperatures}.")

    @property
    def cells(self) -> int:
        """Equal ranges of perplexity that are filled equally: units, if the count allows it."""
        units = self.high - self.low
        return units if self.pairs % units == 0 else self.buckets


@dataclass(frozen=True, slots=True)
class Candidate:
    """A text and its perplexity under the model that drew it."""

    text: str
    perplexity: float


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts of a length and nearly the same perplexity: one will be planted."""

    id: str
    length: int
    bucket: int
    texts: tuple[str, str]
    perplexities: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Pool:
    """What was drawn, and what could not be found."""

    model: str
    settings: PoolSettings
    pairs: tuple[Pair, ...]
    draws: int
    missing: dict[str, int]
    """Pairs that were not found, by "length:bucket"."""


def generate(
    model: LanguageModel,
    settings: PoolSettings | None = None,
    *,
    start: str | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Pool:
    """Draw pairs from a model.

    Args:
        model: Draws and scores; later the reference that a target is compared with.
        settings: What is drawn.
        start: What the model continues. Default: the tokenizer's first, else its last token.
        on_progress: Called with texts accepted and texts wanted.

    Raises:
        Unsupported: The model has no tokenizer here, as an endpoint.
    """
    settings = settings or PoolSettings()
    if model.tokenizer is None:
        raise Unsupported(f"{model.name} has no tokenizer here; traps need a local model.")
    begin = start or _start(model.tokenizer)
    per_cell = 2 * settings.pairs // settings.cells
    wanted = 2 * settings.pairs * len(settings.lengths)
    pairs: list[Pair] = []
    missing: dict[str, int] = {}
    draws = done = 0
    for length in settings.lengths:
        cells: dict[int, list[Candidate]] = {c: [] for c in range(settings.cells)}
        taken: list[frozenset[int]] = []
        for number in range(settings.max_draws):
            if all(len(found) == per_cell for found in cells.values()):
                break
            draws += 1
            heat = settings.temperatures[number % len(settings.temperatures)]
            seed = (settings.seed * 1_000_003 + length) * 1_000_003 + number
            found = _draw(model, begin, length, heat, seed % (1 << 62))
            if found is None:
                continue
            candidate, tokens = found
            cell = _cell(candidate.perplexity, settings)
            if cell is None or len(cells[cell]) == per_cell:
                continue
            if any(_overlap(tokens, other) > settings.jaccard for other in taken):
                continue
            cells[cell].append(candidate)
            taken.append(tokens)
            done += 1
            on_progress(done, wanted)
        made = _pairs(cells, length, settings)
        pairs += made
        have = Counter(p.bucket for p in made)
        for bucket in range(settings.buckets):
            lack = settings.pairs // settings.buckets - have[bucket]
            if lack:
                missing[f"{length}:{bucket}"] = lack
    return Pool(model.name, settings, tuple(pairs), draws, missing)


def perplexity(total: float, tokens: int) -> float:
    """exp of the mean loss; inf where a float cannot hold it."""
    loss = -total / tokens
    return math.exp(loss) if loss < 700 else math.inf


def _start(tokenizer: Any) -> str:
    for name in ("bos_token", "eos_token"):
        token = getattr(tokenizer, name, None)
        if token:
            return str(token)
    return "\n"


def _draw(
    model: LanguageModel, start: str, length: int, temperature: float, seed: int
) -> tuple[Candidate, frozenset[int]] | None:
    answer = model.generate([start], max_tokens=length, temperature=temperature, seed=seed)[0]
    text = " ".join(answer.text.split())
    if not text or not text.isprintable() or "�" in text:
        return None
    ids = list(model.tokenizer(text, add_special_tokens=False).input_ids)
    if len(ids) != length:
        return None
    scored = model.logprobs(start, [text])[0]
    if len(scored.per_token) != length:
        return None
    return Candidate(text, perplexity(scored.total, length)), frozenset(ids)


def _cell(value: float, settings: PoolSettings) -> int | None:
    if not settings.low <= value < settings.high:
        return None
    width = (settings.high - settings.low) / settings.cells
    return min(settings.cells - 1, int((value - settings.low) / width))


def _overlap(first: frozenset[int], second: frozenset[int]) -> float:
    return len(first & second) / len(first | second)


def _pairs(cells: dict[int, list[Candidate]], length: int, settings: PoolSettings) -> list[Pair]:
    """Neighbours in perplexity within a cell; one left over goes unused."""
    made: list[Pair] = []
    for cell, found in cells.items():
        order = sorted(found, key=lambda c: (c.perplexity, c.text))
        bucket = cell * settings.buckets // settings.cells
        for a, b in zip(order[::2], order[1::2], strict=False):
            made.append(
                Pair(
                    id=f"{length}-{len(made)}",
                    length=length,
                    bucket=bucket,
                    texts=(a.text, b.text),
                    perplexities=(a.perplexity, b.perplexity),
                )
            )
    return made
