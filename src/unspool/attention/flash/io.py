"""What attention moves between main and on-chip memory: by formula, and counted tile by tile.

What: elements read and written by attention written out, by tiles, and by tiles with blocks
skipped; and a simulator that walks the loops and counts every load and store.
Source: FlashAttention (Dao et al. 2022), algorithm 1, theorem 2 and proposition 4.
Differs from the paper: exact counts in place of orders of growth, for its loop order (keys outside)
and that of every kernel since (queries outside), with the last tiles short.
Cost: the formula O(1), the simulator O(tiles). Sizes: N queries, M keys, D head size, S elements on
chip, one head.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from typing import Literal

from unspool.errors import ConfigError

Order = Literal["keys-outside", "queries-outside"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IoReport:
    """Bytes between main memory and the chip of one forward pass, all heads."""

    queries: int
    keys: int
    head_dim: int
    on_chip: int
    """Elements that fit on the chip."""
    tile_rows: int
    """Queries a tile: B_r."""
    tile_columns: int
    """Keys a tile: B_c."""
    standard_bytes: int
    """Attention written out: scores and weights go to main memory and back."""
    flash_bytes: int
    """In tiles."""
    block_sparse_bytes: int | None
    """In tiles, of which a share is met; None: no share was given."""
    flops: int
    """Multiplications and additions of the two products, in tiles that are met."""

    @property
    def saved(self) -> float:
        """How many times fewer bytes tiles move than attention written out."""
        return self.standard_bytes / self.flash_bytes


def io_report(
    queries: int,
    head_dim: int,
    on_chip: int,
    *,
    keys: int | None = None,
    heads: int = 1,
    batch: int = 1,
    itemsize: int = 2,
    share: float | None = None,
    order: Order = "keys-outside",
) -> IoReport:
    """Predicted traffic of one forward pass.

    Args:
        queries: N.
        head_dim: D.
        on_chip: Elements that fit on the chip (a 192 KiB shared memory of bfloat16: 98,304).
        keys: M; None: as queries.
        heads: Query heads.
        batch: Rows of the batch.
        itemsize: Bytes an element.
        share: Share of the tiles that are met, for block-sparse attention.
        order: Which loop is outside.
    """
    keys = queries if keys is None else keys
    for name, value in (("queries", queries), ("keys", keys), ("head_dim", head_dim)):
        if value < 1:
            raise ConfigError(f"io_report needs {name} >= 1, got {name}={value}.")
    if share is not None and not 0 < share <= 1:
        raise ConfigError(f"io_report needs 0 < share <= 1, got share={share}.")
    rows, columns = tile_sizes(head_dim, on_chip)
    times = heads * batch * itemsize
    standard = standard_elements(queries, keys, head_dim)
    flash = flash_elements(queries, keys, head_dim, rows, columns, order=order)
    sparse = None
    if share is not None:
        sparse = flash_elements(queries, keys, head_dim, rows, columns, order=order, share=share)
    return IoReport(
        queries=queries,
        keys=keys,
        head_dim=head_dim,
        on_chip=on_chip,
        tile_rows=rows,
        tile_columns=columns,
        standard_bytes=round(standard * times),
        flash_bytes=round(flash * times),
        block_sparse_bytes=None if sparse is None else round(sparse * times),
        flops=round(4 * queries * keys * head_dim * (share or 1.0) * heads * batch),
    )


def tile_sizes(head_dim: int, on_chip: int) -> tuple[int, int]:
    """B_r and B_c of algorithm 1: four tiles of D fit on the chip."""
    if on_chip < 4 * head_dim:
        raise ConfigError(
            f"Tiles of heads of {head_dim} need {4 * head_dim:,} elements on the chip, got "
            f"{on_chip:,}."
        )
    columns = ceil(on_chip / (4 * head_dim))
    return min(columns, head_dim), columns


def standard_elements(queries: int, keys: int, head_dim: int) -> int:
    """Q, K, V in, O out, and the scores written, read, written as weights and read again."""
    return 2 * queries * head_dim + 2 * keys * head_dim + 4 * queries * keys


def flash_elements(
    queries: int,
    keys: int,
    head_dim: int,
    tile_rows: int,
    tile_columns: int,
    *,
    order: Order = "keys-outside",
    share: float = 1.0,
    whole: bool = True,
) -> float:
    """Elements in and out. With keys outside: K and V once, and for each tile of keys Q, O, the
    sums and maxima of all queries in, and O, sums and maxima out. With queries outside: Q once, K
    and V for each tile of queries, O and the log-sum-exp out once. `whole` False: as in theorem 2,
    a last tile counts as the part of one that it is."""
    if order == "keys-outside":
        passes = (ceil(keys / tile_columns) if whole else keys / tile_columns) * share
        return 2 * keys * head_dim + passes * queries * (3 * head_dim + 4)
    passes = (ceil(queries / tile_rows) if whole else queries / tile_rows) * share
    return 2 * queries * head_dim + queries + passes * keys * 2 * head_dim


@dataclass(slots=True)
class Counter:
    """Elements that crossed, and the most that were on the chip at once."""

    loaded: int = 0
    stored: int = 0
    most: int = 0

    @property
    def total(self) -> int:
        """Both ways."""
        return self.loaded + self.stored


def simulate(
    queries: int,
    keys: int,
    head_dim: int,
    on_chip: int,
    *,
    order: Order = "keys-outside",
    met: Iterable[tuple[int, int]] | None = None,
) -> Counter:
    """Walk the tiles of a forward pass and count every load and store.

    Args:
        queries: N.
        keys: M.
        head_dim: D.
        on_chip: Elements that fit on the chip.
        order: Which loop is outside.
        met: (row, column) numbers of the tiles that are met; None: all.

    Raises:
        ConfigError: The tiles of the paper's sizes do not fit on the chip.
    """
    tile_rows, tile_columns = tile_sizes(head_dim, on_chip)
    rows = [min(tile_rows, queries - i) for i in range(0, queries, tile_rows)]
    columns = [min(tile_columns, keys - j) for j in range(0, keys, tile_columns)]
    chosen = None if met is None else set(met)
    count = Counter()
    outer, inner = (columns, rows) if order == "keys-outside" else (rows, columns)
    for a, size in enumerate(outer):
        count.loaded += size * head_dim * (2 if order == "keys-outside" else 1)
        for b, other in enumerate(inner):
            tile = (b, a) if order == "keys-outside" else (a, b)
            if chosen is not None and tile not in chosen:
                continue
            if order == "keys-outside":  # Q, O, l, m in; O, l, m out
                count.loaded += other * (2 * head_dim + 2)
                count.stored += other * (head_dim + 2)
                held = 2 * size * head_dim + 2 * other * head_dim
            else:  # K and V in
                count.loaded += 2 * other * head_dim
                held = 2 * size * head_dim + 2 * other * head_dim
            count.most = max(count.most, held)
        if order == "queries-outside":
            count.stored += size * (head_dim + 1)
    return count
