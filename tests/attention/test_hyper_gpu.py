"""The kernels of HyperAttention on a GPU against the dense definition in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from unspool.attention.hyper import hyper_attention
from unspool.attention.hyper.lsh import draw_directions
from unspool.attention.hyper.plan import Plan, Settings, make_plan
from unspool.attention.hyper.reference import reference_hyper
from unspool.attention.hyper.sampled import Drawn
from unspool.attention.hyper.union import Union

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def parts(queries: int, keys: int, dim: int) -> list[torch.Tensor]:
    """q of four heads, k and v of two."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 4, queries, dim), (2, 2, keys, dim), (2, 2, keys, dim))
    return [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes]


def a_plan(q: Any, k: Any, v: Any, **options: Any) -> Plan:
    generator = torch.Generator("cuda").manual_seed(1)
    directions = draw_directions(q.shape[-1], 7, generator, q.device)
    return make_plan(
        q, k, v, Settings(**options), directions, Drawn("uniform", generator), generator
    )


@pytest.mark.parametrize("dim", [64, 128])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("queries", "keys", "causal", "block", "sinks"),
    [
        (2048, 2048, True, 256, 0),
        (1999, 1999, True, 100, 4),
        (1024, 3001, True, 256, 4),
        (1500, 1500, False, 0, 3),
    ],
)
def test_kernels_on_a_gpu_equal_the_dense_definition(
    queries: int, keys: int, causal: bool, block: int, sinks: int, dtype: Any, dim: int
) -> None:
    """Within twice the error of written-out attention in the same precision, and a rounding."""
    inputs = [x.to("cuda", dtype).requires_grad_() for x in parts(queries, keys, dim)]
    plan = a_plan(*inputs, causal=causal, block=block, samples=200, min_seq_len=512, sinks=sinks)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    truth = reference_hyper(*exact, plan, dim**-0.5)
    plain = reference_hyper(*inputs, plan, dim**-0.5)
    ours = Union.apply(*inputs, plan, dim**-0.5, True)
    weights = [torch.randn_like(truth[0]), torch.randn_like(truth[1])]
    for use in ((0,), (0, 1)):
        results = []
        for pair, start in ((ours, inputs), (plain, inputs), (truth, exact)):
            total = sum((pair[i].double() * weights[i]).sum() for i in use)
            gradients = torch.autograd.grad(total, start, retain_graph=True)
            results.append([x.detach().double() for x in (*pair, *gradients)])
        for mine, peer, right in zip(*results, strict=True):
            unit = torch.finfo(dtype).eps * right.abs().mean()
            assert (mine - right).abs().mean() <= 2 * (peer - right).abs().mean() + unit
            assert torch.isfinite(mine).all()


@pytest.mark.parametrize(("lengths", "causal"), [((2048, 2048), True), ((3001, 3001), False)])
def test_both_backends_agree_on_a_gpu(lengths: tuple[int, int], causal: bool) -> None:
    """Through the public function: the same seed, the same plan, other arithmetic."""
    inputs = [x.to("cuda", torch.bfloat16) for x in parts(*lengths, 64)]

    def run(backend: str) -> torch.Tensor:
        generator = torch.Generator("cuda").manual_seed(3)
        return hyper_attention(
            *inputs, causal=causal, min_seq_len=512, generator=generator, backend=backend
        )

    torch.testing.assert_close(run("triton"), run("torch"), rtol=2e-2, atol=2e-2)


def test_the_same_seed_gives_the_same_bits_on_a_gpu() -> None:
    inputs = [x.to("cuda", torch.bfloat16) for x in parts(3000, 3000, 64)]

    def run() -> torch.Tensor:
        generator = torch.Generator("cuda").manual_seed(3)
        return hyper_attention(*inputs, causal=True, min_seq_len=512, generator=generator)

    assert torch.equal(run(), run())
