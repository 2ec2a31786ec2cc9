"""Predict the distribution of answer lengths from a prompt, before a token is written.

What: a ridge regression of the logarithm of lengths, a second one of its spread, and the quantiles
of what neither explains, taken from folds that were held out. Quantiles never cross.
Source: the task of Perez-Ramirez et al. (2025), "CASTILLO", section 5 and its released scripts;
Hoerl and Kennard (1970) for ridge; the quantiles are those of a location-scale model.
Differs from the released scripts: no encoder is trained; whole distributions are predicted in place
of a mean and deviation or a class; statistics of scaling come from the training rows alone (theirs
come from each split); models and corpora that were not seen get the average.
Cost: one linear system of at most 300 unknowns; a fit takes seconds, a prediction microseconds.
The file is JSON.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import orjson
from numpy.typing import NDArray

from unspool.errors import ConfigError, InputError, PathNotFound
from unspool.forensics.lengths.features import (
    BUCKETS,
    Encoder,
    document_weights,
    surface,
    weighted,
)
from unspool.forensics.lengths.rows import Row, caps_of
from unspool.index._files import storage, write_atomic

LEVELS = (*(round(0.05 * i, 2) for i in range(1, 20)), 0.99)
_FOLDS = 5
_FLOOR = 0.1
_FORMAT = 1


class Predicted(NamedTuple):
    """Lengths to expect, in tokens."""

    mean: float
    std: float
    quantiles: dict[float, float]


@dataclass(frozen=True, slots=True)
class Predictor:
    """A fitted predictor."""

    encoder: str
    models: tuple[str, ...]
    datasets: tuple[str, ...]
    rarity: tuple[float, ...]
    """Of the buckets of words; empty without them."""
    location: tuple[float, ...]
    """Weights of the logarithm of a length, the constant first."""
    spread: tuple[float, ...]
    """Weights of the logarithm of its deviation."""
    residuals: tuple[float, ...]
    """What is left, in deviations, at the levels of `LEVELS`."""
    cap: int | None
    rows: int
    cut: float
    """Share of training answers that were cut: quantiles that reach the cap are lower bounds."""

    @classmethod
    def fit(
        cls, rows: Sequence[Row], *, encoder: str = "features", penalty: int | float = 1.0
    ) -> Predictor:
        """Fit on rows collected under one cap.

        Args:
            rows: At least eight prompts.
            encoder: `features` counts and marks, `tfidf` those and hashed words.
            penalty: Ridge penalty in rows.

        Raises:
            ConfigError: There is no such encoder, or the penalty is negative.
            InputError: Too few prompts, or several caps.
        """
        if encoder not in get_args(Encoder):
            raise ConfigError(
                f"encoder must be one of {', '.join(get_args(Encoder))}, got {encoder!r}."
            )
        if not math.isfinite(penalty) or penalty <= 0:
            raise ConfigError(f"penalty must be above 0, got {penalty}.")
        prompts = sorted({row.prompt_id for row in rows})
        if len(prompts) < 8:
            raise InputError(f"A predictor needs at least 8 prompts, got {len(prompts)}.")
        caps = caps_of(rows)
        if len(caps) > 1:
            raise InputError(
                f"The rows have several caps ({', '.join(sorted(map(str, caps)))}). Fit them apart."
            )
        models = tuple(sorted({row.model for row in rows}))
        datasets = tuple(sorted({row.dataset for row in rows}))
        texts = [row.prompt_text for row in rows]
        rarity = document_weights(texts) if encoder == "tfidf" else np.zeros(0)
        x = np.stack([_inputs(r.prompt_text, r.model, r.dataset, models, datasets, rarity)
                      for r in rows])  # fmt: skip
        logs = [np.log(np.asarray(row.output_sizes, dtype=np.float64)) for row in rows]
        place = {p: i % _FOLDS for i, p in enumerate(prompts)}
        folds = np.array([place[row.prompt_id] for row in rows])
        left = []
        for fold in range(_FOLDS):
            train = np.flatnonzero(folds != fold)
            held = np.flatnonzero(folds == fold)
            location, spread = _two_stages(x[train], [logs[i] for i in train], penalty)
            left += [
                (logs[i] - _apply(location, x[i])) / math.exp(_apply(spread, x[i])) for i in held
            ]
        location, spread = _two_stages(x, logs, penalty)
        cap = next(iter(caps))
        answers = sum(len(row.output_sizes) for row in rows)
        return cls(
            encoder=encoder,
            models=models,
            datasets=datasets,
            rarity=tuple(rarity.tolist()),
            location=tuple(location.tolist()),
            spread=tuple(spread.tolist()),
            residuals=tuple(np.quantile(np.concatenate(left), LEVELS).tolist()),
            cap=cap,
            rows=len(rows),
            cut=sum(row.truncated for row in rows) / answers,
        )

    def predict(
        self, prompts: Sequence[str], *, model: str = "", dataset: str = ""
    ) -> list[Predicted]:
        """Lengths to expect for each prompt. A model or corpus never seen counts as the average."""
        found = []
        rarity = np.asarray(self.rarity)
        location, spread = np.asarray(self.location), np.asarray(self.spread)
        for text in prompts:
            x = _inputs(text, model, dataset, self.models, self.datasets, rarity)
            middle, scale = _apply(location, x), math.exp(_apply(spread, x))
            # A prompt far from all that was seen must not overflow.
            logs = np.clip(middle + scale * np.asarray(self.residuals), 0.0, 20.0)
            values = np.exp(logs)
            if self.cap is not None:
                values = np.minimum(values, self.cap + 1)
            weights = np.diff(np.concatenate([[0.0], LEVELS[:-1], [1.0]]))
            mean = float((weights * values).sum())
            std = math.sqrt(float((weights * (values - mean) ** 2).sum()))
            found.append(Predicted(mean, std, dict(zip(LEVELS, map(float, values), strict=True))))
        return found

    def save(self, path: str | Path) -> None:
        """Write the predictor as JSON, whole or not at all."""
        place = Path(path)
        value = {"format": _FORMAT, **{name: getattr(self, name) for name in self.__slots__}}
        with storage(place.parent):
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(place, [orjson.dumps(value, option=orjson.OPT_SORT_KEYS), b"\n"])

    @classmethod
    def load(cls, path: str | Path) -> Predictor:
        """Read what `save` wrote.

        Raises:
            PathNotFound: There is no such file.
            InputError: It is not a predictor, or of another version.
        """
        place = Path(path)
        if not place.is_file():
            raise PathNotFound(f"There is no predictor at {str(place)!r}.")
        try:
            value = orjson.loads(place.read_bytes())
            sound = value.pop("format") == _FORMAT and set(value) == set(cls.__slots__)
        except (orjson.JSONDecodeError, KeyError, AttributeError, TypeError):
            sound = False
        if sound:
            made: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
            words = BUCKETS if made["encoder"] == "tfidf" else 0
            size = 1 + len(surface("")) + words + len(made["models"]) + len(made["datasets"])
            sizes = (len(made["location"]), len(made["spread"]), len(made["rarity"]))
            sound = sizes == (size, size, words) and len(made["residuals"]) == len(LEVELS)
        if not sound:
            raise InputError(f"{place.name} is not a predictor of this version. Fit it again.")
        return cls(**made)


def _inputs(
    text: str,
    model: str,
    dataset: str,
    models: Sequence[str],
    datasets: Sequence[str],
    rarity: NDArray[np.float64],
) -> NDArray[np.float64]:
    words = weighted(text, rarity) if len(rarity) else rarity
    which = [*(float(model == m) for m in models), *(float(dataset == d) for d in datasets)]
    if model not in models:
        which[: len(models)] = [1 / len(models)] * len(models)
    if dataset not in datasets:
        which[len(models) :] = [1 / len(datasets)] * len(datasets)
    return np.concatenate([[1.0], surface(text), words, which])


def _apply(weights: NDArray[np.float64], x: NDArray[np.float64]) -> float:
    return float(x @ weights)


def _two_stages(
    x: NDArray[np.float64], logs: Sequence[NDArray[np.float64]], penalty: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights of the location and of the logarithm of the spread around it."""
    location = ridge(x, np.array([each.mean() for each in logs]), penalty, _FLOOR)
    around = [float(np.abs(each - _apply(location, row)).mean()) for each, row in
              zip(logs, x, strict=True)]  # fmt: skip
    return location, ridge(x, np.log(np.maximum(around, 1e-3)), penalty, _FLOOR)


