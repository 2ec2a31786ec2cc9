"""One local layer of MASFormer beside full attention: the time of a training step's attention.

Heads of SmolLM2 (9 of queries, 3 of keys, 64 channels), blocks of 512 and the one before; forward
and backward on the GPU in bfloat16 if there is one, else forward on the CPU in float32. The peer
computes the whole causal triangle with PyTorch's own attention.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.bench_attention import milliseconds
from benchmarks.registry import Timed, benchmark, peer

TESTS = ("tests/extend/test_masformer.py",)
BLOCK = 512


def _timed(attention: Callable[..., Any], tokens: int) -> Timed:
    import torch

    cuda = torch.cuda.is_available()
    device, dtype = ("cuda", torch.bfloat16) if cuda else ("cpu", torch.float32)
    draw = torch.Generator(device).manual_seed(0)
    leaves = [
        torch.randn(1, heads, tokens, 64, device=device, dtype=dtype, generator=draw)
        for heads in (9, 3, 3)
    ]

    def forward() -> object:
        with torch.no_grad():
            return attention(*leaves)

    def step() -> object:
        out = attention(*[x.requires_grad_() for x in leaves])
        return torch.autograd.grad(out, leaves, torch.ones_like(out))

    def call() -> dict[str, Any]:
        return {"value": milliseconds(step if cuda else forward)}

    return Timed(call)


@benchmark(
    "spans",
    tests=TESTS,
    against=("sdpa",),
    sweep={"tokens": (8192, 32_768)},
    unit="ms",
    fresh=True,
    runs=3,
)
def spans(tokens: int) -> Timed:
    """Milliseconds of one local layer."""
    from unspool.attention.spans import Span, span_attend

    return _timed(partial(span_attend, span=Span(BLOCK), start=0, scale=0.125), tokens)


@peer("spans", "sdpa", package="torch", missing="torch")
def full(tokens: int) -> Timed:
    """Milliseconds of the whole triangle."""
    import torch.nn.functional as F

    return _timed(partial(F.scaled_dot_product_attention, is_causal=True, enable_gqa=True), tokens)
