"""The kernels on a GPU: every rule and head size, in half precision as near as PyTorch's own."""

from __future__ import annotations

import pytest
import torch

from benchmarks.tune_attention import candidates
from tests.attention.flash_cases import CASES, Case, computed, errors, expected
from unspool.attention.blocks import BlockMask
from unspool.attention.flash import configs
from unspool.attention.kernel import attend
from unspool.attention.sdpa import cudnn_attend
from unspool.attention.spec import Spec, visible

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
TIMES = 2.0
"""Error allowed, in errors of PyTorch's eager attention in the same dtype."""


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_every_rule_in_float32(case: Case) -> None:
    spec, seen = case.spec()
    wanted = expected(case, spec, seen)
    for part, error in errors(
        computed(case, spec, "triton", "cuda", torch.float32), wanted
    ).items():
        assert error < 2e-5, part


def _eager(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor | None, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    groups = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
    scores = (q @ k.transpose(-1, -2)) * scale
    if seen is not None:
        scores = scores.masked_fill(~seen, float("-inf"))
    p = torch.softmax(scores, -1)
    if seen is not None:
        p = p.masked_fill(~seen.any(-1, keepdim=True), 0.0)
    return p.to(v.dtype) @ v, torch.logsumexp(scores.float(), -1)


def _run(dtype, arrays, spec, seen, scale, which):  # type: ignore[no-untyped-def] # one of three ways
    q, k, v = (x.detach().to(dtype).requires_grad_() for x in arrays[:3])
    if which == "triton":
        out, lse = attend(q, k, v, spec=spec, scale=scale, return_lse=True, backend="triton")
    else:
        out, lse = _eager(q, k, v, seen, scale)
    d_lse = arrays[4].masked_fill(lse.isneginf(), 0.0)
    loss = (out.double() * arrays[3]).sum() + (lse.masked_fill(lse.isneginf(), 0.0) * d_lse).sum()
    loss.backward()
    found = (out, lse.masked_fill(lse.isneginf(), 0.0), q.grad, k.grad, v.grad)
    return [x.detach().double() for x in found]


def _near(spec: Spec, dtype: torch.dtype, sizes: tuple[int, ...], layout: str = "bhtd") -> None:
    batch, heads, kv_heads, queries, keys, dim = sizes
    generator = torch.Generator("cuda").manual_seed(queries + dim)

    def draw(*shape: int) -> torch.Tensor:
        x = torch.randn(*shape, generator=generator, device="cuda", dtype=torch.float64)
        return x.to(dtype).double()  # all three start from the same numbers

    arrays = [
        draw(batch, heads, queries, dim), draw(batch, kv_heads, keys, dim),
        draw(batch, kv_heads, keys, dim), draw(batch, heads, queries, dim),
        draw(batch, heads, queries),
    ]  # fmt: skip
    if layout == "bthd":  # as a model's projections leave them
        arrays[:3] = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in arrays[:3]]
    seen = visible(spec, queries, keys, torch.device("cuda"), None, heads)
    scale = dim**-0.5
    ours, eager = (_run(dtype, arrays, spec, seen, scale, way) for way in ("triton", "eager"))
    truth = _run(torch.float64, arrays, spec, seen, scale, "eager")
    for name, a, b, c in zip(("out", "lse", "dq", "dk", "dv"), ours, eager, truth, strict=True):
        assert torch.isfinite(a).all(), name
        assert float((a - c).abs().max()) <= TIMES * float((b - c).abs().max()) + 1e-4, name


@pytest.mark.parametrize("dim", [32, 40, 64, 96, 128, 256])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_head_size_in_half_precision(dim: int, dtype: torch.dtype) -> None:
    _near(Spec(), dtype, (2, 4, 2, 333, 333, dim))
    _near(Spec(causal=False), dtype, (1, 2, 2, 257, 400, dim))


@pytest.mark.parametrize("queries", [1, 63, 64, 65, 1000])
@pytest.mark.parametrize("more", [0, 190])
def test_every_length_in_bfloat16(queries: int, more: int) -> None:
    for dim in (64, 128):
        _near(Spec(), torch.bfloat16, (1, 4, 2, queries, queries + more, dim))


