"""Continuations by a model with and without its datastore, and the entropies along them.

What: cuts prefixes and their human continuations out of texts, continues them by nucleus sampling
from the model or from the mixture, and reads any continuation once more to record, at each step,
the entropy of p_kNN and of p_LM and the Jensen-Shannon divergence between the two.
Source: Wang et al. (2023), sections 4 and 6; Holtzman et al. (2020), nucleus sampling.
Differs from the paper: entropies are read off the finished texts, the same way for human text and
for both arms; no text ends early (end tokens are not drawn), so that all have the same length; each
text draws from a random stream of its own, so batches do not change it.
Cost: a pass a token with a search in the mixture arm, and one pass with a search a token for the
record. Shapes: n texts, P prefix, L new tokens; states [n, D], logits [n, V].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unspool.errors import ConfigError, InputError
from unspool.forensics.knn_lm.hits import Retriever
from unspool.forensics.knn_lm.mixture import Mixture, log_knn, mix, weight_of
from unspool.forensics.knn_lm.read import last_only
from unspool.forensics.knn_lm.states import Capture, locate
from unspool.forensics.knn_lm.windows import Ids, Tokens

if TYPE_CHECKING:
    from torch import Tensor

Arm = Literal["lm", "mix"]
_HEAD = 2048
"""Likeliest tokens that are sorted first; the whole row only where they are not enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuing:
    """What is continued, and how."""

    n: int = 200
    """Prefixes."""
    prefix: int = 128
    """Tokens of a prefix."""
    new: int = 256
    """Tokens written."""
    top_p: float | int = 0.9
    """Draw from the likeliest tokens that hold this much; 1 draws from all."""
    seeds: int = 5
    """Continuations of a prefix and arm."""
    seed: int = 0
    """Of the choice of prefixes; continuations are drawn from seed, seed + 1, ..."""

    def __post_init__(self) -> None:
        if min(self.n, self.prefix, self.new, self.seeds) < 1:
            raise ConfigError(
                f"n, prefix, new and seeds must be >= 1, got n={self.n}, prefix={self.prefix}, "
                f"new={self.new}, seeds={self.seeds}."
            )
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p must be above 0 and at most 1, got {self.top_p}.")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Prompts(NamedTuple):
    """Beginnings of texts and how people went on."""

    prefixes: NDArray[np.int32]
    """[n, P]"""
    human: NDArray[np.int32]
    """[n, L]"""
    documents: NDArray[np.int32]


class Course(NamedTuple):
    """Of each new token of each text, [n, L], in nats."""

    knn: NDArray[np.float64]
    """Entropy of p_kNN; NaN where nothing was retrieved."""
    lm: NDArray[np.float64]
    """Entropy of p_LM."""
    js: NDArray[np.float64]
    """Jensen-Shannon divergence between the two."""


