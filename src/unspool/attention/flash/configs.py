"""Tile sizes, warps and stages of the kernels, by head size; tables, never a search at run time.

What: what was fastest on the devices that were measured. A length is never part of the key, so a
longer text compiles nothing new.
Source: measured on one H100; the backward tiles are those that FlexAttention ships for it.
Differs from Triton's autotune: no first call that tries everything.
Cost: a dictionary look-up.
"""

from __future__ import annotations

from typing import NamedTuple


class Tiles(NamedTuple):
    """How one kernel is cut and launched."""

    block_m: int
    block_n: int
    warps: int
    stages: int


DENSE_FORWARD: dict[int, Tiles] = {
    64: Tiles(64, 128, 4, 2),
    128: Tiles(64, 64, 4, 3),
    256: Tiles(64, 64, 4, 2),
}
"""By head size, up to the key."""
DENSE_DQ: dict[int, Tiles] = {
    64: Tiles(128, 64, 8, 3),
    128: Tiles(128, 64, 8, 3),
    256: Tiles(64, 32, 4, 2),
}
DENSE_DKDV: dict[int, Tiles] = {
    64: Tiles(64, 128, 8, 3),
    128: Tiles(64, 128, 8, 3),
    256: Tiles(32, 64, 4, 2),
}
_WIDE = {4: Tiles(32, 32, 4, 1)}
"""float32 fills shared memory twice as fast."""


def tiles(table: dict[int, Tiles], head_dim: int, itemsize: int) -> Tiles:
    """The row of a table for a head size and the bytes of a number."""
    if itemsize in _WIDE:
        return _WIDE[itemsize]
    return table[min(size for size in table if size >= head_dim)]


def listed_stages(head_dim: int, itemsize: int) -> int:
    """Stages of the kernels over lists."""
    if itemsize == 4:
        return 1
    return 3 if head_dim <= 64 else 2
