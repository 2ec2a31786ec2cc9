"""How good a predictor is on prompts that it did not see, beside knowing only the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unspool.errors import InputError
from unspool.forensics.lengths.predictor import LEVELS, Predictor, pinball
from unspool.forensics.lengths.rows import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Means over prompts, each predicted by a fit that did not see it."""

    prompts: int
    loss: float
    """Pinball loss over the levels of a prediction, tokens."""
    baseline: float
    """The same of the quantiles of all training answers of the same model."""
    coverage: float
    """Share of answers that do not exceed the predicted 90% quantile."""

    @property
    def gain(self) -> float:
        """How much lower the loss is than the baseline's, as a share of it."""
        return 1 - self.loss / self.baseline if self.baseline else 0.0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "gain": self.gain}


def held_out(
    rows: Sequence[Row],
    *,
    encoder: str = "features",
    penalty: int | float = 1.0,
    folds: int = 5,
) -> HeldOut:
    """Cross-validate a predictor; all rows of a prompt are in one fold.

    Raises:
        InputError: Too few prompts, or several caps.
    """
    prompts = sorted({row.prompt_id for row in rows})
    if len(prompts) < 2 * folds:
        raise InputError(
            f"Testing on held-out prompts needs at least {2 * folds} prompts, got {len(prompts)}."
        )
    place = {p: i % folds for i, p in enumerate(prompts)}
    losses, plain, within, answers = [], [], 0, 0
    for fold in range(folds):
        train = [row for row in rows if place[row.prompt_id] != fold]
        fitted = Predictor.fit(train, encoder=encoder, penalty=penalty)
        marginal = {model: _quantiles(train, model) for model in {row.model for row in rows}}
        for row in (row for row in rows if place[row.prompt_id] == fold):
            said = fitted.predict([row.prompt_text], model=row.model, dataset=row.dataset)[0]
            losses.append(pinball(row.output_sizes, said.quantiles))
            plain.append(pinball(row.output_sizes, marginal[row.model]))
            within += sum(size <= said.quantiles[0.9] for size in row.output_sizes)
            answers += len(row.output_sizes)
    return HeldOut(
        prompts=len(prompts),
        loss=float(np.mean(losses)),
        baseline=float(np.mean(plain)),
        coverage=within / answers,
    )


def _quantiles(rows: Sequence[Row], model: str) -> dict[float, float]:
    own = [row for row in rows if row.model == model] or list(rows)
    sizes = np.concatenate([row.output_sizes for row in own])
    return dict(zip(LEVELS, np.quantile(sizes, LEVELS).tolist(), strict=True))
