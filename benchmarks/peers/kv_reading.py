"""What both sides of the benchmark of compressed caches do with a model and a cache.

Imported by the project's side and by the peer in its own environment, so it imports nothing of
either: bytes that a cache still reaches, the loss of a continuation, and the rate of writing.
"""

from __future__ import annotations

import time
from typing import Any

import torch

WRITTEN = 32
_WARM = 4


def reachable_bytes(root: Any) -> int:
    """Bytes of every tensor storage that can be reached from an object, each storage once."""
    storages: dict[int, int] = {}
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, torch.Tensor):
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(thing, dict):
            waiting.extend(thing.values())
        elif isinstance(thing, list | tuple | set):
            waiting.extend(thing)
        elif not isinstance(thing, type | torch.nn.Module):
            waiting.extend(getattr(thing, "__dict__", {}).values())
            slots = [n for c in type(thing).__mro__ for n in getattr(c, "__slots__", ())]
            waiting.extend(getattr(thing, name, None) for name in slots)
    return sum(storages.values())


def continuation_nats(model: Any, cache: Any, ids: list[int], start: int) -> float:
    """Mean loss of `ids[1:]`, read behind what the cache holds of the `start` tokens before."""
    columns = torch.tensor([ids])
    positions = torch.arange(start, start + len(ids))[None]
    logits = model(columns, past_key_values=cache, position_ids=positions, use_cache=True).logits[0]
    loss = torch.nn.functional.cross_entropy(logits[:-1].float(), columns[0, 1:])
    return float(loss)


def written_rate(model: Any, cache: Any, first: int, start: int) -> float:
    """Tokens a second of writing greedily, one forward pass each, after the first few."""
    token, began = torch.tensor([[first]]), 0.0
    for step in range(_WARM + WRITTEN):
        if step == _WARM:
            began = time.perf_counter()
        position = torch.tensor([[start + step]])
        logits = model(token, past_key_values=cache, position_ids=position, use_cache=True).logits
        token = logits[:, -1].argmax(-1, keepdim=True)
    return WRITTEN / (time.perf_counter() - began)
