"""Which tokens a datastore helps and which it hurts.

What: for every token the gain log p_mix - log p_LM; the shares of tokens that lose and win, what
each side is worth, and where the gains sit: by how often a token stands in the datastore, by kind
of token, by λ, by position in the document, and along the sorted gains.
Source: Wang et al. (2023), "KNN-LM Does Not Improve Open-ended Text Generation", section 5 (most
tokens get worse, a few get much better).
Differs from the paper: parts of speech need a tagger, which cannot be had everywhere; tokens are
classed by their spelling instead (piece of a word, function word, number, mark, space, other).
Intervals draw whole documents anew; of under ten documents, stretches of at most 256 tokens.
Cost: one pass over the hits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unspool.forensics.knn_lm.hits import Hits
from unspool.forensics.knn_lm.mixture import Mixture
from unspool.forensics.knn_lm.tune import LAMBDAS, Floats, log_mixed, weights

_STRETCH, _FEW_DOCUMENTS, _POINTS = 256, 10, 101
FREQUENCIES = (0, 1, 10, 100, 1000, 10_000)
"""Edges of the buckets of how often a token stands in the datastore."""
_FUNCTION = frozenset(
    """
    the a an and or but nor so yet if then than as of in on at by for with from to into onto
    over under between through during before after about against within without is are was were
    be been being am do does did has have had can could will would shall should may might must
    not no it its he she they them their his her we us our you your i me my this that these
    those there here which who whom whose what when where why how all any each both few more
    most other some such only own same too very
    """.split()  # noqa: SIM905 - a list of 120 strings would be a line each
)


@dataclass(frozen=True, slots=True)
class Group:
    """Tokens that have something in common."""

    name: str
    tokens: int
    hurt: float
    """Share that the mixture makes less likely."""
    gain: float
    """Mean of log p_mix - log p_LM, in nats."""
    total: float
    """Sum of the gains over the number of all tokens: what the group adds to the mean."""


@dataclass(frozen=True, slots=True)
class TokenSplit:
    """What a mixture does to the tokens of a text. Gains are in nats."""

    tokens: int
    ppl_lm: float
    ppl_mix: float
    ppl_knn: float | None
    """None: infinite, because some token is no neighbour's."""
    without_neighbour: float
    """Share of tokens that no neighbour has."""
    drop: tuple[float, float, float]
    """Relative drop of perplexity, and its 95% interval."""
    share_hurt: float
    share_helped: float
    share_hurt_interval: tuple[float, float]
    mean_delta_hurt: float
    mean_delta_helped: float
    ppl_hurt: tuple[float, float]
    """Of model and mixture on the tokens that lose; helped likewise."""
    ppl_helped: tuple[float, float]
    top_decile_share: float
    """Share of all that is won which the best tenth of the tokens wins."""
    contribution: tuple[float, ...]
    """Cumulative sum of the sorted gains, best first, at 101 equal steps, per token."""
    by_frequency: tuple[Group, ...]
    by_kind: tuple[Group, ...]
    by_position: tuple[Group, ...]
    by_weight: tuple[dict[str, float], ...]
    """For each λ: perplexity and share of tokens hurt, which is the same for all above 0."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def split_tokens(
    hits: Hits,
    mixture: Mixture,
    counts: NDArray[np.int64] | None = None,
    spell: Callable[[int], str] | None = None,
    *,
    seed: int = 0,
    rounds: int = 1000,
) -> TokenSplit:
    """Measure a mixture token by token.

    Args:
        hits: Of the text.
        mixture: λ (or its step function), k and temperature.
        counts: How often each token id stands in the datastore.
        spell: The text of a token id.
        seed: Of the intervals.
        rounds: Of the intervals.
    """
    alone = np.asarray(hits.log_lm, dtype=np.float64)
    said = hits.log_retrieved(min(mixture.k, hits.k), mixture.temperature)
    lam = weights(hits, mixture)
    mixed = log_mixed(alone, said, lam)
    gain = mixed - alone
    hurt, helped = gain < 0, gain > 0
    finite = bool(np.isfinite(said).all())
    owner = _owners(hits)
    drop, hurt_range = _intervals(alone, mixed, owner, seed, rounds)
    order = np.sort(gain)[::-1]
    won = float(gain[helped].sum())
    tenth = order[: max(1, math.ceil(len(order) / 10))]
    targets = np.asarray(hits.targets)
    return TokenSplit(
        tokens=len(hits),
        ppl_lm=math.exp(-alone.mean()),
        ppl_mix=math.exp(-mixed.mean()),
        ppl_knn=math.exp(-said.mean()) if finite else None,
        without_neighbour=float(np.isneginf(said).mean()),
        drop=drop,
        share_hurt=float(hurt.mean()),
        share_helped=float(helped.mean()),
        share_hurt_interval=hurt_range,
        mean_delta_hurt=float(gain[hurt].mean()) if hurt.any() else 0.0,
        mean_delta_helped=float(gain[helped].mean()) if helped.any() else 0.0,
        ppl_hurt=_perplexities(alone, mixed, hurt),
        ppl_helped=_perplexities(alone, mixed, helped),
        top_decile_share=float(tenth[tenth > 0].sum()) / won if won > 0 else 0.0,
        contribution=_contribution(order),
        by_frequency=_by_frequency(gain, targets, counts),
        by_kind=_by_kind(gain, targets, spell),
        by_position=_by_position(gain, np.asarray(hits.positions)),
        by_weight=_by_weight(alone, said, np.isfinite(np.asarray(hits.distances[:, 0]))),
    )


def _perplexities(alone: Floats, mixed: Floats, here: NDArray[np.bool_]) -> tuple[float, float]:
    if not here.any():
        return (0.0, 0.0)
    return math.exp(-alone[here].mean()), math.exp(-mixed[here].mean())


def _owners(hits: Hits) -> NDArray[np.int64]:
    """What is drawn anew together: documents, or stretches where there are few."""
    documents = np.asarray(hits.documents, dtype=np.int64)
    if len(np.unique(documents)) >= _FEW_DOCUMENTS:
        return documents
    stretch = max(1, min(_STRETCH, len(hits) // _FEW_DOCUMENTS))
    return np.arange(len(hits)) // stretch


def _intervals(
    alone: Floats, mixed: Floats, owner: NDArray[np.int64], seed: int, rounds: int
) -> tuple[tuple[float, float, float], tuple[float, float]]:
    _, place = np.unique(owner, return_inverse=True)
    parts = int(place.max()) + 1
    sums = np.stack(
        [
            np.bincount(place, mixed - alone, parts),
            np.bincount(place, mixed < alone, parts),
            np.bincount(place, minlength=parts).astype(np.float64),
        ],
        axis=1,
    )
    drawn = sums[np.random.default_rng(seed).integers(0, parts, (rounds, parts))].sum(axis=1)
    drops = 1 - np.exp(-drawn[:, 0] / drawn[:, 2])
    low, high = np.quantile(drops, [0.025, 0.975])
    hurt_low, hurt_high = np.quantile(drawn[:, 1] / drawn[:, 2], [0.025, 0.975])
    whole = float(1 - np.exp(-(mixed - alone).mean()))
    return (whole, float(low), float(high)), (float(hurt_low), float(hurt_high))


def _contribution(order: Floats) -> tuple[float, ...]:
    total = np.concatenate([[0.0], np.cumsum(order)]) / len(order)
    at = np.linspace(0, len(order), _POINTS)
    return tuple(float(x) for x in np.interp(at, np.arange(len(total)), total))


def _group(name: str, gain: Floats, here: NDArray[np.bool_]) -> Group:
    some = gain[here]
    return Group(
        name, len(some), float((some < 0).mean()), float(some.mean()), float(some.sum() / len(gain))
    )


def _grouped(gain: Floats, named: Sequence[tuple[str, NDArray[np.bool_]]]) -> tuple[Group, ...]:
    return tuple(_group(name, gain, here) for name, here in named if here.any())


def _by_frequency(
    gain: Floats, targets: NDArray[np.int32], counts: NDArray[np.int64] | None
) -> tuple[Group, ...]:
    if counts is None:
        return ()
    known = np.zeros(max(len(counts), int(targets.max()) + 1), dtype=np.int64)
    known[: len(counts)] = counts
    seen = known[targets]
    named = []
    for low, high in zip(FREQUENCIES, [*FREQUENCIES[1:], None], strict=True):
        here = (seen >= low) & (seen < high) if high is not None else seen >= low
        top = f"{low:,} and more" if high is None else f"{low:,} to {high - 1:,}"
        named.append(("0" if high == 1 else top, here))
    return _grouped(gain, named)


def kind_of(text: str) -> str:
    """What sort of token a spelling is, without a tagger."""
    bare = text.strip()
    if not bare:
        return "space"
    if re.fullmatch(r"[\d.,:]*\d[\d.,:]*", bare):
        return "number"
    if not any(c.isalnum() for c in bare):
        return "mark"
    if not text[:1].isspace() and not text[:1].isupper():
        return "piece of a word"
    return "function word" if bare.lower() in _FUNCTION else "other word"


def _by_kind(
    gain: Floats, targets: NDArray[np.int32], spell: Callable[[int], str] | None
) -> tuple[Group, ...]:
    if spell is None:
        return ()
    kinds = {int(i): kind_of(spell(int(i))) for i in np.unique(targets)}
    named = np.array([kinds[int(i)] for i in targets])
    order = ("other word", "function word", "piece of a word", "number", "mark", "space")
    return _grouped(gain, [(name, named == name) for name in order])


def _by_position(gain: Floats, positions: NDArray[np.int32]) -> tuple[Group, ...]:
    edges = [0, 16, 64, 256, 1024]
    named = []
    for low, high in zip(edges, [*edges[1:], None], strict=True):
        here = (positions >= low) & (positions < high) if high else positions >= low
        named.append((f"{low:,} to {high - 1:,}" if high else f"{low:,} and more", here))
    return _grouped(gain, named)


def _by_weight(
    alone: Floats, said: Floats, found: NDArray[np.bool_]
) -> tuple[dict[str, float], ...]:
    rows = []
    for weight in LAMBDAS:
        mixed = log_mixed(alone, said, np.where(found, weight, 0.0))
        rows.append(
            {
                "lam": weight,
                "perplexity": math.exp(-mixed.mean()),
                "share_hurt": float((mixed < alone).mean()),
            }
        )
    return tuple(rows)
