"""One causal layer of re-weighted softplus attention beside softmax, by length.

On a GPU in bfloat16 with 12 heads, where a kernel computes it in two passes, else in float32 with 2
heads by the written-out reference. Peers: PyTorch's own softmax attention, and softmax written out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.bench_attention import milliseconds, peak_bytes
from benchmarks.registry import OURS, Timed, benchmark, peer

HEAD_DIM = 64


@benchmark(
    "attention-softplus",
    tests=("tests/attention/test_softplus.py",),
    against=("sdpa", "eager"),
    sweep={"tokens": (1024, 4096), "backward": (0, 1)},
    unit="ms",
    fresh=True,
    runs=3,
)
def attention_softplus(tokens: int, backward: int) -> Timed:
    """Milliseconds of one call of `softplus_attention` with its defaults."""
    return Timed(partial(_measure, OURS, tokens, backward))


def _measure(name: str, tokens: int, backward: int) -> dict[str, Any]:
    call = _call(name, tokens, backward)
    return {"value": milliseconds(call), "peak_bytes": peak_bytes(call)}


def _call(name: str, tokens: int, backward: int) -> Callable[[], object]:
    import torch

    device, heads, dtype = "cpu", 2, torch.float32
    if torch.cuda.is_available():
        device, heads, dtype = "cuda", 12, torch.bfloat16
    generator = torch.Generator(device).manual_seed(0)
    q, k, v, d_out = (
        torch.randn(1, heads, tokens, HEAD_DIM, generator=generator, device=device, dtype=dtype)
        for _ in range(4)
    )
    attend = _contender(name)
    for x in (q, k, v):
        x.requires_grad_(bool(backward))

    def call() -> object:
        if not backward:
            with torch.no_grad():
                return attend(q, k, v)
        return torch.autograd.grad(attend(q, k, v), (q, k, v), d_out)

    return call


def _contender(name: str) -> Callable[..., Any]:
    import torch
    import torch.nn.functional as F

    from unspool.attention.softplus import softplus_attention

    if name == OURS:
        return softplus_attention
    if name == "sdpa":
        return partial(F.scaled_dot_product_attention, is_causal=True)

    def eager(q: Any, k: Any, v: Any) -> Any:
        scores = q @ k.transpose(-1, -2) * HEAD_DIM**-0.5
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        return scores.masked_fill(hidden, float("-inf")).softmax(-1) @ v

    return eager


def _other(name: str, tokens: int, backward: int) -> Timed:
    return Timed(partial(_measure, name, tokens, backward))


for _name in ("sdpa", "eager"):
    peer("attention-softplus", _name, package="torch", missing="torch")(partial(_other, _name))
