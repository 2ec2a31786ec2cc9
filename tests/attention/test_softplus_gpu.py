"""The softplus kernels on a GPU against float64, at most twice as far off as plain PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from unspool.attention.softplus import softplus_attention
from unspool.attention.spec import Spec

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("queries", "keys"), [(1, 300), (257, 257), (100, 777)])
@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("reweight", [True, False])
def test_forward_and_backward(
    dtype: torch.dtype, queries: int, keys: int, size: int, reweight: bool
) -> None:
    generator = torch.Generator().manual_seed(keys)
    shapes = ((2, 4, queries, size), (2, 2, keys, size), (2, 2, keys, size))
    given = [torch.randn(s, generator=generator).to("cuda", dtype) for s in shapes]
    grads = torch.randn(shapes[0], generator=generator).to("cuda", dtype)
    at_k = torch.arange(keys, device="cuda")[None].repeat(2, 1)
    at_k[0] = (at_k[0] - 40).clamp(min=-1)
    spec = Spec(q_positions=at_k[:, keys - queries :], k_positions=at_k)
    found = []
    for kind, backend in ((torch.float64, "reference"), (dtype, "reference"), (dtype, "triton")):
        inputs = [x.detach().clone().to(kind).requires_grad_() for x in given]
        options: dict[str, Any] = {"p": 5, "reweight": reweight, "spec": spec}
        out = softplus_attention(*inputs, backend=backend, **options)
        out.backward(grads.to(kind))
        found.append([out.detach(), *(x.grad for x in inputs)])
    for right, plain, got in zip(*found, strict=True):
        unit = torch.finfo(dtype).eps * float(right.abs().max())
        bound = 2 * float((plain.double() - right).abs().max()) + 4 * unit
        assert float((got.double() - right).abs().max()) <= bound
        assert torch.isfinite(got).all()


def test_long_rows_take_no_square_of_memory() -> None:
    q, k, v = (
        torch.randn(1, 2, 32_768, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for _ in range(3)
    )
    torch.cuda.reset_peak_memory_stats()
    softplus_attention(q, k, v, backend="triton").sum().backward()
    assert torch.cuda.max_memory_allocated() < 1 << 30  # the weights alone would be 4 GiB
