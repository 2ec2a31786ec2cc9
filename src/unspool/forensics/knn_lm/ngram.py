"""An n-gram index in place of a datastore: p_∞ where p_kNN stood.

What: gives the continuations of the longest suffix of a context that an index of tokens holds, as
neighbours whose distances are -log of their share, so that a temperature of 1 is the ∞-gram.
Source: Liu et al. (2024), "Infini-gram", section 3; the analyses of Wang et al. (2023).
Differs from both: the end of a document is no token and is left out of the shares; of more than k
continuations the k most frequent count.
Cost: one look-up a token. Shapes: n contexts, up to k continuations each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unspool.forensics.knn_lm.mixture import Neighbours
from unspool.forensics.knn_lm.states import Layer
from unspool.forensics.knn_lm.windows import Ids, Reading

if TYPE_CHECKING:
    from torch import Tensor

    from unspool.index.engine import Index


class NgramRetriever:
    """What an evaluation asks of a datastore, answered by an index of tokens."""

    def __init__(self, index: Index, tokenizer: Any, reading: Reading | None = None) -> None:
        """Take an open index of the model's tokens.

        Args:
            index: Of `open_index`, built with `alphabet="tokenizer:..."`.
            tokenizer: The model's.
            reading: The windows that the model reads test texts in.

        Raises:
            ConfigError: The index holds bytes, or tokens of another tokenizer.
        """
        from unspool.backends.ngram import require_same_tokens

        require_same_tokens(index, tokenizer)
        self.index, self._reading = index, reading or Reading()

    @property
    def layer(self) -> Layer:
        """States are caught but not looked at."""
        return "ffn_input"

    @property
    def reading(self) -> Reading:
        """The windows that test texts are read in."""
        return self._reading

    @property
    def identity(self) -> str:
        """Tells this index from others."""
        info = self.index.info()
        return f"index-{info.documents}-{info.symbols}-{info.bytes_index}-{self._reading}"

    @property
    def most(self) -> int | None:
        """Any number of continuations."""
        return None

    def check_model(self, model: Any, tokenizer: Any = None) -> None:
        """Tokens were compared when this was made; any model may be asked about."""

    def retrieve(self, states: Tensor, contexts: Sequence[Ids], k: int) -> Neighbours:
        """The continuations of each context, the most frequent first."""
        import torch

        rows = [context.astype(np.uint32) for context in contexts]
        values = np.zeros((len(rows), k), dtype=np.int64)
        distances = np.full((len(rows), k), np.inf, dtype=np.float32)
        for row, found in enumerate(self.index.infgram_counts(rows)):
            tokens = found.symbols >= 0
            symbols, counts = found.symbols[tokens], found.counts[tokens]
            order = np.argsort(-counts, kind="stable")[:k]
            if len(order):
                values[row, : len(order)] = symbols[order]
                distances[row, : len(order)] = -np.log(counts[order] / counts.sum())
        near = torch.from_numpy(values), torch.from_numpy(distances)
        return Neighbours(*(x.to(states.device) for x in near))
