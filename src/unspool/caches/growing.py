"""A buffer of keys and values that grows in place: what dense and windowed stores are made of.

What: tokens are written behind each other into memory that is taken ahead of need.
Differs from concatenation: appending n tokens one at a time costs O(n) copies, not O(n^2).
Shapes: k [B, Hkv, S, D], v [B, Hkv, S, Dv], positions [B, S] or None while there is no padding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Growing:
    """Keys, values and positions of consecutive tokens `start` … `start + len - 1`."""

    __slots__ = ("_k", "_positions", "_v", "begin", "end", "start")

    def __init__(self) -> None:
        self._k: Tensor | None = None
        self._v: Tensor | None = None
        self._positions: Tensor | None = None
        self.begin = 0
        self.end = 0
        self.start = 0
        """Column (token index, padding counted) of the first token held."""

    def __len__(self) -> int:
        return self.end - self.begin

    @property
    def k(self) -> Tensor | None:
        return None if self._k is None else self._k[:, :, self.begin : self.end]

    @property
    def v(self) -> Tensor | None:
        return None if self._v is None else self._v[:, :, self.begin : self.end]

    @property
    def positions(self) -> Tensor | None:
        return None if self._positions is None else self._positions[:, self.begin : self.end]

    def append(self, k: Tensor, v: Tensor, positions: Tensor | None, *, slack: int) -> None:
        """Write a chunk behind what is held; growing takes `slack` tokens of room as well."""
        new = k.shape[2]
        if self._k is None or self.end + new > self._k.shape[2]:
            self._grow(k, v, len(self) + new + slack)
        assert self._k is not None
        assert self._v is not None
        if positions is not None and self._positions is None:
            first = self.start
            run = torch.arange(first - self.begin, first - self.begin + self._k.shape[2])
            self._positions = run.to(k.device)[None].repeat(k.shape[0], 1)
        at = slice(self.end, self.end + new)
        self._k[:, :, at] = k
        self._v[:, :, at] = v
        if self._positions is not None:
            if positions is None:  # no padding in this chunk, but there was some before
                last = self._positions[:, self.begin : self.end].amax(1, keepdim=True)
                positions = last + 1 + torch.arange(new, device=k.device)
            self._positions[:, at] = positions
        self.end += new

    def drop_front(self, count: int) -> None:
        """Forget the oldest tokens; the memory is reused when the buffer next grows."""
        self.begin += count
        self.start += count

    def drop_back(self, count: int) -> None:
        """Forget the newest tokens."""
        self.end -= count

    def fit(self) -> None:
        """Give back the memory that no token uses."""
        if self._k is not None and self._v is not None:
            self._move(len(self))

    def tensors(self) -> list[Tensor | None]:
        """The storage really held."""
        return [self._k, self._v, self._positions]

    @property
    def bytes(self) -> int:
        """Of the memory taken."""
        return sum(x.numel() * x.element_size() for x in (self._k, self._v) if x is not None)

    @property
    def bytes_used(self) -> int:
        """Of the tokens held."""
        return sum(x.numel() * x.element_size() for x in (self.k, self.v) if x is not None)

    def map(self, change: Callable[[Tensor], Tensor]) -> None:
        """Apply a function to every tensor (batch first)."""
        self._k = None if self._k is None else change(self._k)
        self._v = None if self._v is None else change(self._v)
        self._positions = None if self._positions is None else change(self._positions)

    def state(self) -> dict[str, Tensor]:
        """What is held, as tensors for a file."""
        named = {"k": self.k, "v": self.v, "positions": self.positions}
        out = {name: value.contiguous() for name, value in named.items() if value is not None}
        out["start"] = torch.tensor(self.start)
        return out

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave."""
        self._k, self._v = state.get("k"), state.get("v")
        self._positions = state.get("positions")
        self.start = int(state["start"])
        self.begin, self.end = 0, 0 if self._k is None else self._k.shape[2]

    def _grow(self, k: Tensor, v: Tensor, room: int) -> None:
        if self._k is None or self._v is None:
            self._k = k.new_empty(*k.shape[:2], room, k.shape[3])
            self._v = v.new_empty(*v.shape[:2], room, v.shape[3])
            self.begin = self.end = 0
        else:
            self._move(room)

    def _move(self, room: int) -> None:
        assert self._k is not None
        assert self._v is not None
        held = len(self)
        self._k = _moved(self._k, self.begin, self.end, room)
        self._v = _moved(self._v, self.begin, self.end, room)
        if self._positions is not None:
            moved = self._positions.new_full((self._positions.shape[0], room), -1)
            moved[:, :held] = self._positions[:, self.begin : self.end]
            self._positions = moved
        self.begin, self.end = 0, held


def _moved(old: Tensor, begin: int, end: int, room: int) -> Tensor:
    """Tokens [begin, end) at the front of `room` places."""
    new = old.new_empty(*old.shape[:2], room, old.shape[3])
    new[:, :, : end - begin] = old[:, :, begin:end]
    return new
