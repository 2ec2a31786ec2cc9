"""Around the kernels: traffic counted and predicted, block patterns, and other kernels."""

from __future__ import annotations

import sys
import types
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch

from tests.attention.flash_cases import CASES, Case, computed, errors, expected
from unspool.attention.backends import BACKENDS
from unspool.attention.blocks import BlockMask
from unspool.attention.flash import io, patterns
from unspool.attention.kernel import attend
from unspool.attention.spec import Spec
from unspool.errors import ConfigError


@pytest.mark.parametrize("order", ["keys-outside", "queries-outside"])
@pytest.mark.parametrize("head_dim", [32, 64, 128])
@pytest.mark.parametrize("on_chip", [8192, 24_576])
def test_counted_traffic_is_the_formula(order: io.Order, head_dim: int, on_chip: int) -> None:
    for queries, keys in ((4096, 4096), (5000, 5000), (2048, 8192)):
        count = io.simulate(queries, keys, head_dim, on_chip, order=order)
        rows, columns = io.tile_sizes(head_dim, on_chip)
        formula = io.flash_elements(queries, keys, head_dim, rows, columns, order=order)
        assert count.total == formula
        theorem = io.flash_elements(
            queries, keys, head_dim, rows, columns, order=order, whole=False
        )
        assert count.total == pytest.approx(theorem, rel=0.05)
        assert count.most <= on_chip + 4 * head_dim


@pytest.mark.parametrize("head_dim", [32, 64, 128])
def test_traffic_falls_with_the_memory_on_the_chip(head_dim: int) -> None:
    """Theorem 2: of order N^2 d^2 / S. Twice the memory, half of the passes over Q and O."""
    tokens = 16_384
    for on_chip in (16_384, 32_768, 65_536):
        once = io.simulate(tokens, tokens, head_dim, on_chip).total
        twice = io.simulate(tokens, tokens, head_dim, 2 * on_chip).total
        fixed = 2 * tokens * head_dim
        assert (once - fixed) / (twice - fixed) == pytest.approx(2.0, rel=0.05)
        leading = 12 * tokens**2 * head_dim**2 / on_chip
        assert once == pytest.approx(leading, rel=0.1 + on_chip / tokens / head_dim / 10)


