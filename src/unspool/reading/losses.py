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
    rows = _rows(extension.model)
    step = min(extension.prefill_chunk, rows)
    whole = any(method.whole_chunks for method in extension.methods)
    # A method whose chunks must be multiples of a block states a chunk that is one.
    if whole or extension.prefill_chunk % step:
        step = extension.prefill_chunk
    read = _reader(extension, ids) if whole and step > rows else None
    cache = extension.new_cache()
    losses: list[NDArray[np.float32]] = []
    with torch.inference_mode():
        for start in range(0, len(ids), step):
            chunk = torch.tensor([ids[start : start + step]], device=extension.facts.device)
            targets = ids[start + 1 : start + 1 + chunk.shape[1]]
            if read is not None:
                hidden, head = read(chunk, cache)
                for first in range(0, len(targets), rows):
                    some = targets[first : first + rows]
                    losses.append(_nats(head(hidden[first : first + len(some)]), some))
            else:
                logits = extension.model(chunk, past_key_values=cache, use_cache=True).logits[0]
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


def _reader(
    extension: Extension, ids: Sequence[int]
) -> Callable[[Any, Any], tuple[Any, Any]] | None:
    """Reads a chunk into a cache, and returns its last hidden states and what makes logits of them;
    None where the model's logits are more than the product with its output embeddings."""
    import torch

    model = extension.model
    head = model.get_output_embeddings()
    if head is None or not extension.keeps_logits:
        return None

    def read(chunk: Any, cache: Any, **options: Any) -> tuple[Any, Any]:
        seen: list[Any] = []
        handle = model.base_model.register_forward_hook(lambda *said: seen.append(said[2][0]))
        try:
            out = model(chunk, past_key_values=cache, logits_to_keep=1, **options)
        finally:
            handle.remove()
        last[:] = [out.logits[0, -1]]
        return seen[-1][0], head

    last: list[Any] = []
    probe = torch.tensor([ids[:2]], device=extension.facts.device)
    hidden, _ = read(probe, None, use_cache=False)
    return read if torch.allclose(head(hidden[-1]), last[0], rtol=1e-3, atol=1e-3) else None


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
