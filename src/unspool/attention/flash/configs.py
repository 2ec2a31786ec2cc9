"""Tile sizes, warps and stages of the kernels, by head size; tables, never a search at run time.

What: what was fastest on the device that was measured, for rows that see to their end and for rows
that see up to themselves. A length is never part of the key, so a longer text compiles nothing new.
Source: measured on one H100 by `benchmarks.tune_attention`.
Differs from Triton's autotune: no first call that tries everything.
Cost: a dictionary look-up.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias


class Tiles(NamedTuple):
    """How one kernel is cut and launched."""

    block_m: int
    block_n: int
    warps: int
    stages: int
    ahead: bool = False
    """Forward: the next scores are computed while these become weights."""
    backwards: bool = False
    """dK and dV: rows from the last to the first, the same for all programs at a time."""


Table: TypeAlias = dict[tuple[int, bool], Tiles]
"""By head size, up to the key, and whether rows are bound to the right (causality)."""

DENSE_FORWARD: Table = {
    (64, True): Tiles(64, 128, 4, 2),
    (64, False): Tiles(64, 128, 4, 2),
    (128, True): Tiles(64, 64, 4, 3),
    (128, False): Tiles(64, 64, 4, 3),
    (256, True): Tiles(64, 64, 4, 2),
    (256, False): Tiles(64, 64, 4, 2),
}
HOPPER_FORWARD: dict[int, Tiles] = {
    128: Tiles(128, 128, 4, 2),
}
HOPPER_DQ: dict[int, Tiles] = {
    64: Tiles(128, 128, 4, 3),
}
HOPPER_DKDV: dict[int, Tiles] = {
    64: Tiles(64, 128, 4, 4),
}
"""By head size: kernels in roles, with two groups of `warps` that multiply and one that copies."""
DENSE_DQ: Table = {
    (64, True): Tiles(128, 64, 8, 3),
    (64, False): Tiles(128, 64, 8, 3),
    (128, True): Tiles(128, 64, 8, 3),
    (128, False): Tiles(128, 64, 8, 3),
    (256, True): Tiles(64, 32, 4, 2),
    (256, False): Tiles(64, 32, 4, 2),
}
DENSE_DKDV: Table = {
    (64, True): Tiles(64, 64, 4, 2),
    (64, False): Tiles(32, 128, 4, 3),
    (128, True): Tiles(64, 64, 4, 2, backwards=True),
    (128, False): Tiles(64, 64, 4, 2),
    (256, True): Tiles(32, 64, 4, 2),
    (256, False): Tiles(32, 64, 4, 2),
}
_WIDE = {4: Tiles(32, 32, 4, 1)}
"""float32 fills shared memory twice as fast."""


_SMALL = Tiles(32, 32, 4, 1)
"""Where shared memory is short."""


def tiles(table: Table, head_dim: int, bound: bool, itemsize: int, roomy: bool) -> Tiles:
    """The row of a table for a head size, the bytes of a number and the memory on the chip."""
    if itemsize in _WIDE:
        return _WIDE[itemsize]
    if not roomy:
        return _SMALL
    return table[min(size for size, _ in table if size >= head_dim), bound]


def listed_stages(head_dim: int, itemsize: int, roomy: bool) -> int:
    """Stages of the kernels over lists."""
    if itemsize == 4 or not roomy:
        return 1
    return 3 if head_dim <= 64 else 2
