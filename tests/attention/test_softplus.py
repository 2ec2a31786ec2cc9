"""Softplus attention against loops from its formulas, its limits, and its hand-written backward."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.oracles.softplus import softplus_rows
from unspool.attention.softplus import SoftplusConfig, softplus_attention
from unspool.attention.softplus.reference import row_weights
from unspool.attention.spec import Spec
from unspool.errors import ConfigError

needs_triton = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("triton") is None, reason="triton is not installed"
)


def draw(batch: int, heads: int, kv: int, queries: int, keys: int, size: int = 8) -> list[Any]:
    generator = torch.Generator().manual_seed(queries * 1000 + keys)
    shapes = ((batch, heads, queries, size), (batch, kv, keys, size), (batch, kv, keys, size))
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]


def weights_of(q: Any, k: Any, **options: Any) -> torch.Tensor:
    """The weights themselves: values are the unit vectors."""
    eye = torch.eye(k.shape[2], dtype=q.dtype).expand(*k.shape[:2], -1, -1)
    return softplus_attention(q, k, eye, backend="reference", **options)


def looped(q: Any, k: Any, v: Any, visible: Any, **options: Any) -> torch.Tensor:
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=torch.float64)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            kv = h * k.shape[1] // q.shape[1]
            args = (q[b, h].numpy(), k[b, kv].numpy(), v[b, kv].numpy(), visible[b].numpy())
            out[b, h] = torch.from_numpy(softplus_rows(*args, **options)[0])
    return out


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (7, 7), (17, 17), (5, 13), (1, 9)])
@pytest.mark.parametrize(("p", "offset"), [(15, 1.0), (3, 0.0), (1, 0.5)])
@pytest.mark.parametrize("reweight", [True, False])
def test_matches_the_loops(queries: int, keys: int, p: int, offset: float, reweight: bool) -> None:
    q, k, v = draw(2, 4, 2, queries, keys)
    visible = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries).expand(2, -1, -1)
    options = {"p": p, "offset": offset, "reweight": reweight}
    got = softplus_attention(q, k, v, backend="reference", **options)
    torch.testing.assert_close(got, looped(q, k, v, visible, **options), rtol=1e-9, atol=1e-12)


def test_padding_is_not_counted_and_a_blind_row_is_zero() -> None:
    q, k, v = draw(2, 2, 1, 6, 6)
    positions = torch.tensor([[-1, -1, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5]])
    spec = Spec(q_positions=positions, k_positions=positions)
    got = softplus_attention(q, k, v, spec=spec, backend="reference")
    alone = softplus_attention(q[:1, :, 2:], k[:1, :, 2:], v[:1, :, 2:], backend="reference")
    torch.testing.assert_close(got[:1, :, 2:], alone)
    assert not got[0, :, :2].any()
    whole = softplus_attention(q[1:], k[1:], v[1:], backend="reference")
    torch.testing.assert_close(got[1:], whole)


def test_exp_without_the_rest_is_softmax() -> None:
    q, k, v = draw(1, 4, 2, 9, 9)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    options = {"phi": "exp", "scale": "plain", "reweight": False}
    got = softplus_attention(q, k, v, backend="reference", **options)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", ["log", "log-n", "plain", 0.3])
def test_scaled_softmax_goes_through_the_exact_kernel(scale: Any) -> None:
    q, k, v = (x.float() for x in draw(2, 4, 2, 7, 11))
    positions = torch.arange(11)[None].repeat(2, 1)
    positions[0] = torch.cat([torch.full((3,), -1), torch.arange(8)])
    spec = Spec(q_positions=positions[:, 4:], k_positions=positions)
    options = {"phi": "exp", "scale": scale, "reweight": False, "spec": spec}
    fast = softplus_attention(q, k, v, **options)
    slow = softplus_attention(q.double(), k.double(), v.double(), backend="reference", **options)
    torch.testing.assert_close(fast.double(), slow, rtol=0, atol=1e-6)


@given(st.integers(1, 12), st.booleans(), st.sampled_from([1, 3, 15]), st.sampled_from([0.0, 1.0]))
def test_rows_are_weights(length: int, reweight: bool, p: int, offset: float) -> None:
    q, k, _ = draw(1, 2, 2, length, length)
    w = weights_of(q, k, p=p, offset=offset, reweight=reweight)
    assert (w >= 0).all()
    torch.testing.assert_close(w.sum(-1), torch.ones_like(w.sum(-1)))
    assert not w.triu(1).any()
    torch.testing.assert_close(w[..., 0, 0], torch.ones_like(w[..., 0, 0]))


def test_power_one_without_offset_changes_nothing() -> None:
    q, k, v = draw(1, 2, 2, 9, 9)
    first = softplus_attention(q, k, v, reweight=False)
    torch.testing.assert_close(softplus_attention(q, k, v, p=1, offset=0.0), first)


def test_large_powers_leave_the_largest_and_share_ties() -> None:
    q, k, _ = draw(1, 1, 1, 5, 5)
    w = weights_of(q, k, p=4001)[0, 0, -1]
    best = int((q[0, 0, -1] @ k[0, 0].T).argmax())
    assert w[best] > 0.999
    k[0, 0, 1] = k[0, 0, best] if best != 1 else k[0, 0, 1]
    k[0, 0, 2] = k[0, 0, best]
    shared = weights_of(q, k, p=4001)[0, 0, -1]
    torch.testing.assert_close(shared[2], shared[best])
    same = weights_of(q, k[:, :, :1].expand(-1, -1, 5, -1))
    torch.testing.assert_close(same[0, 0, -1], torch.full((5,), 0.2, dtype=torch.float64))


def test_masked_keys_order_and_repeats_change_nothing() -> None:
    q, k, v = draw(1, 2, 2, 1, 9)
    plain = {"causal": False, "backend": "reference"}
    whole = softplus_attention(q, k, v, **plain)
    more = [torch.cat([x, torch.full_like(x[:, :, :3], 7.0)], dim=2) for x in (k, v)]
    mask = torch.arange(12)[None, None, None] < 9
    hidden = softplus_attention(q, *more, spec=Spec(causal=False, mask=mask), backend="reference")
    torch.testing.assert_close(hidden, whole)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        softplus_attention(q, k[:, :, order], v[:, :, order], **plain), whole
    )
    fixed = {**plain, "scale": 0.4}
    twice = [torch.cat([x, x], dim=2) for x in (k, v)]
    torch.testing.assert_close(
        softplus_attention(q, *twice, **fixed), softplus_attention(q, k, v, **fixed)
    )


@pytest.mark.parametrize("reweight", [True, False])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_gradients_of_the_reference(reweight: bool, offset: float) -> None:
    q, k, v = (x.requires_grad_() for x in draw(1, 2, 1, 4, 5, size=3))

    def call(*x: Any) -> torch.Tensor:
        options = {"p": 3, "offset": offset, "reweight": reweight, "backend": "reference"}
        return softplus_attention(*x, **options)

    assert torch.autograd.gradcheck(call, (q, k, v))


@needs_triton
@pytest.mark.parametrize(
    ("queries", "keys", "reweight", "p", "offset", "causal"),
    [
        (5, 5, True, 15, 1.0, True),
        pytest.param(3, 9, True, 3, 0.0, True, marks=pytest.mark.slow),
        (3, 7, False, 15, 1.0, False),
        pytest.param(70, 70, True, 15, 1.0, True, marks=pytest.mark.slow),
        pytest.param(33, 97, True, 7, 1.0, False, marks=pytest.mark.slow),
        pytest.param(1, 65, True, 15, 1.0, True, marks=pytest.mark.slow),
    ],
)
def test_the_kernel_and_its_backward(
    queries: int, keys: int, reweight: bool, p: int, offset: float, causal: bool
) -> None:
    """Against float64 autograd through the reference; padding on the left of one row."""
    exact = draw(2, 2, 1, queries, keys, size=16)
    at_k = torch.arange(keys)[None].repeat(2, 1)
    at_k[0] = (at_k[0] - 2).clamp(min=-1)
    spec = Spec(causal=causal, q_positions=at_k[:, keys - queries :], k_positions=at_k)
    grads = torch.randn(exact[0].shape, generator=torch.Generator().manual_seed(3)).double()
    found = []
    ways = ((torch.float64, "reference"), (torch.float32, "reference"), (torch.float32, "triton"))
    for dtype, backend in ways:
        given_ = [x.detach().clone().to(dtype).requires_grad_() for x in exact]
        options = {"p": p, "offset": offset, "reweight": reweight, "backend": backend}
        out = softplus_attention(*given_, spec=spec, **options)
        out.backward(grads.to(dtype))
        found.append([out.detach(), *(x.grad for x in given_)])
    for right, plain, got in zip(*found, strict=True):
        bound = 2 * float((plain - right).abs().max()) + 1e-5 * float(right.abs().max())
        assert float((got - right).abs().max()) <= bound


@needs_triton
def test_the_kernel_keeps_rows_that_softplus_would_underflow_in() -> None:
    q, k, v = draw(1, 1, 1, 3, 3, size=16)
    q = q[:, :, :1].expand(-1, -1, 3, -1).contiguous()
    k = -q * 40 + k * 0.1  # every score lies far below zero
    right = softplus_attention(q, k, v, backend="reference")
    low = [x.float() for x in (q, k, v)]
    torch.testing.assert_close(
        softplus_attention(*low, backend="triton").double(), right, rtol=1e-2, atol=1e-2
    )


def test_large_scores_in_bfloat16_stay_finite() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 64, 64, generator=generator) for _ in range(3))
    q, k = q * 30, k * 30  # scores of some 10,000
    low = [x.bfloat16() for x in (q, k, v)]
    for reweight in (False, True):
        got = softplus_attention(*low, reweight=reweight)
        right = softplus_attention(*(x.double() for x in low), reweight=reweight)
        assert torch.isfinite(got).all()
        assert float((got.double() - right).abs().max()) <= 0.01 * float(right.abs().max())


@pytest.mark.parametrize("size", [16, 64])
def test_entropy_below_the_uniform_level_does_not_depend_on_length(size: int) -> None:
    """Over Gaussian scores LSSA stays the same number of nats below log n at any length."""
    generator = torch.Generator().manual_seed(0)
    below = []
    for n in (256, 1024, 8192):
        q = torch.randn(1, 1, 64, size, generator=generator, dtype=torch.float64)
        k = torch.randn(1, 1, n, size, generator=generator, dtype=torch.float64)
        w = weights_of(q[:, :, :, :], k, causal=False, reweight=False) if n < 512 else None
        if w is None:  # the unit vectors of so many keys would fill memory
            seen = torch.full((1, 1, 64, 1), float(n), dtype=torch.float64)
            factor = math.log(size) * math.log(n) / math.sqrt(size)
            z = q @ k.transpose(-1, -2) * factor
            w = row_weights(z, None, seen, SoftplusConfig(reweight=False))
        entropy = -(w * torch.log(w.clamp(min=1e-300))).sum(-1)
        below.append(math.log(n) - float(entropy.mean()))
    assert np.ptp(below) < 0.06
    assert min(below) > 0.5  # it is no uniform average


def test_options_out_of_range_say_so() -> None:
    q, k, v = draw(1, 1, 1, 2, 2)
    for options, said in (
        ({"p": 0.5}, "p >= 1"),
        ({"p": -3}, "p=-3"),
        ({"offset": -1.0}, "offset >= 0"),
        ({"normalise": False}, "normalised"),
        ({"backend": "triton"}, "backend='triton' can't run here: dtype is torch.float64"),
        ({"spec": Spec(softcap=3.0)}, "soft cap"),
    ):
        with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
            softplus_attention(q, k, v, **options)
    with pytest.raises(ConfigError, match="backend"):
        softplus_attention(q.float(), k.float(), v.float(), phi="relu", backend="triton")


_COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from unspool.attention.softplus import kernel

CONSTANTS = {"HQ": 4, "GROUP": 2, "D": 64, "BM": 64, "BN": 64, "WINDOW": 0, "CAUSAL": True,
             "REWEIGHT": True, "OFFSET": True}
HALVES = {"Q", "K", "V", "Out", "DOut", "DQ", "DK", "DV"}
for function in (kernel.forward, kernel.rows, kernel.columns):
    names = function.arg_names
    kinds = {"AtQ": "*i32", "AtK": "*i32", "T": "i32", "S": "i32"}
    kinds |= dict.fromkeys(("p", "offset", "tie", "low"), "fp32") | dict.fromkeys(HALVES, "*bf16")
    signature = {n: "constexpr" if n in CONSTANTS else kinds.get(n, "*fp32") for n in names}
    known = {(names.index(n),): value for n, value in CONSTANTS.items() if n in names}
    source = ASTSource(fn=function, signature=signature, constexprs=known)
    made = compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    assert made.metadata.shared < 227 * 1024
"""


@needs_triton
@pytest.mark.slow
def test_the_kernels_compile_for_a_gpu_on_any_machine(tmp_path: Path) -> None:
    options = {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    (tmp_path / "compile_them.py").write_text(_COMPILE)  # Triton reads the source of functions
    done = subprocess.run(
        [sys.executable, str(tmp_path / "compile_them.py")],
        env={**os.environ, **options},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
