"""One causal layer by HiP beside exact attention, reading and writing, by length.

On a GPU in bfloat16 with 32 heads over 8 beside PyTorch's cuDNN and FlashAttention kernels, else in
float32 with 9 heads over 3 beside its kernel for processors. Inputs are random, which says nothing
of accuracy; what a search costs does not depend on what it finds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.bench_attention import milliseconds, peak_bytes
from benchmarks.registry import OURS, Timed, benchmark, peer

WRITTEN = 16
"""Tokens of a timed run of writing: two searches."""


@benchmark(
    "attention-hip",
    tests=("tests/attention/test_hip.py",),
    against=("sdpa",),
    sweep={"tokens": (8192, 16_384, 32_768, 65_536, 131_072), "written": (0, 1)},
    unit="ms",
    fresh=True,
    runs=3,
)
def attention_hip(tokens: int, written: int) -> Timed:
    """Milliseconds to read a text, or of a token written behind it, with HiP's defaults."""
    return Timed(partial(_measure, OURS, tokens, written))


def _measure(name: str, tokens: int, written: int) -> dict[str, Any]:
    import torch

    with torch.inference_mode():
        call, count = _call(name, tokens, written)
        return {"value": milliseconds(call) / count, "peak_bytes": peak_bytes(call)}


def _call(name: str, tokens: int, written: int) -> tuple[Callable[[], object], int]:
    """What to time, and how many tokens' worth of it is asked for (1: the whole text)."""
    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from unspool.attention.hip import hip_attention

    device, heads, head_dim, dtype = "cpu", (9, 3), 64, torch.float32
    if torch.cuda.is_available():
        device, heads, head_dim, dtype = "cuda", (32, 8), 128, torch.bfloat16
    generator = torch.Generator(device).manual_seed(0)

    def draw(number: int, length: int) -> Any:
        shape = (1, number, length, head_dim)
        return torch.randn(shape, generator=generator, device=device, dtype=dtype)

    q = draw(heads[0], 1 if written else tokens)
    k, v = (draw(heads[1], tokens + WRITTEN * written) for _ in range(2))
    if name == OURS and not written:
        return partial(hip_attention, q, k, v), 1
    if name == OURS:

        def write() -> object:
            last = None
            for end in range(tokens + 1, tokens + WRITTEN + 1):
                from_here = (q, k[:, :, :end], v[:, :, :end])
                last = hip_attention(*from_here, last=last, return_mask=True).choice
            return last

        return write, WRITTEN
    kinds = {"cudnn": SDPBackend.CUDNN_ATTENTION, "torch-flash": SDPBackend.FLASH_ATTENTION}

    def stock() -> object:
        options = {"is_causal": not written, "enable_gqa": True}
        if name not in kinds:
            return F.scaled_dot_product_attention(q, k, v, **options)
        with sdpa_kernel(kinds[name]):
            return F.scaled_dot_product_attention(q, k, v, **options)

    return stock, 1


def _other(name: str, tokens: int, written: int) -> Timed:
    return Timed(partial(_measure, name, tokens, written))


for _name in ("sdpa", "cudnn", "torch-flash"):
    peer("attention-hip", _name, package="torch", missing="torch")(partial(_other, _name))