def cut_prompts(tokens: Tokens, settings: Continuing) -> Prompts:
    """Prefixes that do not overlap, from as many documents as there are.

    Raises:
        InputError: The texts are too short for so many.
    """
    size = settings.prefix + settings.new
    draw = np.random.default_rng(settings.seed)
    rounds: dict[int, list[tuple[int, int]]] = {}
    for number in range(len(tokens)):
        length = len(tokens.document(number))
        places = draw.permutation(length // size)
        slack = int(draw.integers(length % size + 1))
        for turn, place in enumerate(places.tolist()):
            rounds.setdefault(turn, []).append((number, slack + place * size))
    chosen: list[tuple[int, int]] = []
    for turn in sorted(rounds):
        row = rounds[turn]
        chosen += [row[i] for i in draw.permutation(len(row))]
    if len(chosen) < settings.n:
        raise InputError(
            f"{settings.n} prefixes of {settings.prefix} tokens and {settings.new} after them were "
            f"asked for, and the texts hold {len(chosen)}. Give more text, or ask for fewer."
        )
    kept = chosen[: settings.n]
    rows = np.stack([tokens.document(d)[start : start + size] for d, start in kept])
    return Prompts(
        rows[:, : settings.prefix],
        rows[:, settings.prefix :],
        np.array([d for d, _ in kept], dtype=np.int32),
    )


def continue_texts(
    model: Any,
    retriever: Retriever | None,
    mixture: Mixture,
    prefixes: NDArray[np.int32],
    new: int,
    *,
    streams: Sequence[Sequence[int]],
    top_p: float | int = 0.9,
    before: Sequence[int] = (),
    ends: Sequence[int] = (),
) -> NDArray[np.int32]:
    """Continue texts of one length by nucleus sampling.

    Args:
        model: A causal language model of transformers.
        retriever: Mixed in; None: the model alone.
        mixture: How it is mixed in.
        prefixes: [n, P].
        new: Tokens to write.
        streams: The random stream of each text, as numbers; equal ones draw equally.
        top_p: Share of the probability that is drawn from; 0 takes the likeliest token.
        before: Put before every prefix, such as a token of beginning.
        ends: Tokens that are not drawn.

    Returns:
        The new tokens, [n, L].
    """
    import torch

    draws = np.stack([np.random.default_rng(list(s)).random(new) for s in streams])
    uniform = torch.from_numpy(draws).to(model.device)
    known = np.concatenate([_ahead(before, len(prefixes)), prefixes], axis=1)
    written = np.zeros((len(prefixes), new), dtype=np.int32)
    cache: Any = None
    keep = last_only(model)
    fed = torch.from_numpy(known.astype(np.int64)).to(model.device)
    capture = Capture(locate(model, retriever.layer)) if retriever is not None else None
    with torch.inference_mode():
        if capture is not None:
            capture.__enter__()
        try:
            for step in range(new):
                out = model(fed, past_key_values=cache, use_cache=True, **keep)
                cache = out.past_key_values
                said = torch.log_softmax(out.logits[:, -1].float(), dim=-1)
                if retriever is not None and capture is not None:
                    states = capture.take(len(prefixes))[:, -1]
                    texts = np.concatenate([prefixes, written[:, :step]], axis=1)
                    near = retriever.retrieve(states, list(texts), mixture.k)
                    retrieved = log_knn(near, mixture.temperature, said.shape[1])
                    said = mix(said, retrieved, weight_of(near, mixture))
                if len(ends):
                    said[:, list(ends)] = -math.inf
                token = _drawn(said, uniform[:, step], top_p)
                written[:, step] = token.cpu().numpy()
                fed = token[:, None]
        finally:
            if capture is not None:
                capture.__exit__()
    return written


def _ahead(before: Sequence[int], count: int) -> Ids:
    return np.tile(np.asarray(before, dtype=np.int32), (count, 1))


def _drawn(said: Tensor, uniform: Tensor, top_p: float | int) -> Tensor:
    """One token a row from the smallest set of likeliest tokens that holds `top_p`."""
    import torch

    if top_p == 0:
        return said.argmax(dim=1)
    chances = said.exp()
    chances = chances / chances.sum(dim=1, keepdim=True)
    head = chances.topk(min(_HEAD, chances.shape[1]), dim=1)
    values, ids = head.values, head.indices
    if bool((values.sum(dim=1) < top_p).any()):
        values, ids = chances.sort(dim=1, descending=True)
    mass = values.double().cumsum(dim=1)
    values = values.double().masked_fill(mass - values.double() >= top_p, 0.0)
    mass = values.cumsum(dim=1)
    place = torch.searchsorted(mass, (uniform * mass[:, -1])[:, None], right=True)
    last = (values > 0).sum(dim=1, keepdim=True) - 1
    return ids.gather(1, torch.minimum(place, last))[:, 0]


def observe(
    model: Any,
    retriever: Retriever,
    mixture: Mixture,
    prefixes: NDArray[np.int32],
    written: NDArray[np.int32],
    *,
    before: Sequence[int] = (),
) -> Course:
    """Read texts and record entropies at each token after the prefix.

    Args:
        model: A causal language model of transformers.
        retriever: Where p_kNN comes from.
        mixture: Its k and temperature; λ plays no part.
        prefixes: [n, P].
        written: What follows, by whoever wrote it, [n, L].
        before: Put before every prefix.
    """
    import torch

    known = np.concatenate([_ahead(before, len(prefixes)), prefixes, written], axis=1)
    first = len(before) + prefixes.shape[1] - 1
    courses = []
    with torch.inference_mode(), Capture(locate(model, retriever.layer)) as capture:
        for row in known:  # logits of one text at a time: a vocabulary is wide
            ids = torch.from_numpy(row[None].astype(np.int64)).to(model.device)
            logits = model(ids, use_cache=False).logits[0, first:-1]
            states = capture.take(1)[0, first:-1]
            contexts = [row[len(before) : first + 1 + i] for i in range(len(states))]
            courses.append(_course(logits, states, contexts, retriever, mixture))
    return Course(*(np.stack(part) for part in zip(*courses, strict=True)))


def _course(
    logits: Tensor, states: Tensor, contexts: Sequence[Ids], retriever: Retriever, mixture: Mixture
) -> Course:
    import torch

    said = torch.log_softmax(logits.float(), dim=-1)
    near = retriever.retrieve(states, contexts, mixture.k)
    retrieved = log_knn(near, mixture.temperature, said.shape[1])
    half = torch.full((len(said),), 0.5, device=said.device)
    middle = mix(said, retrieved, half)
    h_lm, h_knn, h_middle = (entropy(x).double().cpu().numpy() for x in (said, retrieved, middle))
    none = near.distances[:, 0].isinf().cpu().numpy()
    h_knn[none] = np.nan
    js = np.where(none, np.nan, np.maximum(h_middle - (h_lm + h_knn) / 2, 0))
    return Course(h_knn, h_lm, js)


def entropy(log_p: Tensor) -> Tensor:
    """Entropy of each row of log-probabilities, in nats; 0 log 0 is 0."""
    return -(log_p.exp() * log_p.masked_fill(log_p.isneginf(), 0.0)).sum(dim=-1)
