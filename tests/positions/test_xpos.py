"""xPos in both pair layouts, against one product at a time in float64."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch

from unspool.errors import ConfigError
from unspool.positions.xpos import xpos_logs, xpos_scale

LAYOUTS: tuple[Literal["half", "interleaved"], ...] = ("half", "interleaved")


def pairs(layout: str, dim: int) -> list[tuple[int, int]]:
    half = dim // 2
    return [(j, j + half) if layout == "half" else (2 * j, 2 * j + 1) for j in range(half)]


def product(
    q: list[float], k: list[float], i: int, j: int, layout: str, dim: int, base: float, sb: float
) -> float:
    """One attention logit by the definition: rotate each pair by its angle, fade it, add up."""
    total = sum(a * b for a, b in zip(q[dim:], k[dim:], strict=True))
    for n, (x, y) in enumerate(pairs(layout, dim)):
        angle = (i - j) * base ** (-2 * n / dim)
        zeta = (2 * n + 0.4 * dim) / (1.4 * dim)
        real = q[x] * k[x] + q[y] * k[y]
        imaginary = q[x] * k[y] - q[y] * k[x]
        total += zeta ** ((i - j) / sb) * (real * math.cos(angle) + imaginary * math.sin(angle))
    return total


def rotated(x: torch.Tensor, positions: torch.Tensor, layout: str, dim: int) -> torch.Tensor:
    """As the model rotates, by complex numbers."""
    out = x.clone().double()
    for n, (a, b) in enumerate(pairs(layout, dim)):
        turn = torch.polar(
            torch.ones(positions.shape[-1]).double(),
            positions[0].double() * 10_000 ** (-2 * n / dim),
        )
        pair = torch.complex(out[..., a], out[..., b]) * turn
        out[..., a], out[..., b] = pair.real, pair.imag
    return out.float()


def logits(
    q: torch.Tensor, k: torch.Tensor, positions: torch.Tensor, layout: str, dim: int, sb: float
) -> torch.Tensor:
    q, k = rotated(q, positions, layout, dim), rotated(k, positions, layout, dim)
    origin = float(positions[0, -1])
    common = {"dim": dim, "scale_base": sb, "origin": origin, "layout": layout}
    q = xpos_scale(q, positions, side="query", **common)  # type: ignore[arg-type]  # names above
    k = xpos_scale(k, positions, side="key", **common)  # type: ignore[arg-type]  # names above
    return q @ k.transpose(-1, -2)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("size", "dim"), [(8, 8), (12, 6), (6, 2)])
def test_matches_the_definition(layout: str, size: int, dim: int) -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 7, size)
    positions = torch.tensor([[0, 1, 2, 5, 31, 64, 97]])
    actual = logits(q, k, positions, layout, dim, 16)[0, 0]
    expected = [
        [
            product(q[0, 0, a].tolist(), k[0, 0, b].tolist(), i, j, layout, dim, 10_000, 16)
            for b, j in enumerate(positions[0].tolist())
        ]
        for a, i in enumerate(positions[0].tolist())
    ]
    lower = torch.ones(7, 7).tril().bool()  # of the past: the future would grow without bound
    torch.testing.assert_close(
        actual.double()[lower],
        torch.tensor(expected, dtype=torch.float64)[lower],
        atol=1e-4,
        rtol=1e-4,
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_distance_matters(layout: str) -> None:
    torch.manual_seed(1)
    q, k = torch.randn(2, 1, 2, 33, 16)
    near, far = (torch.arange(33)[None] + start for start in (0, 100_000))
    here = logits(q, k, near, layout, 16, 8)
    torch.testing.assert_close(here, logits(q, k, far, layout, 16, 8), atol=1e-4, rtol=1e-4)
    # Layouts are not the same thing by another name.
    other = "interleaved" if layout == "half" else "half"
    assert (here - logits(q, k, near, other, 16, 8)).abs().max() > 0.1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_infinite_scale_base_is_rope(layout: str) -> None:
    q, k = torch.randn(2, 1, 1, 9, 8, generator=torch.Generator().manual_seed(2))
    positions = torch.arange(9)[None]
    plain = rotated(q, positions, layout, 8) @ rotated(k, positions, layout, 8).transpose(-1, -2)
    torch.testing.assert_close(logits(q, k, positions, layout, 8, math.inf), plain)
    assert (logits(q, k, positions, layout, 8, 4) - plain).abs().max() > 0.1


def test_far_keys_fade_to_zero_and_nothing_overflows() -> None:
    ones = torch.ones(1, 1, 3, 8)
    positions = torch.tensor([[0, 500_000, 1_000_000]])
    k = xpos_scale(ones, positions, side="key", dim=8, origin=1_000_000)
    assert bool(torch.isfinite(k).all())
    assert k[0, 0, 0, 0] == 0
    assert bool((k[0, 0, 2] == 1).all())


def test_settings_that_cannot_work() -> None:
    x, positions = torch.ones(1, 1, 2, 8), torch.tensor([[0, 1]])
    with pytest.raises(ConfigError, match="scale_base must be above 0 tokens, got 0"):
        xpos_logs(8, 0)
    with pytest.raises(ConfigError, match="even and >= 2, got dim=5"):
        xpos_logs(5)
    with pytest.raises(Exception, match="sideways"):
        xpos_scale(x, positions, side="key", dim=8, layout="sideways")  # type: ignore[arg-type]  # wrong on purpose