def test_skipped_tiles_move_nothing() -> None:
    rows, columns = io.tile_sizes(64, 8192)
    met = [(i, j) for i in range(4096 // rows) for j in range(4096 // columns) if (i + j) % 4 == 0]
    count = io.simulate(4096, 4096, 64, 8192, met=met)
    report = io.io_report(4096, 64, 8192, share=0.25, itemsize=1)
    assert report.block_sparse_bytes is not None
    assert count.total == pytest.approx(report.block_sparse_bytes, rel=0.05)
    assert report.flops == 4096 * 4096 * 64


def test_the_report_adds_up() -> None:
    report = io.io_report(1024, 64, 24_576, heads=16, batch=64)
    assert report.standard_bytes == 2 * 16 * 64 * (4 * 1024 * 64 + 4 * 1024**2)
    assert report.saved > 1.5
    assert report.tile_columns == 96
    assert report.tile_rows == 64
    for fields in ({"queries": 0}, {"share": 0.0}, {"on_chip": 100}):
        with pytest.raises(ConfigError):
            io.io_report(**{"queries": 8, "head_dim": 64, "on_chip": 8192, **fields})


def test_patterns_by_their_words() -> None:
    n = 13
    window = patterns.sliding_window(n, n, width=3, causal=True)
    dilated = patterns.dilated(n, n, width=2, step=3)
    butterfly = patterns.butterfly(n, n)
    near = patterns.butterfly(n, n, stride=4)
    for i in range(n):
        for j in range(n):
            assert window[i, j] == (0 <= i - j < 3)
            assert dilated[i, j] == (abs(i - j) in (0, 3))
            assert butterfly[i, j] == (bin(i ^ j).count("1") <= 1)
            assert near[i, j] == (i ^ j in (0, 1, 2))
    assert patterns.sinks(n, n, first=2)[:, :2].all()
    assert patterns.sinks(n, n, first=2).sum() == 2 * n
    chunk = patterns.sliding_window(4, n, width=3)
    assert torch.equal(chunk, patterns.sliding_window(n, n, width=3)[-4:])
    assert patterns.share(window, causal=True) == pytest.approx((1 + 2 + 11 * 3) / (13 * 14 / 2))


def test_bigbird_draws_what_it_has_not() -> None:
    met = patterns.bigbird(20, 20, window=2, first=1, random=3, seed=4)
    fixed = patterns.bigbird(20, 20, window=2, first=1, random=0)
    assert (met & fixed).equal(fixed)
    assert ((met & ~fixed)[1:].sum(1) == 3).all()
    assert met[0].all()
    assert torch.equal(met, patterns.bigbird(20, 20, window=2, first=1, random=3, seed=4))
    assert not torch.equal(met, patterns.bigbird(20, 20, window=2, first=1, random=3, seed=5))
    assert patterns.bigbird(3, 3, random=50).all()


def test_a_butterfly_reaches_every_block_in_a_few_layers() -> None:
    """Why the pattern is used: each layer turns one bit, so log2 of the blocks suffice."""
    met = patterns.butterfly(16, 16).float()
    reach = torch.linalg.matrix_power(met, 4)
    assert (reach > 0).all()
    assert not (torch.linalg.matrix_power(met, 3) > 0).all()
    seen, queue = {0: 0}, deque([0])
    while queue:
        at = queue.popleft()
        for other in met[at].nonzero().flatten().tolist():
            if other not in seen:
                seen[other] = seen[at] + 1
                queue.append(other)
    assert max(seen.values()) == 4


def test_patterns_refuse_what_means_nothing() -> None:
    with pytest.raises(ConfigError, match="width >= 1"):
        patterns.sliding_window(3, 3, width=0)
    with pytest.raises(ConfigError, match="num_q >= 1"):
        patterns.butterfly(0, 3)
    with pytest.raises(ConfigError, match="random >= 0"):
        patterns.bigbird(3, 3, random=-1)
    with pytest.raises(ConfigError, match="at least one"):
        patterns.union()
    with pytest.raises(ConfigError, match="blocks"):
        patterns.union(patterns.sinks(2, 2, first=1), patterns.sinks(2, 3, first=1))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["two sides", "padding", "globals", "mask", "blocks a key head"])
def test_flex_attention_has_the_same_rules(name: str) -> None:
    case = CASES[name]
    spec, seen = case.spec()
    wanted = expected(case, spec, seen)
    arrays = [torch.from_numpy(x).float() for x in np_inputs(case)]
    out, lse = attend(*arrays, spec=spec, scale=case.scale, return_lse=True, backend="flex")
    assert np.abs(out.numpy() - wanted.out).max() < 1e-5
    lit = np.isfinite(wanted.lse)
    assert np.abs(lse.numpy()[lit] - wanted.lse[lit]).max() < 1e-5
    assert np.isneginf(lse.numpy()[~lit]).all()


def np_inputs(case: Case) -> tuple[np.ndarray, ...]:
    from tests.attention.flash_cases import inputs

    return inputs(case)[:3]


def test_flex_attention_says_what_is_too_large() -> None:
    q = torch.empty(1, 1, 4000, 16)
    with pytest.raises(ConfigError, match="square matrix of 16,000,000"):
        attend(q, q, q, spec=Spec(), backend="flex")


def test_the_flash_attn_package_is_called_in_its_own_layout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a function of this test in its place, which computes by the package's words."""

    def flash_attn_func(q: Any, k: Any, v: Any, **given: Any) -> tuple[Any, Any, None]:
        assert given["deterministic"]
        left, right = given["window_size"]
        q, k, v = (x.transpose(1, 2).double() for x in (q, k, v))
        at = torch.arange(k.shape[2] - q.shape[2], k.shape[2])[:, None] - torch.arange(k.shape[2])
        seen = torch.ones_like(at, dtype=torch.bool)
        seen &= (at <= left) if left >= 0 else True
        seen &= (at >= -right) if right >= 0 else True
        scores = given["softmax_scale"] * q @ k.transpose(-1, -2)
        scores = given["softcap"] * torch.tanh(scores / given["softcap"])
        scores = scores.masked_fill(~seen, float("-inf"))
        lse = torch.logsumexp(scores, -1)
        out = torch.softmax(scores, -1).nan_to_num() @ v
        return out.transpose(1, 2).half(), lse.masked_fill(lse.isneginf(), float("inf")), None

    monkeypatch.setitem(
        sys.modules, "flash_attn", types.SimpleNamespace(flash_attn_func=flash_attn_func)
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, n, 16, generator=generator).half() for n in (9, 5, 5))
    spec = Spec(window=3, softcap=2.0, deterministic=True)
    assert BACKENDS["flash_attn"].why_not(q, k, v, spec=spec, return_lse=True) is not None  # CPU
    out, lse = BACKENDS["flash_attn"].attend(q, k, v, spec=spec, scale=0.5, return_lse=True)
    wanted = attend(q, k, v, spec=spec, scale=0.5, return_lse=True, backend="reference")
    assert lse is not None
    torch.testing.assert_close(out, wanted[0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(lse.float(), wanted[1], rtol=1e-3, atol=1e-3)
    other = BACKENDS["flash_attn"]._named("why_not_{}")
    assert "sinks" in other(q, k, v, spec=Spec(window=3, sinks=1), return_lse=False)
    assert "multiples of 8" in other(
        q[..., :9], k[..., :9], v[..., :9], spec=spec, return_lse=False
    )


@pytest.mark.parametrize("case", [CASES["causal"], CASES["blocks"]], ids=["causal", "blocks"])
def test_every_back_end_that_takes_a_call_gives_the_same(case: Case) -> None:
    spec, seen = case.spec()
    wanted = expected(case, spec, seen)
    q = torch.zeros(1, 2, case.queries, case.dim)
    k = torch.zeros(1, 1, case.keys, case.dim)
    taken = [
        n for n, b in BACKENDS.items() if b.why_not(q, k, k, spec=spec, return_lse=True) is None
    ]
    assert "reference" in taken
    assert "sdpa" in taken
    for name in set(taken) - {"triton", "flex", "sdpa"}:
        for part, error in errors(computed(case, spec, name, "cpu", torch.float32), wanted).items():
            assert error < 1e-4, (name, part)


def test_a_block_mask_counts_its_pairs() -> None:
    mask = BlockMask.from_dense(torch.ones(3, 2, dtype=torch.bool).tril(), block_q=5, block_k=9)
    assert mask.pairs(12, 16) == int(mask.dense(12, 16).sum())


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (torch.ones(3, 3, dtype=torch.bool), r"\(1, 4, 8, 8\) or 1 in any.*\(3, 3\)"),
        (torch.ones(1, 1, 8, 7, dtype=torch.bool), r"\(1, 1, 8, 7\)"),
        (torch.zeros(1, 1, 8, 8), "must be bool.*float32"),
    ],
    ids=["rank", "keys", "dtype"],
)
def test_masks_that_do_not_fit_are_named(mask: torch.Tensor, said: str) -> None:
    q, k = torch.randn(1, 4, 8, 4), torch.randn(1, 2, 8, 4)
    with pytest.raises(ConfigError, match=said):
        attend(q, k, k, spec=Spec(causal=True, mask=mask))


def test_integers_are_no_queries() -> None:
    q = torch.ones(1, 1, 4, 4, dtype=torch.long)
    with pytest.raises(ConfigError, match=r"floating-point tensors, got torch\.int64"):
        attend(q, q, q, spec=Spec(causal=True))
