"""The ∞-gram of an index mixed into what a model writes, as a logits processor of transformers.

What: P = λ P∞ + (1 - λ) P_model at every step, with one λ where the ∞-gram gives all its
probability to one token (sparse) and one elsewhere.
Source: Liu et al. (2024), "Infini-gram" (arXiv 2401.17377), section 4.2.
Differs from the paper: it mixes to score given text, this also to write. The end of a document is
the model's end token; what the ∞-gram gives to tokens that the model cannot write, or to those that
an earlier processor forbade, stays with the model.
Cost: one search of the index a token and sequence. Shapes: ids [B, T], scores [B, V].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor

from unspool.errors import ConfigError
from unspool.index.alphabet import END, Tokens

if TYPE_CHECKING:
    from unspool.index.engine import Index
    from unspool.index.results import NextCounts


@dataclass(frozen=True, kw_only=True, slots=True)
class MixWeights:
    """How much of the mixture is the ∞-gram's, between 0 and 1.

    The defaults are what fitted best for a small model and text of the kind that is indexed, but
    not the indexed text itself; more is right the nearer the two are.
    """

    sparse: int | float = 0.05
    """Where the ∞-gram gives all its probability to one token."""
    other: int | float = 0.02
    """Everywhere else."""

    def __post_init__(self) -> None:
        for name in ("sparse", "other"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"The {name} weight must be between 0 and 1, got {value}.")


class NgramMix(LogitsProcessor):
    """Mixes the ∞-gram of a token index into the scores of a model.

    Give it to transformers: `model.generate(ids, logits_processor=[NgramMix(index, tokenizer)])`.
    """

    def __init__(
        self,
        index: Index,
        tokenizer: Any,
        weights: MixWeights = MixWeights(),
        *,
        before: Sequence[int] = (),
        end_token: int | None = None,
    ) -> None:
        """Check that index and model speak the same tokens.

        Args:
            index: Built with `--alphabet tokenizer:…` of the model's own tokenizer.
            tokenizer: The model's, of transformers.
            weights: Of the mixture.
            before: Ids that the model has read already and `generate` is not given again, as when
                it goes on from a cache.
            end_token: Stands for the end of a document; None: the tokenizer's own.

        Raises:
            ConfigError: The index holds bytes, or the tokens of another tokenizer.
        """
        require_same_tokens(index, tokenizer)
        self.index, self.weights = index, weights
        self.before = list(before)
        self.end_token = tokenizer.eos_token_id if end_token is None else end_token

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Log-probabilities [B, V] of the mixture."""
        rows = [[*self.before, *row] for row in input_ids.tolist()]
        model = torch.softmax(scores.float(), dim=-1)
        mixed = model.clone()
        size = int(scores.shape[-1])
        for row, found in enumerate(self.index.infgram_counts(rows)):
            symbols, probabilities = self._usable(found, size)
            allowed = torch.isfinite(scores[row, symbols.to(scores.device)]).cpu()
            symbols, probabilities = symbols[allowed], probabilities[allowed]
            weight = self.weights.sparse if len(found.symbols) == 1 else self.weights.other
            mixed[row] *= 1 - weight * float(probabilities.sum())
            probabilities = weight * probabilities
            mixed[row].index_add_(0, symbols.to(mixed.device), probabilities.to(mixed))
        return mixed.log()

    def _usable(self, found: NextCounts, size: int) -> tuple[Tensor, Tensor]:
        """Tokens that the model can write, each once, and their ∞-gram probabilities."""
        symbols = found.symbols.copy()
        if self.end_token is not None:
            symbols[symbols == END] = self.end_token
        probabilities = found.counts / found.prompt_count
        inside = (symbols >= 0) & (symbols < size)
        symbols, place = np.unique(symbols[inside], return_inverse=True)
        summed = np.bincount(place, weights=probabilities[inside], minlength=len(symbols))
        return torch.from_numpy(symbols), torch.from_numpy(summed)


def require_same_tokens(index: Index, tokenizer: Any) -> None:
    """Refuse an index whose symbols are not the tokens of a model.

    Raises:
        ConfigError: It holds bytes, or the tokens of another tokenizer.
    """
    raw = index.tokenizer_json()
    if raw is None:
        raise ConfigError(
            "The n-gram model of a language model needs an index of its tokens, and this index "
            "has no tokenizer. Build one with: unspool index build … --alphabet tokenizer:MODEL"
        )
    ours = Tokens.from_bytes(raw).tokenizer.get_vocab(with_added_tokens=True)
    theirs = tokenizer.get_vocab()
    if ours != theirs:
        apart = len(dict(ours.items() ^ theirs.items()))
        raise ConfigError(
            f"The index holds the tokens of another tokenizer than the model's ({apart:,} tokens "
            "have another id or are not there). Build one with: unspool index build … --alphabet "
            "tokenizer:MODEL"
        )


def parse_mix(text: str) -> tuple[str, MixWeights]:
    """The directory and the weights of `DIR`, `DIR:WEIGHT` or `DIR:SPARSE,OTHER`.

    Raises:
        ConfigError: A weight is no number between 0 and 1, or there are more than two.
    """
    folder, colon, tail = text.rpartition(":")
    if not colon or not _is_numbers(tail) or Path(text).exists():
        return text, MixWeights()
    values = [float(part) for part in tail.split(",")]
    if not folder or len(values) > 2:
        raise ConfigError(
            f"An n-gram model is given as DIR, DIR:WEIGHT or DIR:SPARSE,OTHER, got {text!r}."
        )
    return folder, MixWeights(sparse=values[0], other=values[-1])


def _is_numbers(text: str) -> bool:
    try:
        return all(float(part) == float(part) for part in text.split(","))
    except ValueError:
        return False
