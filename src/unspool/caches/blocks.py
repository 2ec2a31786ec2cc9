"""Blocks of keys and values that are read rarely: where they lie, and which are at hand.

What: a `Shelf` takes blocks once and never changes them; `Residents` holds copies on the device of
the few that were wanted lately, and evicts by use (`lru`) or by attention received (`lru-s`).
Source: InfLLM (Xiao et al. 2024), section 3.2 (lru-s) and its released code (lru).
Differs from the released code: a block is stored once for all beams and forks that share it; one
copy a block and lookup, not one a sequence unit; files are anonymous, so nothing is left behind.
Cost: a slab holds 16 blocks, so at most 15 blocks of room are taken ahead of need.
Shapes: a block is k [Hkv, L, D] and v [Hkv, L, Dv].
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unspool._machine import total_memory
from unspool.errors import ConfigError, StorageError

Policy = Literal["lru", "lru-s"]
_SLAB_BLOCKS = 16


class Slab:
    """Room for some blocks: k [n, Hkv, L, D], v [n, Hkv, L, Dv]."""

    __slots__ = ("k", "used", "v")

    def __init__(self, k: Tensor, v: Tensor, used: int = 0) -> None:
        self.k, self.v, self.used = k, v, used


class Block(NamedTuple):
    """One block, by where it lies."""

    slab: Slab
    number: int
    """In the slab."""

    @property
    def k(self) -> Tensor:
        return self.slab.k[self.number]

    @property
    def v(self) -> Tensor:
        return self.slab.v[self.number]


class Shelf:
    """Where the blocks of a layer are put.

    `none`: on the device; `cpu`: in memory, pinned if the device is a GPU; else a folder, in files
    that are mapped into memory and disappear with the last block.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self._open: Slab | None = None

    def put(self, k: Tensor, v: Tensor) -> list[Block]:
        """Take in blocks k [n, Hkv, L, D], v [n, Hkv, L, Dv].

        Raises:
            StorageError: The disk is full.
        """
        blocks: list[Block] = []
        while len(blocks) < k.shape[0]:
            slab = self._open
            if slab is None or slab.used == slab.k.shape[0]:
                slab = self._open = self.room(k, v)
            start = len(blocks)
            count = min(k.shape[0] - start, slab.k.shape[0] - slab.used)
            at = slice(slab.used, slab.used + count)
            slab.k[at] = k[start : start + count]
            slab.v[at] = v[start : start + count]
            blocks += [Block(slab, i) for i in range(at.start, at.stop)]
            slab.used += count
        return blocks

    def room(self, k: Tensor, v: Tensor, blocks: int = _SLAB_BLOCKS) -> Slab:
        """An empty slab for blocks like k[0], v[0]."""
        return Slab(self._empty(k, blocks), self._empty(v, blocks))

    def _empty(self, like: Tensor, blocks: int) -> Tensor:
        shape = (blocks, *like.shape[1:])
        if self.place == "none":
            return like.new_empty(shape)
        if self.place == "cpu":
            pinned = like.device.type == "cuda"
            return torch.empty(shape, dtype=like.dtype, pin_memory=pinned)
        return _mapped(Path(self.place), shape, like.dtype)


class Residents:
    """Copies on the device of the blocks that were wanted lately."""

    def __init__(self, capacity: int, policy: Policy, decay: int | float) -> None:
        self.capacity = capacity
        self.policy = policy
        self.decay = decay
        self.held: OrderedDict[int, tuple[Tensor, Tensor]] = OrderedDict()
        """By block number, the one wanted longest ago first."""
        self.scores: dict[int, float] = {}
        self.hits = 0
        self.misses = 0

    def fetch(
        self, wanted: Sequence[int], load: Callable[[int], tuple[Tensor, Tensor]]
    ) -> dict[int, tuple[Tensor, Tensor]]:
        """The blocks, loaded if they are not at hand. None of them evicts another."""
        missing = [block for block in wanted if block not in self.held]
        self.hits += len(wanted) - len(missing)
        self.misses += len(missing)
        for block in wanted:
            if block in self.held:
                self.held.move_to_end(block)
        for _ in range(len(self.held) + len(missing) - self.capacity):
            self._evict(set(wanted))
        for block in missing:
            self.held[block] = load(block)
            self.scores[block] = 0.0
        return {block: self.held[block] for block in wanted}

    def credit(self, mass: Mapping[int, float]) -> None:
        """Let scores fade, and add the attention that blocks received (`lru-s`)."""
        for block in self.held:
            self.scores[block] = self.decay * self.scores[block] + mass.get(block, 0.0)

    def copy(self) -> Residents:
        """The same blocks and scores; the tensors are shared, nobody writes to them."""
        other = Residents(self.capacity, self.policy, self.decay)
        other.held, other.scores = self.held.copy(), dict(self.scores)
        other.hits, other.misses = self.hits, self.misses
        return other

    def _evict(self, wanted: set[int]) -> None:
        free = [block for block in self.held if block not in wanted]
        if not free:
            return
        victim = free[0]
        if self.policy == "lru-s":
            victim = min(free, key=self.scores.__getitem__)  # the oldest of equals
        del self.held[victim]
        del self.scores[victim]


def slabs_of(blocks: Iterable[Block]) -> list[Slab]:
    """The slabs that blocks lie in, each once, in the order of first use."""
    found: dict[int, Slab] = {}
    for block in blocks:
        found.setdefault(id(block.slab), block.slab)
    return list(found.values())


def check_place(place: str) -> None:
    """Refuse a folder that is not there or cannot be written.

    Raises:
        ConfigError: `place` is neither none, cpu nor a folder that can be written to.
    """
    if place in ("none", "cpu"):
        return
    if not os.path.isdir(place) or not os.access(place, os.W_OK):
        raise ConfigError(
            f"infllm: offload={place!r} is no folder that can be written to. Give cpu, none, or an "
            f"existing folder on a disk with room."
        )


def room_for(place: str, device: torch.device) -> int | None:
    """Free bytes where blocks would lie; None if it cannot be told."""
    if place not in ("none", "cpu"):
        return shutil.disk_usage(place).free
    if place == "none" and device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return total_memory()
    free = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    total = total_memory()
    known = [x for x in (1024 * sum(free), total) if x]
    return min(known, default=None)


def _mapped(folder: Path, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor in an anonymous file of a folder; its bytes are reserved on the disk first, since a
    mapped file that outgrows its disk would kill the process."""
    size = int(np.prod(shape)) * dtype.itemsize
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:  # macOS and Windows: written, so that it is there
                file.write(bytes(size))
                file.flush()
            mapped = np.memmap(file, dtype=np.uint8, mode="r+", shape=(size,))
    except OSError as error:
        reason = "is full" if error.errno == errno.ENOSPC else f"refuses: {error.strerror}"
        raise StorageError(
            f"infllm: the disk of {folder} {reason}; {size:,} bytes more were needed."
        ) from error
    return torch.from_numpy(mapped).view(dtype).view(shape)
