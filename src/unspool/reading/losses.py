"""Loss of every token of a long text, under a method or under fresh windows.

What: reads a text in chunks through an extended model and scores each token from all that the
method let it see; `fresh` scores the same tokens with no more context than a window, which is what
a method has to be compared with, since a text is harder in some places than in others.
Source: the sliding evaluation of Press et al. (2022), "Train Short, Test Long", section 2.2.
Differs from a loop over the model: logits exist for a few hundred positions at a time, whatever
the vocabulary.
Cost: one pass over the text; `fresh` reads every token twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unspool.errors import ConfigError, InputError

if TYPE_CHECKING:
    import torch

    from unspool.extension import Extension

Told = Callable[[int], None]
"""Called with the number of tokens read so far."""

_LOGIT_BYTES = 128 << 20


def method_losses(
    extension: Extension, ids: Sequence[int], *, tell: Told | None = None
) -> NDArray[np.float32]:
    """Nats of each token but the first, read through an installed extension.

    Args:
        extension: Installed; limits of its method on the length are not enforced, since where a
            method breaks is what a curve is to show.
        ids: The text.
        tell: Called after each chunk.

    Returns:
        [len(ids) - 1] float32.
    """
    import torch

    if len(ids) < 2:
        raise InputError(f"A loss needs at least 2 tokens, got {len(ids)}.")
    step = min(extension.prefill_chunk, _rows(extension.model))
    # A method whose chunks must be multiples of a block states a chunk that is one.
    if extension.prefill_chunk % step:
        step = extension.prefill_chunk
    cache = extension.new_cache()
    losses: list[NDArray[np.float32]] = []
    with torch.inference_mode():
        for start in range(0, len(ids), step):
            chunk = torch.tensor([ids[start : start + step]], device=extension.facts.device)
            logits = extension.model(chunk, past_key_values=cache, use_cache=True).logits[0]
            targets = ids[start + 1 : start + 1 + chunk.shape[1]]
            losses.append(_nats(logits[: len(targets)], targets))
            if tell is not None:
                tell(min(start + step, len(ids)))
    return np.concatenate(losses)


def fresh_losses(
    model: Any, ids: Sequence[int], window: int, *, tell: Told | None = None
) -> NDArray[np.float32]:
    """Nats of each token but the first, each read in a window of its own neighbourhood.

    Windows of `window` tokens at a stride of half of it; only the second half of each is scored
    (of the first window, all of it), so a scored token has between half a window and a window of
    context.

    Args:
        model: A stock causal model.
        ids: The text.
        window: At most the model's trained window.
        tell: Called after each window.

    Raises:
        ConfigError: The window is under 4 tokens.
    """
    import torch

    if window < 4:
        raise ConfigError(f"fresh windows need at least 4 tokens each, got window={window}.")
    if len(ids) < 2:
        raise InputError(f"A loss needs at least 2 tokens, got {len(ids)}.")
    stride = max(1, window // 2)
    device = next(model.parameters()).device
    losses = np.empty(len(ids) - 1, np.float32)
    rows = _rows(model)
    done = 0  # tokens that are scored, the first one (which has no loss) included
    with torch.inference_mode():
        while done < len(ids) - 1:
            begin = 0 if done == 0 else done - stride
            end = min(len(ids), begin + window)
            cache = None
            for start in range(begin, end, rows):
                piece = ids[start : min(start + rows, end)]
                out = model(
                    torch.tensor([piece], device=device), past_key_values=cache, use_cache=True
                )
                cache = out.past_key_values
                first, last = max(start, done), min(start + len(piece), len(ids) - 1, end - 1)
                if last > first:
                    targets = ids[first + 1 : last + 1]
                    losses[first:last] = _nats(out.logits[0, first - start : last - start], targets)
            done = end - 1
            if tell is not None:
                tell(end)
    return losses


def by_position(losses: NDArray[np.float32], bucket: int) -> list[tuple[int, float]]:
    """(first position, mean nats) of each bucket; a last bucket under half full is left out."""
    out = []
    for start in range(0, len(losses), bucket):
        part = losses[start : start + bucket]
        if len(part) * 2 >= bucket or start == 0:
            out.append((start, float(part.mean(dtype=np.float64))))
    return out


def breaks_at(
    losses: NDArray[np.float32],
    reference: NDArray[np.float32],
    *,
    bucket: int = 1024,
    margin: float = 0.2,
) -> int | None:
    """First position from which a text is read worse than in fresh windows, for good.

    Args:
        losses: Of the method.
        reference: Of the same tokens in fresh windows.
        bucket: Tokens that are averaged.
        margin: Nats a token above the reference that count as broken.

    Returns:
        The first position of the first bucket that is broken and after which every bucket is
        broken; None if the last bucket is sound.
    """
    ours, fresh = by_position(losses, bucket), by_position(reference, bucket)
    first: int | None = None
    for (position, nats), (_, base) in zip(ours, fresh, strict=True):
        broken = nats > base + margin
        first = None if not broken else position if first is None else first
    return first


def _rows(model: Any) -> int:
    """Positions whose logits fit in the memory that they may take: a power of two."""
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    rows = max(64, _LOGIT_BYTES // (4 * vocabulary))
    return int(1 << (rows.bit_length() - 1))


def _nats(logits: torch.Tensor, targets: Sequence[int]) -> NDArray[np.float32]:
    import torch

    wanted = torch.tensor(list(targets), device=logits.device)
    loss = torch.nn.functional.cross_entropy(logits.float(), wanted, reduction="none")
    found: NDArray[np.float32] = loss.cpu().numpy()
    return found
