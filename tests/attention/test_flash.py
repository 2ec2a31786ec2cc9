"""The reference and the Triton kernels against attention written out in float64."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.attention.flash_cases import CASES, Case, computed, errors, expected
from unspool.attention.backends import BACKENDS, choose
from unspool.attention.blocks import BlockMask
from unspool.attention.flash import configs
from unspool.attention.flash.launch import interpreted
from unspool.attention.flash.plan import tiles_met
from unspool.attention.kernel import attend
from unspool.attention.spec import Spec, visible
from unspool.errors import ConfigError

pytest.importorskip("triton")
needs_interpreter = pytest.mark.skipif(not interpreted(), reason="a GPU runs the kernels itself")


@pytest.fixture(autouse=True)
def _overflow() -> Iterator[None]:
    """The interpreter computes what masks then hide, and warns of it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(overflow|invalid value) encountered", RuntimeWarning)
        yield


def _marked(fast: bool) -> list[object]:
    return [
        pytest.param(case, marks=[pytest.mark.slow] if case.slow and not fast else [], id=name)
        for name, case in CASES.items()
    ]


@pytest.mark.parametrize("case", _marked(fast=True))
def test_the_reference_is_attention_written_out(case: Case) -> None:
    spec, seen = case.spec()
    wanted = expected(case, spec, seen)
    for part, error in errors(
        computed(case, spec, "reference", "cpu", torch.float64), wanted
    ).items():
        assert error < 1e-12, part


@needs_interpreter
@pytest.mark.parametrize("case", _marked(fast=False))
def test_the_kernels_are_attention_written_out(case: Case) -> None:
    spec, seen = case.spec()
    wanted = expected(case, spec, seen)
    for part, error in errors(computed(case, spec, "triton", "cpu", torch.float32), wanted).items():
        assert error < 2e-5, part


@needs_interpreter
@pytest.mark.slow
@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 63, 64, 65, 130])
def test_any_length(tokens: int) -> None:
    for keys in {tokens, tokens + 70}:
        case = Case(name="", queries=tokens, keys=keys, rules={"causal": True})
        spec, seen = case.spec()
        found = computed(case, spec, "triton", "cpu", torch.float32)
        for part, error in errors(found, expected(case, spec, seen)).items():
            assert error < 2e-5, part


@needs_interpreter
@pytest.mark.parametrize("heads", [1, 4])
def test_one_query_reads_its_kept_keys_in_several_parts(heads: int) -> None:
    generator = torch.Generator().manual_seed(heads)
    q, k, v = (
        torch.randn(1, h, t, 16, generator=generator) for h, t in ((4, 1), (2, 400), (2, 400))
    )
    keys = torch.stack([torch.randperm(400, generator=generator)[:260] for _ in range(heads)])
    spec = Spec(blocks=BlockMask.kept(keys[None]))
    found = attend(q, k, v, spec=spec, return_lse=True, backend="triton")
    wanted = attend(q.double(), k.double(), v.double(), spec=spec, return_lse=True,
                    backend="reference")  # fmt: skip
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5)


@needs_interpreter
@pytest.mark.slow
@pytest.mark.parametrize("rules", [{"causal": True}, {}, {"window": 40, "right": 9}], ids=str)
def test_scores_ahead_and_rows_backwards(
    monkeypatch: pytest.MonkeyPatch, rules: dict[str, int]
) -> None:
    monkeypatch.setattr(configs, "_WIDE", {4: configs.Tiles(32, 16, 4, 1, True, True)})
    for queries, keys in ((90, 90), (70, 130), (130, 70)):
        case = Case(name="", queries=queries, keys=keys, rules=rules)
        spec, seen = case.spec()
        found = computed(case, spec, "triton", "cpu", torch.float32)
        for part, error in errors(found, expected(case, spec, seen)).items():
            assert error < 2e-5, part


@needs_interpreter
@pytest.mark.slow
@pytest.mark.parametrize("scale", [-0.3, 0.0])
def test_a_scale_that_is_not_positive(scale: float) -> None:
    case = Case(name="", scale=scale, rules={"causal": True})
    spec, seen = case.spec()
    found = computed(case, spec, "triton", "cpu", torch.float32)
    for part, error in errors(found, expected(case, spec, seen)).items():
        assert error < 2e-5, part


@pytest.mark.slow
def test_the_kernels_compile_for_a_hopper_gpu_on_any_machine(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "tests.attention.compile_kernels"],
        cwd=root, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "compiled\n", done.stderr[-2000:]


