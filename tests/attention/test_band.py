"""A band in tiles: which pairs they cover, and what attention over them gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unspool.attention.band import (
    Tile,
    add_tiles,
    attend_tiles,
    far_tiles,
    join,
    mass_tiles,
    near_tiles,
    sum_tiles,
)

SIZES = [
    (1, 0, 8),
    (1, 40, 8),
    (5, 3, 8),
    (8, 0, 8),
    (8, 5, 8),
    (7, 8, 8),
    (8, 40, 9),
    (300, 310, 301),
]


def covered(tiles: list[Tile], queries: int, keys: int) -> np.ndarray:
    """How often each pair is in a tile."""
    count = np.zeros((queries, keys), dtype=int)
    for rows, columns, shape in tiles:
        ones = np.ones((rows.stop - rows.start, columns.stop - columns.start), dtype=int)
        if shape != "full":
            assert ones.shape[0] == ones.shape[1]
        count[rows, columns] += {"full": ones, "lower": np.tril(ones), "upper": np.triu(ones)}[
            shape
        ]
    return count


@given(queries=st.integers(1, 40), before=st.integers(0, 120), extra=st.integers(0, 60))
def test_tiles_cover_each_pair_once(queries: int, before: int, extra: int) -> None:
    window = queries + extra
    keys = before + queries
    distance = (before + np.arange(queries))[:, None] - np.arange(keys)
    near = (distance >= 0) & (distance < window)
    assert (covered(near_tiles(queries, before, window), queries, keys) == near).all()
    far = distance >= window
    assert (covered(far_tiles(queries, before, window), queries, keys) == far).all()


def inputs(queries: int, before: int, dtype: Any) -> tuple[Any, Any, Any]:
    generator = torch.Generator().manual_seed(queries + before)
    q = 2 * torch.randn(2, 4, queries, 8, generator=generator, dtype=torch.float64)
    k = torch.randn(2, 2, before + queries, 8, generator=generator, dtype=torch.float64)
    v = torch.randn(2, 2, before + queries, 8, generator=generator, dtype=torch.float64)
    return q.to(dtype), k.to(dtype), v.to(dtype)


def masked(q: Any, k: Any, v: Any, window: int, scale: float) -> tuple[Any, Any, Any]:
    """Output, log-sum-exp and probabilities summed over queries, by a mask, in float64."""
    q, k, v = (x.double() for x in (q, k, v))
    queries, keys = q.shape[2], k.shape[2]
    distance = torch.arange(keys - queries, keys)[:, None] - torch.arange(keys)
    k, v = k.repeat_interleave(2, dim=1), v.repeat_interleave(2, dim=1)
    s = (q @ k.transpose(2, 3) * scale).masked_fill(
        (distance < 0) | (distance >= window), -torch.inf
    )
    p = s.softmax(-1)
    return p @ v, s.logsumexp(-1), p.sum(2)


@pytest.mark.parametrize(("queries", "before", "window"), SIZES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_attention_and_mass_equal_a_masked_softmax(
    queries: int, before: int, window: int, dtype: Any
) -> None:
    q, k, v = inputs(queries, before, dtype)
    out, lse, mass = masked(q, k, v, window, 0.3)
    tiles = near_tiles(queries, before, window)
    atol = 0.05 if dtype == torch.bfloat16 else 1e-4
    ours, ours_lse = join(attend_tiles(q, k, v, tiles, scale=0.3), q)
    torch.testing.assert_close(ours.double(), out, rtol=0, atol=atol)
    torch.testing.assert_close(ours_lse.double(), lse, rtol=0, atol=atol)
    received = mass_tiles(q, k, ours_lse, tiles, scale=0.3)
    torch.testing.assert_close(received.double(), mass, rtol=0.02, atol=atol)


@pytest.mark.parametrize(("queries", "before", "window"), SIZES[2:])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_written_out_products_equal_a_masked_softmax(
    queries: int, before: int, window: int, dtype: Any
) -> None:
    q, k, v = inputs(queries, before, dtype)
    out, lse, mass = masked(q, k, v, window, 0.3)
    tiles = near_tiles(queries, before, window)
    new = [tile for tile in tiles if tile.shape == "lower"]
    rest = [tile for tile in tiles if tile.shape != "lower"]
    received = torch.zeros_like(mass)
    base = join(attend_tiles(q, k, v, new, scale=0.3), q)
    both = add_tiles(q, k, v, rest, *base, scale=0.3, received=received)
    assert both is not None
    received += mass_tiles(q, k, both[1], new, scale=0.3).double()
    atol = 0.05 if dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(both[0].double(), out, rtol=0, atol=atol)
    torch.testing.assert_close(both[1].double(), lse, rtol=0, atol=atol)
    torch.testing.assert_close(received, mass, rtol=0.02, atol=atol)


def test_an_overflow_is_told_and_not_returned() -> None:
    q, k, v = inputs(20, 30, torch.float32)
    k[:, :, :10] *= 400
    tiles = near_tiles(20, 30, 64)
    new = [tile for tile in tiles if tile.shape == "lower"]
    rest = [tile for tile in tiles if tile.shape != "lower"]
    base = join(attend_tiles(q, k, v, new, scale=0.3), q)
    assert add_tiles(q, k, v, rest, *base, scale=0.3) is None


@pytest.mark.parametrize(("queries", "before", "window"), SIZES)
def test_summed_scores_equal_sums_over_pairs(queries: int, before: int, window: int) -> None:
    q, k, _ = inputs(queries, before, torch.float64)
    s = q @ k.repeat_interleave(2, dim=1).transpose(2, 3)
    distance = (before + torch.arange(queries))[:, None] - torch.arange(before + queries)
    expected = s.masked_fill((distance < 0) | (distance >= window), 0).sum(2)
    torch.testing.assert_close(sum_tiles(q, k, near_tiles(queries, before, window)), expected)