@pytest.mark.parametrize("dim", [64, 128])
@pytest.mark.parametrize(
    "spec",
    [
        Spec(window=100),
        Spec(causal=False, window=100, right=50),
        Spec(window=100, sinks=5),
        Spec(beyond=100),
        Spec.packed(torch.tensor([0, 100, 130, 400, 480]), num_queries=500, max_seqlen=270),
        Spec(blocks=BlockMask.from_dense(torch.rand(4, 8, 8) < 0.4, block_q=64, block_k=64)),
        Spec(blocks=BlockMask.from_dense(torch.rand(2, 4, 4) < 0.5, block_q=128, block_k=128)),
        Spec(blocks=BlockMask.from_dense(torch.rand(4, 8, 250) < 0.2, block_q=64, block_k=2)),
        Spec(causal=False, blocks=BlockMask.kept(torch.randperm(500)[:77][None, None])),
    ],
    ids=["window", "two sides", "sinks", "beyond", "packed", "64x64", "128x128", "64x2", "kept"],
)
def test_every_pattern_in_bfloat16(spec: Spec, dim: int) -> None:
    _near(spec, torch.bfloat16, (1, 4, 2, 500, 500, dim))


@pytest.mark.parametrize("dim", [64, 128])
def test_a_model_layout(dim: int) -> None:
    _near(Spec(), torch.bfloat16, (2, 4, 2, 200, 200, dim), layout="bthd")


