"""A model over texts: for every token, the state that predicts it and what the model says of it.

What: runs windows through the model in small batches and yields, in the order of the text, states,
targets and, if asked for, logits.
Source: Khandelwal et al. (2020), section 2; the pairing of state t with token t + 1.
Differs from one window at a time: windows of similar length share a batch, padded on the right,
which a causal model does not see.
Cost: one pass over window / stride times the text. Shapes: B windows of T tokens; states [n, D],
targets [n], logits [n, V] with n predicted tokens of a batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unspool.errors import BackendError, OverflowPolicyError
from unspool.forensics.knn_lm.states import Capture
from unspool.forensics.knn_lm.windows import Tokens, Window

if TYPE_CHECKING:
    from torch import Tensor

_WASTE = 1.25
"""Padded size over real size up to which windows share a batch."""


class Read(NamedTuple):
    """What a model made of the predicted tokens of some windows."""

    windows: int
    """Windows read so far, these included."""
    states: Tensor
    targets: NDArray[np.int32]
    documents: NDArray[np.int32]
    positions: NDArray[np.int32]
    """Of each target in its document."""
    logits: Tensor | None


def check_window(model: Any, tokens: Tokens, window: int) -> None:
    """Refuse windows that are longer than what a model can see.

    Raises:
        OverflowPolicyError: The window does not fit.
    """
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else None
    limit = getattr(config, "max_position_embeddings", None)
    if limit is not None and window + len(tokens.prefix) > limit:
        raise OverflowPolicyError(
            f"Windows of {window:,} tokens do not fit into the model's {limit:,}. Choose "
            f"window={limit - len(tokens.prefix):,} or less; the whole text is read all the same."
        )


def last_only(model: Any) -> dict[str, int]:
    """What makes a model give the logits of the last position alone, where it can."""
    known = inspect.signature(model.forward).parameters
    return {"logits_to_keep": 1} if "logits_to_keep" in known else {}


def batches(windows: Sequence[Window], budget: int) -> Iterator[list[Window]]:
    """Neighbouring windows of similar length, at most `budget` tokens with padding."""
    held: list[Window] = []
    longest = real = 0
    for window in windows:
        size = window.end - window.start
        wide = max(longest, size) * (len(held) + 1)
        if held and (wide > budget or wide > _WASTE * (real + size)):
            yield held
            held, longest, real = [], 0, 0
        held.append(window)
        longest, real = max(longest, size), real + size
    if held:
        yield held


def read(
    model: Any,
    tokens: Tokens,
    windows: Sequence[Window],
    capture: Capture,
    *,
    logits: bool = False,
    budget: int = 2048,
) -> Iterator[Read]:
    """Run windows through a model.

    Args:
        model: A causal language model of transformers.
        tokens: The text.
        windows: Of `tokens.windows`, or the rest of them.
        capture: An open capture of that model.
        logits: Whether to give logits, too.
        budget: Tokens of a batch, padding included; at least one window goes into each.

    Raises:
        BackendError: The device ran out of memory, or a state is not finite.
    """
    import torch

    keep = {} if logits else last_only(model)
    ahead, done = len(tokens.prefix), 0
    for batch in batches(windows, budget):
        longest = max(w.end - w.start for w in batch)
        rows = np.zeros((len(batch), ahead + longest), dtype=np.int64)
        rows[:, :ahead] = tokens.prefix
        for row, w in zip(rows, batch, strict=True):
            row[ahead : ahead + w.end - w.start] = tokens.document(w.document)[w.start : w.end]
        try:
            with torch.inference_mode():
                ids = torch.from_numpy(rows).to(model.device)
                out = model(ids, use_cache=False, **keep)
                states = capture.take(len(batch))
        except torch.OutOfMemoryError as error:
            raise BackendError(
                f"A batch of {rows.size:,} tokens does not fit into the memory of {model.device}. "
                f"Choose a smaller window."
            ) from error
        places = [(ahead + w.first - w.start - 1, ahead + w.end - w.start - 1) for w in batch]
        found = [s[a:b] for s, (a, b) in zip(states, places, strict=True)]
        said = None
        if logits:
            said = torch.cat([x[a:b] for x, (a, b) in zip(out.logits, places, strict=True)])
        done += len(batch)
        yield Read(
            done,
            torch.cat(found),
            np.concatenate([tokens.document(w.document)[w.first : w.end] for w in batch]),
            np.concatenate([np.full(w.end - w.first, w.document, np.int32) for w in batch]),
            np.concatenate([np.arange(w.first, w.end, dtype=np.int32) for w in batch]),
            said,
        )
