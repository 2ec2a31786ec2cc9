"""The vendor kernels against written-out attention, in the layouts that caches give them."""

from __future__ import annotations

import pytest
import torch

from unspool.attention.kernel import attend
from unspool.attention.sdpa import _cuda
from unspool.attention.spec import Spec

SHAPES = ((1, 77), (64, 64), (5, 77), (257, 1025))
"""Queries and keys: a written token, a first chunk, a short one, a long one."""


def _inputs(queries: int, keys: int, device: str, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Nine query heads on three of keys, which lie in a buffer with room behind them."""
    generator = torch.Generator().manual_seed(queries)
    q = torch.randn(1, 9, queries, 64, generator=generator).to(device, dtype)
    k, v = torch.full((2, 1, 3, keys + 300, 64), float("nan"), device=device, dtype=dtype)
    k[:, :, :keys] = torch.randn(1, 3, keys, 64, generator=generator).to(device, dtype)
    v[:, :, :keys] = torch.randn(1, 3, keys, 64, generator=generator).to(device, dtype)
    return q, k[:, :, :keys], v[:, :, :keys]


def _written_out(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """softmax(q k^T / 8) v of causal attention in float64."""
    q, k, v = (x.double().cpu() for x in (q, k, v))
    k, v = (torch.stack([x[:, head // 3] for head in range(9)], dim=1) for x in (k, v))
    scores = torch.einsum("bhtd,bhsd->bhts", q, k) / 8
    first = k.shape[2] - q.shape[2]
    for row in range(q.shape[2]):
        scores[:, :, row, first + row + 1 :] = float("-inf")
    return torch.einsum("bhts,bhsd->bhtd", torch.softmax(scores, dim=-1), v)


@pytest.mark.parametrize(("queries", "keys"), SHAPES)
@pytest.mark.parametrize("with_lse", [False, True])
def test_attention_over_a_buffer_with_room(queries: int, keys: int, with_lse: bool) -> None:
    q, k, v = _inputs(queries, keys, "cpu", torch.float32)
    found = (
        attend(q, k, v, spec=Spec(causal=True), return_lse=True)[0]
        if with_lse
        else attend(q, k, v, spec=Spec(causal=True))
    )
    torch.testing.assert_close(found.double(), _written_out(q, k, v), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("queries", "keys"), [*SHAPES, (1, 32_768), (2048, 4096)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_lse", [False, True])
def test_attention_on_a_gpu(queries: int, keys: int, dtype: torch.dtype, with_lse: bool) -> None:
    q, k, v = _inputs(queries, keys, "cuda", dtype)
    found = (
        attend(q, k, v, spec=Spec(causal=True), return_lse=True)[0]
        if with_lse
        else attend(q, k, v, spec=Spec(causal=True))
    )
    near = 1e-4 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found.double().cpu(), _written_out(q, k, v), rtol=near, atol=near)


def test_the_cuda_call_folds_heads_and_pads_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bookkeeping around the CUDA kernel, with a kernel of this test in its place."""

    def kernel(q, k, v, bias, need, dropout, causal, scale):  # type: ignore[no-untyped-def] # PyTorch's signature
        assert q.shape[-1] * q.itemsize % 16 == 0
        assert q.shape[1] == k.shape[1]
        scores = q.double() @ k.double().transpose(-1, -2) * scale
        if bias is not None:
            scores = scores + bias
        if causal:
            seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
            scores = scores.masked_fill(~seen, float("-inf"))
        lse = torch.logsumexp(scores, -1).float()
        rows = -(-lse.shape[2] // 32) * 32
        padded = torch.full((*lse.shape[:2], rows), float("inf"))
        padded[:, :, : lse.shape[2]] = lse
        return (torch.softmax(scores, -1) @ v.double()).to(q.dtype), padded, None, None

    monkeypatch.setattr(torch.ops.aten, "_scaled_dot_product_efficient_attention", kernel)
    for queries, keys in SHAPES[:3]:
        q, k, v = _inputs(queries, keys, "cpu", torch.float32)
        q, k = q[..., :39], k[..., :39]  # as wide as keys that ThinK has thinned
        spec = Spec(causal=True)
        expected, expected_lse = attend(
            q, k, v, spec=spec, scale=0.2, return_lse=True, backend="reference"
        )
        square = queries == keys
        seen = None
        if not square and queries > 1:
            at = torch.arange(keys - queries, keys)
            seen = (torch.arange(keys)[None] <= at[:, None])[None, None]
        out, lse = _cuda(q, k, v, seen, square, 0.2)
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(lse, expected_lse, rtol=1e-4, atol=1e-5)
