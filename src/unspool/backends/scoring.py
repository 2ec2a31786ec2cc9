"""Log-probabilities from the logits of a transformers model, over a cache that is left as it was.

What: the tokens of a continuation scored after a prompt that was read once, and one written token
with the likeliest ones beside it.
Differs from one pass over prompt and continuation: the prompt's keys and values are shared by all
continuations; a cache that can be cropped is, any other is copied.
Cost: one pass over the continuation; the copy of a cache where it has to be one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from unspool.backends.stream import TokenScore

if TYPE_CHECKING:
    import torch


def score_tail(
    forward: Callable[..., tuple[torch.Tensor, Any]],
    tail: list[int],
    first: torch.Tensor,
    cache: Any,
) -> tuple[list[float], bool]:
    """Log-probabilities (nats) of the tokens of a continuation, and whether each is the likeliest.

    Args:
        forward: (ids, cache, keep=n) -> logits [1, n, V] of the last n tokens, and the cache.
        tail: The continuation.
        first: Logits [V] after the prompt.
        cache: Holds the prompt, and holds no more than it when this returns.
    """
    import torch

    if not tail:
        return [], True
    rows = first.unsqueeze(0)
    if len(tail) > 1:
        scratch, undo = scratch_of(cache, len(tail) - 1)
        more, _ = forward(tail[:-1], scratch, keep=len(tail) - 1)
        rows = torch.cat([rows, more[0]])
        undo()
    table = torch.log_softmax(rows.float(), dim=-1)
    targets = torch.tensor(tail, device=table.device)
    picked = table.gather(1, targets[:, None])[:, 0]
    greedy = bool((table.argmax(-1) == targets).all())
    return [float(x) for x in picked.tolist()], greedy


def token_score(
    decode: Callable[[list[int]], str], token: int, logits: torch.Tensor, top: int
) -> TokenScore:
    """A written token with its log-probability and those of the `top` likeliest in its place."""
    import torch

    table = torch.log_softmax(logits.float(), dim=-1)
    best = table.topk(top) if top else None
    likeliest = zip(best.indices.tolist(), best.values.tolist(), strict=True) if best else ()
    return TokenScore(
        decode([token]),
        float(table[token]),
        tuple((decode([i]), float(value)) for i, value in likeliest),
    )


def scratch_of(cache: Any, new_tokens: int) -> tuple[Any, Any]:
    """A cache to write a continuation into, and what to call when it has been scored."""
    from transformers.cache_utils import DynamicLayer

    from unspool.caches.cache import UnspoolCache

    if isinstance(cache, UnspoolCache):
        if cache.is_croppable:
            return cache, lambda: cache.crop(-new_tokens)
        return cache.copy(), lambda: None
    layers = getattr(cache, "layers", None)
    if layers and all(type(layer) is DynamicLayer for layer in layers):
        return cache, lambda: cache.crop(-new_tokens)
    return copy.deepcopy(cache), lambda: None  # a window or a state cannot be taken back
