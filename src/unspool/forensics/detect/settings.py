"""What a detector is trained with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from unspool.errors import ConfigError
from unspool.types import Overflow

Cleaning = Literal["en", "none"]
_LEAST_LENGTH = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSettings:
    """The recipe. The defaults are those of the paper for RoBERTa; for BERT it has lam=0.5,
    prior=0.3 and len_threshold=60."""

    encoder: str = "minilm"
    """"minilm" (all-MiniLM-L6-v2 from its Python package), a folder, or a Hugging Face id."""
    lam: int | float = 0.4
    """Weight of the positive-unlabelled term; 0 trains by cross-entropy alone."""
    prior: int | float = 0.2
    """Of the abstract reader that decides the prior of a length."""
    len_threshold: int = 55
    """Tokens from which a text is long."""
    deletion: int | float = 0.25
    """Probability of deleting a sentence of a training text; 0 trains on texts as they are."""
    surrogate: Literal["prob", "logit"] = "prob"
    """What the surrogate loss is applied to: a probability, as released, or the margin."""
    prior_on: Literal["positive", "unlabelled"] = "positive"
    """Whose lengths decide the prior."""
    clean: Cleaning = "en"
    """Cleaning of every text, in training and in scoring."""
    epochs: int = 1
    """Passes over the training texts."""
    lr: int | float = 5e-5
    """Learning rate of AdamW, the same throughout."""
    weight_decay: int | float = 0.0
    """Of AdamW."""
    batch: int = 32
    """Texts a step."""
    max_length: int = 512
    """Most tokens of a text, special tokens included."""
    balanced: bool = False
    """Repeat texts of the smaller class until both are as large."""
    on_overflow: Overflow = "error"
    """What to do with a longer training text: refuse it, keep its first tokens and count the rest,
    or train on several windows of it."""
    target_fpr: int | float = 0.01
    """Share of human texts of a length that may be flagged."""
    min_tpr: int | float = 0.5
    """A length at which fewer machine texts are found is too short to say."""
    seed: int = 0
    """Of the order, the deletions, the dropout and the new weights."""

    def __post_init__(self) -> None:
        positive = ("epochs", "batch", "len_threshold")
        for name in positive:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.max_length < _LEAST_LENGTH:
            raise ConfigError(
                f"max_length must be at least {_LEAST_LENGTH} tokens, got {self.max_length}."
            )
        for name in ("prior", "deletion", "min_tpr"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie from 0 to 1, got {getattr(self, name)}.")
        if not 0 < self.target_fpr < 1:
            raise ConfigError(f"target_fpr must lie between 0 and 1, got {self.target_fpr}.")
        for name in ("lam", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be 0 or more, got {getattr(self, name)}.")
        if not 0 < self.lr < math.inf:
            raise ConfigError(f"lr must be above 0, got {self.lr}.")
        for name, kind in (("clean", Cleaning), ("on_overflow", Overflow)):
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(
                    f"{name} must be one of {', '.join(get_args(kind))}, "
                    f"got {getattr(self, name)!r}."
                )