@needs_interpreter
@pytest.mark.slow
def test_the_log_sum_exp_has_a_gradient_by_finite_differences() -> None:
    """In float32, so with a wide step: the sum of both results along a random direction."""
    generator = torch.Generator().manual_seed(1)
    q, k, v, direction = (torch.randn(1, 1, 20, 16, generator=generator) for _ in range(4))
    spec = Spec(window=9, sinks=2)

    def value(at: torch.Tensor) -> torch.Tensor:
        out, lse = attend(at, k, v, spec=spec, return_lse=True, backend="triton")
        return (out.double() ** 2).sum() + (lse.double() ** 2).sum()

    start = q.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(start), start)
    step = 1e-2
    slope = (value(q + step * direction) - value(q - step * direction)) / (2 * step)
    assert float(slope) == pytest.approx(float((gradient * direction).sum()), rel=2e-3)


@pytest.mark.parametrize("case", _marked(fast=True))
def test_a_tile_that_is_skipped_holds_no_pair(case: Case) -> None:
    spec, seen = case.spec()
    for block_q, block_k in ((16, 16), (24, 7)):
        met = tiles_met(spec, case.queries, case.keys, block_q, block_k, torch.device("cpu"))
        wide = met.repeat_interleave(block_q, 2).repeat_interleave(block_k, 3)
        kept = wide[:, :, : case.queries, : case.keys].numpy()
        assert not (seen & ~np.broadcast_to(kept, seen.shape)).any()


@pytest.mark.parametrize("case", _marked(fast=True))
def test_the_pattern_has_one_meaning(case: Case) -> None:
    spec, seen = case.spec()
    found = visible(spec, case.queries, case.keys, torch.device("cpu"), None, case.heads)
    dense = np.ones((1, 1, case.queries, case.keys), dtype=bool) if found is None else found.numpy()
    shape = np.broadcast_shapes(dense.shape, seen.shape)
    assert np.array_equal(np.broadcast_to(dense, shape), np.broadcast_to(seen, shape))


def test_packed_documents_do_not_meet() -> None:
    bounds, q_bounds = torch.tensor([0, 3, 8]), torch.tensor([0, 1, 6])
    same = visible(Spec.packed(bounds, num_queries=10, causal=True), 10, 10, bounds.device)
    assert same is not None
    for i in range(10):
        for j in range(10):
            alike = (i < 3) == (j < 3) and max(i, j) < 8
            assert bool(same[0, 0, i, j]) == (alike and j <= i)
    spec = Spec.packed(q_bounds, bounds, num_queries=7, num_keys=9, causal=True)
    other = visible(spec, 7, 9, bounds.device)
    assert other is not None
    expected_rows = [[0, 1, 2], [3], [3, 4], [3, 4, 5], [3, 4, 5, 6], [3, 4, 5, 6, 7], []]
    assert [row.nonzero().flatten().tolist() for row in other[0, 0]] == expected_rows


def test_a_backend_says_why_it_cannot_run() -> None:
    q = torch.randn(1, 2, 8, 16)
    for backend, spec, said in (
        ("sdpa", Spec(softcap=3.0), "no rule 'softcap'"),
        ("flash_attn", Spec(), "tensors are on cpu"),
        ("native", Spec(dropout=0.1), "no rule 'dropout'"),
    ):
        with pytest.raises(ConfigError, match=said):
            attend(q, q, q, spec=spec, backend=backend)
    with pytest.raises(ConfigError, match="auto or one of"):
        attend(q, q, q, spec=Spec(), backend="magic")
    taught = q.clone().requires_grad_()
    narrow = Spec(deterministic=True, blocks=BlockMask.kept(torch.tensor([[[0, 3]]])))
    reason = BACKENDS["triton"].why_not(taught, q, q, spec=narrow, return_lse=False)
    assert reason is not None
    assert "atomics" in reason
    assert choose("auto", taught, q, q, spec=Spec(), return_lse=True).name == "native"
    wide = taught.double()
    assert choose("auto", wide, wide, wide, spec=Spec(), return_lse=True).name == "reference"


@pytest.mark.parametrize(
    "fields",
    [{"window": 0}, {"right": -1}, {"softcap": 0.0}, {"dropout": 1.0}, {"sinks": -1}],
    ids=str,
)
def test_a_pattern_refuses_what_means_nothing(fields: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        Spec(**fields)


def test_block_lists_refuse_what_does_not_fit() -> None:
    blocks = torch.ones(2, 3, dtype=torch.bool)
    mask = BlockMask.from_dense(blocks, block_q=4, block_k=4)
    with pytest.raises(ConfigError, match="lists 2 blocks"):
        mask.dense(9, 12)
    with pytest.raises(ConfigError, match="block_k >= 1"):
        BlockMask.from_dense(blocks, block_q=4, block_k=0)
    with pytest.raises(ConfigError, match="int32"):
        BlockMask(block_q=1, block_k=1, indices=mask.indices.long(), counts=mask.counts)
    assert mask.pairs(7, 10) == 70