@pytest.mark.parametrize("keys", [1, 100, 5000, 40_000])
@pytest.mark.parametrize("queries", [1, 4])
def test_a_few_queries_split_the_keys(queries: int, keys: int) -> None:
    if keys < queries:
        pytest.skip("fewer keys than queries")
    generator = torch.Generator("cuda").manual_seed(keys)
    q, k, v = (
        torch.randn(2, h, t, 128, generator=generator, device="cuda").bfloat16()
        for h, t in ((8, queries), (2, keys), (2, keys))
    )
    kept = torch.randperm(keys)[: max(1, keys // 3)].sort().values
    for spec in (Spec(), Spec(blocks=BlockMask.kept(kept[None, None]))):
        out, lse = attend(q, k, v, spec=spec, return_lse=True, backend="triton")
        wanted = attend(
            q.double(), k.double(), v.double(), spec=spec, return_lse=True, backend="reference"
        )
        torch.testing.assert_close(out.double(), wanted[0], rtol=2e-2, atol=2e-2)
        torch.testing.assert_close(lse.double(), wanted[1], rtol=1e-3, atol=1e-3)


def test_memory_grows_with_the_length_and_not_its_square() -> None:
    peaks = []
    for tokens in (8192, 131_072):
        q, k, v = (
            torch.randn(1, 2, tokens, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
            for _ in range(3)
        )
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        attend(q, k, v, spec=Spec(), return_lse=True, backend="triton")[0].sum().backward()
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] < 18 * peaks[0]


@pytest.mark.parametrize(
    ("kernel", "dim", "causal", "row"),
    [c for c in candidates() if any(c[3][4:])],  # scores ahead or rows backwards
)
def test_every_candidate(
    monkeypatch: pytest.MonkeyPatch, kernel: str, dim: int, causal: bool, row: tuple[int, ...]
) -> None:
    table = configs.DENSE_FORWARD if kernel == "forward" else configs.DENSE_DKDV
    for first in (configs.HOPPER_FORWARD, configs.HOPPER_DQ, configs.HOPPER_DKDV):
        monkeypatch.delitem(first, dim, raising=False)
    monkeypatch.setitem(table, (dim, causal), configs.Tiles(*row))
    for queries, keys in ((500, 500), (130, 700), (64, 64)):
        _near(Spec(causal=causal), torch.bfloat16, (1, 4, 2, queries, keys, dim))


@pytest.mark.parametrize("dim", [64, 128])
@pytest.mark.parametrize("causal", [True, False])
def test_kernels_in_roles_beside_those_they_stand_for(
    monkeypatch: pytest.MonkeyPatch, dim: int, causal: bool
) -> None:
    """Many tiles a program, and heads that share keys."""
    q, k, v = (
        torch.randn(2, h, 3000, dim, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for h in (12, 4, 4)
    )
    found = []
    for roles in (True, False):
        if not roles:
            for table in (configs.HOPPER_FORWARD, configs.HOPPER_DQ, configs.HOPPER_DKDV):
                monkeypatch.delitem(table, dim, raising=False)
        out, lse = attend(q, k, v, spec=Spec(causal=causal), return_lse=True, backend="triton")
        gradients = torch.autograd.grad((out.float() * 0.5).sum() + lse.sum(), (q, k, v))
        found.append((out, lse, *gradients))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a.float(), b.float(), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("layout", ["contiguous", "model", "buffer with room"])
@pytest.mark.parametrize("sizes", [(8, 8, 512, 512), (8, 2, 700, 700), (4, 4, 300, 1000)])
def test_the_vendor_kernel(sizes: tuple[int, int, int, int], layout: str) -> None:
    heads, kv_heads, queries, keys = sizes
    causal = queries == keys
    q, k, v = (
        torch.randn(2, h, t, 128, device="cuda", dtype=torch.bfloat16)
        for h, t in ((heads, queries), (kv_heads, keys), (kv_heads, keys))
    )
    if layout == "model":
        q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v))
    elif layout == "buffer with room":
        k, v = (torch.cat([x, torch.full_like(x, float("nan"))], 2)[:, :, :keys] for x in (k, v))
    out, lse = cudnn_attend(q, k, v, causal=causal, scale=0.1)
    wanted = attend(
        q.double(), k.double(), v.double(), spec=Spec(causal=causal), scale=0.1, return_lse=True,
        backend="reference",
    )  # fmt: skip
    torch.testing.assert_close(out.double(), wanted[0], rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(lse.double(), wanted[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sizes", [(1, 5000), (7, 77), (300, 900), (1500, 1500), (1100, 2000)])
@pytest.mark.parametrize("heads", [(9, 3, 64), (8, 2, 128)])
@pytest.mark.parametrize("with_lse", [False, True])
def test_the_fastest_back_end_over_a_buffer_with_room(
    sizes: tuple[int, int], heads: tuple[int, int, int], with_lse: bool
) -> None:
    """Whatever is chosen, as models call it: new queries over a part of a longer buffer."""
    (queries, keys), (num_heads, num_kv_heads, dim) = sizes, heads
    q = torch.randn(1, num_heads, queries, dim, device="cuda", dtype=torch.bfloat16)
    k, v = torch.full((2, 1, num_kv_heads, keys + 300, dim), float("nan"), device="cuda",
                      dtype=torch.bfloat16)  # fmt: skip
    k, v = k[:, :, :keys].normal_(), v[:, :, :keys].normal_()
    for spec in (Spec(), Spec(causal=False), Spec(window=200, sinks=4)):
        found = attend(q, k, v, spec=spec, return_lse=with_lse)
        wanted = attend(
            q.double(), k.double(), v.double(), spec=spec, return_lse=True, backend="reference"
        )
        out = found[0] if with_lse else found
        torch.testing.assert_close(out.double(), wanted[0], rtol=2e-2, atol=2e-2)
        if with_lse:
            torch.testing.assert_close(found[1].double(), wanted[1], rtol=1e-3, atol=1e-3)


def test_the_same_bits_every_time() -> None:
    q, k, v = (
        torch.randn(1, 8, 700, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for _ in range(3)
    )
    for spec in (Spec(deterministic=True), Spec(deterministic=True, window=50, sinks=3)):
        runs = []
        for _ in range(2):
            out, lse = attend(q, k, v, spec=spec, return_lse=True, backend="triton")
            runs.append(torch.autograd.grad(out.float().sum() + lse.sum(), (q, k, v)))
        assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