def ridge(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    penalty: int | float,
    floor: float = 0.0,
) -> NDArray[np.float64]:
    """Weights that minimise squared error + penalty x squared scaled weights; column 0, the
    constant, is free. Columns are scaled to deviation 1 and constant ones get no weight. Those with
    a deviation under `floor` are scaled by the floor: a word that one prompt has must not count as
    much as a mark that half of them have."""
    middle, scale = x[:, 1:].mean(0), x[:, 1:].std(0)
    used = scale > 1e-12
    scale = np.maximum(scale, floor)
    z = np.where(used, (x[:, 1:] - middle) / np.where(used, scale, 1.0), 0.0)
    inner = np.linalg.solve(z.T @ z + penalty * np.eye(z.shape[1]), z.T @ (y - y.mean()))
    weights = np.where(used, inner / np.where(used, scale, 1.0), 0.0)
    return np.concatenate([[float(y.mean() - middle @ weights)], weights])


def pinball(actual: Sequence[int], quantiles: dict[float, float]) -> float:
    """Mean pinball loss of predicted quantiles, in tokens: lower is better."""
    levels = np.array(list(quantiles))
    gap = np.asarray(actual, dtype=np.float64)[:, None] - np.array(list(quantiles.values()))
    return float(np.maximum(levels * gap, (levels - 1) * gap).mean())
