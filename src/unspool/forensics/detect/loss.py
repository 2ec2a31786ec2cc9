"""Multiscale positive-unlabelled loss: short machine texts count as unlabelled, not as machine.

What: cross-entropy plus `lam` times a non-negative positive-unlabelled risk in which long human
texts are the positives and short machine texts are unlabelled, with a prior that depends on length.
Source: Tian et al. (2023), "Multiscale Positive-Unlabeled Detection of AI-Generated Texts",
sections 3.1 and 3.2; Kiryo et al. (2017) for the non-negative risk.
Differs from the paper's wording, as its released code does: the prior is looked up at the length of
each positive (`prior_on="positive"`), all of which are long; "unlabelled" takes the mean over the
unlabelled lengths of the batch instead. The surrogate sigma(-x) is applied to a probability
(`surrogate="prob"`), which keeps the gradient of this term small; "logit" applies it to the margin.
Cost: O(B). Shapes: B texts; logits are [B, 2], class 0 human and class 1 machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from unspool.errors import ConfigError, InputError
from unspool.forensics.detect.prior import prior_table

Surrogate = Literal["prob", "logit"]
PriorOn = Literal["positive", "unlabelled"]


@dataclass(frozen=True, kw_only=True)
class MPULoss:
    """The loss as a function of logits, labels and lengths, for any training loop."""

    lam: int | float = 0.4
    """Weight of the positive-unlabelled term; 0 is plain cross-entropy."""
    prior: int | float = 0.2
    """Probability of a step down of the abstract reader."""
    threshold: int = 55
    """Tokens, special ones included, from which a text is long."""
    max_length: int = 512
    """Longest text in tokens."""
    surrogate: Surrogate = "prob"
    """What the sigmoid is applied to: the probability of human, or the margin."""
    prior_on: PriorOn = "positive"
    """Whose lengths decide the prior."""
    _table: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.lam < float("inf"):
            raise ConfigError(f"lam must be 0 or more, got {self.lam}.")
        for name, kind in (("surrogate", Surrogate), ("prior_on", PriorOn)):
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(
                    f"{name} must be {' or '.join(get_args(kind))}, got {getattr(self, name)!r}."
                )
        if self.threshold < 0:
            raise ConfigError(f"threshold must be 0 tokens or more, got {self.threshold}.")
        table = torch.from_numpy(prior_table(self.prior, self.max_length))
        object.__setattr__(self, "_table", table)

    def __call__(
        self, logits: Float[Tensor, "B 2"], labels: Int[Tensor, " B"], lengths: Int[Tensor, " B"]
    ) -> Float[Tensor, ""]:
        """The mean loss of a batch.

        Args:
            logits: Of human and machine.
            labels: 0 human, 1 machine.
            lengths: Tokens of each text without padding, special tokens included.

        Raises:
            InputError: A length is above `max_length`.
        """
        cross_entropy = F.cross_entropy(logits, labels)
        if self.lam == 0:
            return cross_entropy
        return cross_entropy + self.lam * self.unlabelled(logits, labels, lengths)

    def unlabelled(
        self, logits: Float[Tensor, "B 2"], labels: Int[Tensor, " B"], lengths: Int[Tensor, " B"]
    ) -> Float[Tensor, ""]:
        """The positive-unlabelled term alone."""
        if len(lengths) and int(lengths.max()) > self.max_length:
            raise InputError(
                f"A text of {int(lengths.max())} tokens is longer than max_length="
                f"{self.max_length}. Make the loss with the model's longest length."
            )
        margin = logits[:, 0] - logits[:, 1]
        g = logits.softmax(-1)[:, 0] if self.surrogate == "prob" else margin
        long = lengths >= self.threshold
        positive = ((labels == 0) & long).to(g.dtype)
        unlabelled = ((labels == 1) & ~long).to(g.dtype)
        of_length = self._table.to(device=g.device, dtype=g.dtype)[lengths]
        num_positive = positive.sum().clamp(min=1)
        num_unlabelled = unlabelled.sum().clamp(min=1)
        if self.prior_on == "positive":
            weight = positive * of_length / num_positive
        else:
            weight = positive * (unlabelled * of_length).sum() / num_unlabelled / num_positive
        as_positive = (weight * torch.sigmoid(-g)).sum()
        as_negative = (unlabelled * torch.sigmoid(g)).sum() / num_unlabelled - (
            weight * torch.sigmoid(g)
        ).sum()
        return as_positive + as_negative if as_negative >= 0 else as_positive
