"""The weight, temperature and number of neighbours that make a text likeliest.

What: a grid over λ, T and k on recorded hits; and λ as a step function of the distance of the
nearest neighbour.
Source: Khandelwal et al. (2020), section 4 (one λ, tuned on validation); Drozdov et al. (2022),
section 4 (a λ a bucket of retrieval quality).
Differs from both: the grid costs no search, because neighbours were recorded; without a list of
temperatures, they are spread about the distances that were seen.
Cost: one pass over the hits for each (T, k); λ is free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unspool.errors import ConfigError
from unspool.forensics.knn_lm.hits import Hits
from unspool.forensics.knn_lm.mixture import Mixture

Floats = NDArray[np.float64]
LAMBDAS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9)
_SHARES = (0.01, 0.03, 0.06, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Of the median distance of nearest neighbours: temperatures to try."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One setting and what it reached."""

    k: int
    temperature: float
    lam: float
    perplexity: float


@dataclass(frozen=True, slots=True)
class Tuned:
    """The best setting of a grid."""

    mixture: Mixture
    perplexity: float
    perplexity_lm: float
    tokens: int
    tried: tuple[Tried, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "mixture": self.mixture.to_json(),
            "perplexity": self.perplexity,
            "perplexity_lm": self.perplexity_lm,
            "tokens": self.tokens,
            "tried": [asdict(t) for t in self.tried],
        }


def temperatures_for(hits: Hits) -> tuple[float, ...]:
    """Temperatures to try: 1, and fractions of the median distance of nearest neighbours."""
    nearest = np.asarray(hits.distances[:, 0], dtype=np.float64)
    finite = nearest[np.isfinite(nearest)]
    middle = float(np.median(finite)) if len(finite) else 0.0
    if middle <= 0:
        return (1.0,)
    return tuple(sorted({1.0, *(float(f"{middle * share:.3g}") for share in _SHARES)}))


def tune(
    hits: Hits,
    *,
    lam: Sequence[float | int] = LAMBDAS,
    k: Sequence[int] | None = None,
    temperature: Sequence[float | int] | None = None,
    buckets: int = 0,
) -> Tuned:
    """Find the mixture of the lowest perplexity on a text.

    Args:
        hits: Of a text that is not the one to be tested on.
        lam: Weights to try.
        k: Numbers of neighbours to try; default: those kept, a quarter and a sixteenth of them.
        temperature: Temperatures to try; default: 1 and fractions of the distances seen.
        buckets: With 2 or more, then one λ for each of so many ranges of the nearest distance,
            each range with as many tokens.

    Raises:
        ConfigError: A list is empty, or a value is out of range.
    """
    ks = list(k or sorted({max(1, hits.k // 16), max(1, hits.k // 4), hits.k}))
    heats = list(temperature or temperatures_for(hits))
    if not lam or not ks or not heats or not len(hits):
        raise ConfigError("Tuning needs tokens and at least one value of λ, k and temperature.")
    alone = np.asarray(hits.log_lm, dtype=np.float64)
    found = np.isfinite(np.asarray(hits.distances[:, 0]))
    tried, best, best_log = [], None, None
    for many in ks:
        for heat in heats:
            Mixture(k=many, temperature=heat)  # refuses what cannot work
            said = hits.log_retrieved(many, heat)
            for weight in lam:
                Mixture(lam=weight)
                loss = -log_mixed(alone, said, np.where(found, weight, 0.0)).mean()
                one = Tried(many, float(heat), float(weight), math.exp(loss))
                tried.append(one)
                if best is None or one.perplexity < best.perplexity:
                    best, best_log = one, said
    if best is None or best_log is None:
        raise ConfigError("Nothing was tried.")
    mixture = Mixture(k=best.k, lam=best.lam, temperature=best.temperature)
    reached = best.perplexity
    if buckets > 1:
        mixture = bucketed(hits, mixture, best_log, lam, buckets)
        reached = math.exp(-log_mixed(alone, best_log, weights(hits, mixture)).mean())
    return Tuned(mixture, reached, math.exp(-alone.mean()), len(hits), tuple(tried))


def bucketed(
    hits: Hits, mixture: Mixture, said: Floats, lam: Sequence[float | int], buckets: int
) -> Mixture:
    """The same mixture with one λ a range of the nearest distance."""
    nearest = np.asarray(hits.distances[:, 0], dtype=np.float32)
    finite = nearest[np.isfinite(nearest)]
    edges = np.unique(np.quantile(finite, np.linspace(0, 1, buckets + 1)[1:-1])) if len(finite) \
        else np.empty(0)  # fmt: skip
    edges = edges.astype(np.float32)
    place = np.searchsorted(edges, nearest, side="left")
    alone = np.asarray(hits.log_lm, dtype=np.float64)
    chosen = []
    for bucket in range(len(edges) + 1):
        here = (place == bucket) & np.isfinite(nearest)
        losses = [-log_mixed(alone[here], said[here], np.full(here.sum(), w)).sum() for w in lam]
        chosen.append(float(lam[int(np.argmin(losses))]))
    return Mixture(
        k=mixture.k,
        lam=mixture.lam,
        temperature=mixture.temperature,
        edges=tuple(float(e) for e in edges),
        lams=tuple(chosen),
    )


def weights(hits: Hits, mixture: Mixture) -> Floats:
    """λ of every token; 0 where nothing was retrieved."""
    nearest = np.asarray(hits.distances[:, 0], dtype=np.float32)
    lam = np.full(len(nearest), float(mixture.lam))
    if mixture.lams:
        edges = np.asarray(mixture.edges, dtype=np.float32)
        lam = np.asarray(mixture.lams)[np.searchsorted(edges, nearest, side="left")]
    return np.where(np.isfinite(nearest), lam, 0.0)


def log_mixed(alone: Floats, said: Floats, lam: Floats) -> Floats:
    """log(λ p_kNN + (1 - λ) p_LM) of each token."""
    with np.errstate(divide="ignore"):
        mixed: Floats = np.logaddexp(np.log(lam) + said, np.log1p(-lam) + alone)
    return np.where(lam == 0, alone, mixed)
