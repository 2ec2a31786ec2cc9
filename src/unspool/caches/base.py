"""What one layer keeps of the tokens that it has read: the contract of every store.

What: a cache layer of transformers whose `update` hands back the new chunk only and leaves a mark;
the attention function meets the mark, gives the chunk its positions and appends it.
Source: transformers' `CacheLayerMixin`; the protocol is this project's own.
Differs from transformers' layers: lengths speak of tokens seen, never of storage, so masks and
positions stay right after eviction; a mark that nobody meets is an error, not a silent loss.
Shapes: k [B, Hkv, S, D], v [B, Hkv, S, Dv], positions [B, S] int64 (-1 is padding).
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from unspool.errors import ConfigError, UnspoolError


@dataclass(frozen=True, slots=True, eq=False)
class KV:
    """Keys and values of consecutive storage, oldest first."""

    k: Tensor
    v: Tensor
    positions: Tensor | None
    """[B, S], -1 for padding; None: no padding, and the positions are `start`, `start` + 1, …"""
    start: int = 0
    rotated: bool = True
    channels: Tensor | None = None
    """[B, Hkv, d'] kept key channels in ascending order; None: all of them."""
    origins: Tensor | None = None
    """[B, Hkv, S] columns that each head kept, where an eviction was a choice of every head's own;
    `positions` then tells padding from tokens, and that they lie in the past, no more."""

    def __len__(self) -> int:
        return int(self.k.shape[2])

    def where(self) -> Tensor:
        """Positions [B, S], spelled out."""
        if self.positions is not None:
            return self.positions
        run = torch.arange(self.start, self.start + self.k.shape[2], device=self.k.device)
        return run[None].expand(self.k.shape[0], -1)


@dataclass(frozen=True, slots=True)
class StoreReport:
    """What one layer holds, from the tensors really held. Tokens are those of the first sequence,
    padding left out."""

    seen: int
    attended: int
    """By the last query."""
    stored: int
    """Held and retrievable, but not attended by the last query."""
    bytes_device: int
    bytes_host: int = 0
    bytes_disk: int = 0

    @property
    def dropped(self) -> int:
        return self.seen - self.attended - self.stored


class Store(CacheLayerMixin):
    """Base of every store: the mark, the counts, and what beams and batches need.

    A subclass keeps tensors whose first dimension is the batch in attributes that `_tensors` names,
    and writes `append`, `segments` and `report`.
    """

    is_sliding = False
    is_croppable = False
    is_compileable = False
    supports_early_init = False
    needs_rotated: bool = True
    """Keys come rotated by the model's positions; False: raw, the mechanism rotates them itself."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0
        self.prefilled_to: int | None = None
        """Where the last prefill that was finished ended."""
        self.padded = False
        """Whether a chunk with padding was ever seen."""
        self.padding: Tensor | None = None
        """[B] padding tokens seen, None while there were none."""
        self._mark: tuple[Tensor, Tensor] | None = None

    # ---- what transformers calls

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Announce a chunk; the attention function appends it."""
        if self._mark is not None:
            raise UnspoolError(
                "A chunk was stored but never attended: the model does not call the attention "
                "function 'unspool'. Was set_attn_implementation called after extend()?"
            )
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.seen += int(key_states.shape[2])
        self._mark = (key_states, value_states)
        return key_states, value_states

    def get_seq_length(self) -> int:
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.seen + int(query_length), 0

    def get_max_length(self) -> int:
        return -1

    def reset(self) -> None:
        # All attributes of a new store of the kind: whatever a subclass keeps is empty again.
        vars(self).update(vars(type(self)(*self._arguments())))

    def crop(self, tokens_to_remove: int) -> None:
        if tokens_to_remove == 0:
            return
        raise ConfigError(
            f"{type(self).__name__} cannot give back {abs(tokens_to_remove)} tokens: what it "
            f"evicted is gone. Use a method that keeps everything (dense), or do without assisted "
            f"decoding."
        )

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._map(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._map(lambda x: x.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        self._map(lambda x: x[indices.to(x.device)])

    def join(self, stores: Sequence[Store]) -> None:
        """Know the stores of all layers of the cache, this one included."""

    # ---- what the attention function calls

    def meet(self) -> tuple[Tensor, Tensor] | None:
        """The chunk that `update` announced, once; None if there is none."""
        mark, self._mark = self._mark, None
        return mark

    @abstractmethod
    def append(self, chunk: KV) -> None:
        """Take a chunk in, before it is attended."""

    @abstractmethod
    def segments(self) -> Sequence[KV]:
        """Everything a query may be shown, oldest first, the newest chunk included."""

    def settle(self) -> None:
        """Evict what the chunk pushed out, after it has attended."""

    def observe(self, queries: Tensor) -> None:
        """See the rotated queries [B, Hq, T, D] of a chunk (stores that are compressed later)."""

    def finish_prefill(self) -> None:
        """The prefill is complete: compress what is to outlive it. Called once a prefill."""

    @abstractmethod
    def report(self) -> StoreReport:
        """Tokens and bytes, from the tensors really held."""

    # ---- copies on disk and in memory

    def state(self) -> dict[str, Tensor]:
        """Everything as named tensors, for a file."""
        named = {name: value for name, value in self._tensors().items() if value is not None}
        named["seen"] = torch.tensor(self.seen)
        return named

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave."""
        self.seen = int(state["seen"])
        for name in self._tensors():
            setattr(self, name, state.get(name))  # attributes, by the contract of `_tensors`
        first = next((x for x in self._tensors().values() if x is not None and x.ndim == 4), None)
        if first is not None:
            self.lazy_initialization(first, first)

    def copy(self) -> Store:
        """An independent store with the same content."""
        return copy.deepcopy(self)

    # ---- for subclasses

    def _arguments(self) -> tuple[Any, ...]:
        """What to construct an empty store of the same kind with."""
        return ()

    def _tensors(self) -> dict[str, Tensor | None]:
        """Tensors of the state by attribute name, batch first; what is kept otherwise is in
        `state`, `load_state` and `_map` of the subclass."""
        return {}

    def _map(self, change: Any) -> None:
        for name, value in self._tensors().items():
            if value is not None:
                setattr(self, name, change(value))  # as in `load_state`


def held_bytes(tensors: Sequence[Tensor | None]) -> int:
    """Bytes of the storages behind tensors, each storage once."""
    sizes = {}
    for tensor in tensors:
        if tensor is not None:
            storage = tensor.untyped_storage()
            sizes[(str(tensor.device), storage.data_ptr())] = storage.nbytes()
    return sum(sizes.values())
