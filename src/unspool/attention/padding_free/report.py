"""How much padding was left out, how fast the rest ran, and how many operations that is.

What: counts over the forward passes of a packed model, and the multiplications of an encoder on
real tokens.
Source: Zhai et al. (2022), "ByteTransformer", section 3.1 (operations of an encoder layer) and 4
(alpha, the share of real tokens).
Differs from the paper: attention counts each sentence's own square, not an average length.
Cost: none. Shapes: n_b tokens of sentence b, T their sum, h hidden size, f size of the inner layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddingReport:
    """Counts of the forward passes since a model was made padding-free."""

    batches: int = 0
    sequences: int = 0
    """Rows, empty ones too."""
    tokens: int = 0
    """Real tokens: those that were computed."""
    padded_tokens: int = 0
    """Tokens of the padded batches: what a stock model would have computed."""
    filled_tokens: int = 0
    """Computed besides, to round rows up to few shapes."""
    seconds: float | int = 0.0
    """Inside the model's forward; on a GPU, of its work there."""

    @property
    def removed_tokens(self) -> int:
        """Padding that was not computed."""
        return self.padded_tokens - self.tokens

    @property
    def alpha(self) -> float:
        """Share of real tokens in the padded batches; 1 without any."""
        return self.tokens / self.padded_tokens if self.padded_tokens else 1.0

    @property
    def tokens_per_second(self) -> float:
        """Real tokens a second; 0 before anything ran."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "removed_tokens": self.removed_tokens,
            "alpha": self.alpha,
            "tokens_per_second": self.tokens_per_second,
        }


def encoder_flops(
    lengths: Sequence[int], *, hidden: int, layers: int, inner: int | None = None
) -> int:
    """Operations (a multiplication and an addition count two) of an encoder's matrix products.

    Args:
        lengths: Of the sentences; a padded batch is B times S.
        hidden: Hidden size.
        layers: Number of layers.
        inner: Size of the feed-forward layer; None: 4 * hidden.
    """
    inner = 4 * hidden if inner is None else inner
    tokens, squares = sum(lengths), sum(n * n for n in lengths)
    return layers * (tokens * (8 * hidden * hidden + 4 * hidden * inner) + 4 * hidden * squares)
