"""One causal layer by hashing and sampling beside exact attention, by length.

On a GPU in bfloat16 with 32 heads beside PyTorch's cuDNN and FlashAttention kernels, else in
float32 with 4 heads beside its kernel for processors. Inputs are random, which says nothing of
accuracy.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.bench_attention import milliseconds, peak_bytes
from benchmarks.registry import OURS, Timed, benchmark, peer

HEAD_DIM = 64


@benchmark(
    "attention-hyper",
    tests=("tests/attention/test_hyper.py",),
    against=("sdpa",),
    sweep={"tokens": (8192, 16_384, 32_768, 65_536, 131_072), "backward": (0, 1)},
    unit="ms",
    fresh=True,
    runs=3,
)
def attention_hyper(tokens: int, backward: int) -> Timed:
    """Milliseconds of one call of `hyper_attention` with its defaults."""
    return Timed(partial(_measure, OURS, tokens, backward))


def _measure(name: str, tokens: int, backward: int) -> dict[str, Any]:
    call = _call(name, tokens, backward)
    return {"value": milliseconds(call), "peak_bytes": peak_bytes(call)}


def _call(name: str, tokens: int, backward: int) -> Callable[[], object]:
    import torch

    device, heads, dtype = "cpu", 4, torch.float32
    if torch.cuda.is_available():
        device, heads, dtype = "cuda", 32, torch.bfloat16
    generator = torch.Generator(device).manual_seed(0)
    q, k, v, d_out = (
        torch.randn(1, heads, tokens, HEAD_DIM, generator=generator, device=device, dtype=dtype)
        for _ in range(4)
    )
    attend = _contender(name, generator)

    def call() -> object:
        if not backward:
            with torch.no_grad():
                return attend(q, k, v)
        return torch.autograd.grad(attend(q, k, v), (q, k, v), d_out)

    for x in (q, k, v):
        x.requires_grad_(bool(backward))
    return call


def _contender(name: str, generator: Any) -> Callable[..., Any]:
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from unspool.attention.hyper import hyper_attention

    if name == OURS:
        return partial(hyper_attention, causal=True, generator=generator)
    kinds = {"cudnn": SDPBackend.CUDNN_ATTENTION, "torch-flash": SDPBackend.FLASH_ATTENTION}
    if name not in kinds:
        return partial(F.scaled_dot_product_attention, is_causal=True)

    def stock(*tensors: Any) -> Any:
        with sdpa_kernel(kinds[name]):
            return F.scaled_dot_product_attention(*tensors, is_causal=True)

    return stock


def _other(name: str, tokens: int, backward: int) -> Timed:
    return Timed(partial(_measure, name, tokens, backward))


for _name in ("sdpa", "cudnn", "torch-flash"):
    peer("attention-hyper", _name, package="torch", missing="torch")(partial(_other, _name))
