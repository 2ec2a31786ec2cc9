"""Kernels in roles for Hopper GPUs: which calls they take, how they are launched, and what each
program is given to do. What they compute is tested on a GPU, with every other kernel."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.attention.roles import played
from unspool.attention.flash import configs, hopper
from unspool.attention.flash.dense import band_of
from unspool.attention.flash.launch import RowFacts
from unspool.attention.spec import Spec

pytest.importorskip("triton.experimental.gluon.language.nvidia.hopper")

BLOCK_M, BLOCK_N = 128, 128
NUMBERS = SimpleNamespace(
    maximum=max, minimum=min, cdiv=lambda a, b: -(-a // b), where=lambda c, a, b: a if c else b
)


def _tensors(queries: int = 300, keys: int = 333, dim: int = 64) -> list[torch.Tensor]:
    return [
        torch.zeros(2, heads, length, dim, dtype=torch.bfloat16)
        for heads, length in ((4, queries), (2, keys), (2, keys), (4, queries))
    ]


class _Recorded:
    """Stands for a kernel: keeps the grid and what each parameter was bound to."""

    def __init__(self, kernel: Any) -> None:
        self.signature = inspect.signature(kernel.fn)

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        self.grid = grid

        def launch(*args: Any, num_warps: int, **constants: Any) -> None:
            self.bound = self.signature.bind(*args, **constants).arguments
            assert num_warps == 4

        return launch


def test_a_call_that_is_not_for_them_goes_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v, _ = _tensors(dim=128)
    band = band_of(Spec())
    assert not hopper.serves(q, k, v, band=band, table=configs.HOPPER_FORWARD)  # on a processor
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(hopper, "_at_hand", lambda device: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))

    def served(*tensors: torch.Tensor, spec: Spec | None = None) -> bool:
        band = band_of(spec or Spec())
        return hopper.serves(*tensors, band=band, table=configs.HOPPER_FORWARD)

    assert served(q, k, v)
    assert served(q, k, v, spec=Spec(causal=False))
    assert not served(q, k, v, spec=Spec(window=7))
    assert not served(q.float(), k.float(), v.float())
    assert not served(q[..., :40], k[..., :40], v[..., :40])
    assert not served(q, k, v[..., :64])
    assert not served(q, k.expand(2, 2, 333, 128)[:, :1].expand(2, 2, 333, 128), v)


@pytest.mark.parametrize("causal", [True, False])
def test_every_argument_is_given(monkeypatch: pytest.MonkeyPatch, causal: bool) -> None:
    from unspool.attention.flash.kernels import hopper_dkdv, hopper_dq, hopper_forward

    seen = {}
    for module, name in (
        (hopper_forward, "hopper_forward"), (hopper_dq, "hopper_dq"), (hopper_dkdv, "hopper_dkdv"),
    ):  # fmt: skip
        seen[name] = _Recorded(getattr(module, name))
        monkeypatch.setattr(module, name, seen[name])
    band = band_of(Spec(causal=causal))
    q, k, v, d_out = _tensors(dim=128)
    out, lse = hopper.forward(q, k, v, band, 0.5)
    assert out.shape == q.shape
    assert lse.shape == q.shape[:3]
    bound = seen["hopper_forward"].bound
    assert bound["K"].block_shape == [1, 1, bound["BLOCK_N"], 128]
    assert bound["shift"] == 33
    assert bound["groups"] == 2
    assert bound["tiles"] == 3
    assert bound["across"] == 8
    q, k, v, d_out = _tensors(dim=64)
    facts = RowFacts(*torch.zeros(2, 2, 4, 384))
    assert hopper.dq(q, k, v, d_out, facts, band, 0.5).shape == q.shape
    assert seen["hopper_dq"].grid == (3, 8)
    assert seen["hopper_dq"].bound["T_PADDED"] == 384
    d_k, d_v = hopper.dkdv(q, k, v, d_out, facts, band, 0.5)
    assert d_k.shape == d_v.shape == k.shape
    assert seen["hopper_dkdv"].grid == (3, 4)
    assert seen["hopper_dkdv"].bound["LSE"].shape == [8, 384]
    for recorded in seen.values():
        assert recorded.bound["RIGHT"] is causal


@settings(max_examples=60, deadline=None)
@given(
    queries=st.integers(1, 900), keys=st.integers(1, 900), across=st.integers(1, 5),
    programs=st.integers(1, 9), causal=st.booleans(), right=st.integers(-200, 200),
)  # fmt: skip
def test_programs_share_out_all_pairs(
    queries: int, keys: int, across: int, programs: int, causal: bool, right: int
) -> None:
    from unspool.attention.flash.kernels import hopper_forward, warpgroups

    shift = keys - queries + right
    tiles = -(-queries // BLOCK_M)
    per_head = (tiles + 1) // 2 if causal else tiles
    met: set[tuple[int, int]] = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warpgroups, "gl", NUMBERS)
        for program in range(min(programs, per_head * across)):
            numbers = SimpleNamespace(
                **vars(NUMBERS),
                program_id=lambda axis, n=program: n,
                num_programs=lambda axis: min(programs, per_head * across),
            )
            patch.setattr(hopper_forward, "gl", numbers)
            pieces = -(-(per_head * across - program) // numbers.num_programs(0))
            for piece in range(pieces * (2 if causal else 1)):
                met.add(hopper_forward._piece.fn(piece, per_head, tiles, causal))
        assert met == {(a, t) for a in range(across) for t in range(tiles)}
        for tile in range(tiles):
            first, total, clear = warpgroups.bounds.fn(
                tile, queries, keys, shift, BLOCK_M, BLOCK_N, causal
            )
            rows = torch.arange(first, first + BLOCK_M)[:, None]
            columns = torch.arange(keys)[None]
            seen = columns <= rows + shift if causal else torch.ones(BLOCK_M, keys, dtype=bool)
            assert not seen[:, total * BLOCK_N :].any()
            assert seen[:, : clear * BLOCK_N].all()
            assert clear * BLOCK_N <= keys
            assert total >= 1


@pytest.mark.parametrize(
    ("sizes", "causal", "right"),
    [
        ((1, 2, 1, 70, 70), True, 0),
        ((1, 2, 2, 64, 64), False, 0),
        ((2, 4, 2, 33, 90), True, 0),
        ((1, 2, 1, 100, 41), True, 0),
        ((1, 1, 1, 50, 61), True, 9),
        ((1, 3, 3, 90, 75), False, 0),
    ],
    ids=["causal", "full", "more keys", "blind rows", "a little ahead", "ragged"],
)
def test_what_they_compute_played_in_threads(
    monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...], causal: bool, right: int
) -> None:
    from unspool.attention.flash.kernels import (
        hopper_dkdv,
        hopper_dq,
        hopper_forward,
        warpgroups,
    )

    batch, heads, kv_heads, queries, keys = sizes
    small = configs.Tiles(32, 16, 4, 2)
    monkeypatch.setitem(configs.HOPPER_FORWARD, 64, small)
    monkeypatch.setitem(configs.HOPPER_DQ, 64, small)
    monkeypatch.setitem(configs.HOPPER_DKDV, 64, configs.Tiles(16, 32, 4, 3))
    generator = torch.Generator().manual_seed(sum(sizes))
    q, k, v, d_out = (
        torch.randn(batch, h, length, 64, generator=generator, dtype=torch.float64).bfloat16()
        for h, length in ((heads, queries), (kv_heads, keys), (kv_heads, keys), (heads, queries))
    )
    distance = torch.arange(queries)[:, None] + keys - queries - torch.arange(keys)
    seen = distance >= -right if causal else torch.ones_like(distance, dtype=torch.bool)
    leaves = [x.double().requires_grad_() for x in (q, k, v)]
    shared = [x.repeat_interleave(heads // kv_heads, 1) for x in leaves[1:]]
    scores = (leaves[0] @ shared[0].mT * 0.125).masked_fill(~seen, float("-inf"))
    weights = torch.softmax(scores, -1).nan_to_num(0.0)
    wanted = weights @ shared[1]
    gradients = torch.autograd.grad(wanted, leaves, d_out.double())
    lse = torch.logsumexp(scores, -1).detach()
    padded = -(-queries // 128) * 128
    lse2 = torch.full((batch, heads, padded), float("inf"))
    lse2[..., :queries] = torch.where(lse.isneginf(), float("inf"), lse * 1.4426950408889634)
    delta = torch.zeros(batch, heads, padded)
    delta[..., :queries] = (wanted.detach() * d_out).sum(-1)
    band = band_of(Spec(causal=True)) if causal else band_of(Spec(causal=False))
    band = band._replace(right=right) if causal else band
    with played(monkeypatch, warpgroups, hopper_forward, hopper_dq, hopper_dkdv):
        out, found_lse = hopper.forward(q, k, v, band, 0.125)
        facts = RowFacts(lse2, delta)
        found = [
            out,
            hopper.dq(q, k, v, d_out, facts, band, 0.125),
            *hopper.dkdv(q, k, v, d_out, facts, band, 0.125),
        ]
    torch.testing.assert_close(found_lse.double(), lse, rtol=1e-4, atol=1e-4)
    for a, b in zip(found, (wanted.detach(), *gradients), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=2e-2, atol=3e-2)
