"""HyperAttention against exact attention on a GPU, one layer, by length.

Source: Han et al. (2023), "HyperAttention", section 4.2, figure 4: one layer, batch 1, 32 heads of
64 on an A100: causal forward and backward 5 times as fast as FlashAttention at 131k tokens.
Differs from the paper: the baseline is the faster of PyTorch's cuDNN and FlashAttention kernels at
each length. Inputs are random, which says nothing of accuracy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from claims import Claim, Context, Figure, Measured

LENGTHS = (8192, 16_384, 32_768, 65_536, 131_072)
HEADS, HEAD_DIM = 32, 64
PASSES = ("forward", "forward and backward")
BASELINES = ("cudnn", "flash")

CLAIM = Claim(
    system="hyper-attention",
    title="Five times as fast as exact attention at 131k tokens",
    required=(
        Figure("causal, forward and backward, at 131k", ">=", 5, unit="x"),
        Figure("causal, forward, at 131k", "report", unit="x"),
        Figure("no mask, forward and backward, at 131k", "report", unit="x", aim=50),
        Figure("no mask, forward, at 131k", "report", unit="x"),
        Figure("causal, forward and backward, at 32k", "report", unit="x"),
        Figure("shortest text that is faster, causal, forward and backward", "report"),
        Figure("milliseconds, causal, forward and backward, at 131k", "report", unit="ms"),
        Figure("milliseconds of the baseline there", "report", unit="ms"),
        Figure("peak memory at 131k over the baseline", "report", unit="x"),
    ),
    setup=(
        f"One layer, batch 1, {HEADS} heads of {HEAD_DIM}, bfloat16, random inputs; defaults "
        "(block 256, samples 256, min_seq_len 4,096); median of 5 runs by device events after a "
        "warm-up; baseline: the faster of PyTorch's cuDNN and FlashAttention kernels at each "
        "length and pass."
    ),
    budget="gpu",
    packages=("torch", "triton"),
    code=("attention/hyper",),
)


def run(ctx: Context, lengths: tuple[int, ...] = LENGTHS) -> Measured:
    """Times of every length, mask and pass."""
    found: dict[str, dict[str, Any]] = {}
    for length in lengths:
        for causal in (True, False):
            key = f"{length}-{'causal' if causal else 'full'}"
            found[key] = ctx.step(
                key, lambda length=length, causal=causal: measure(length, causal, ctx.seed)
            )
    return summarise(found, lengths)


def summarise(found: dict[str, dict[str, Any]], lengths: tuple[int, ...]) -> Measured:
    """Ratios to the faster baseline."""

    def ratio(length: int, mask: str, name: str) -> float:
        times = found[f"{length}-{mask}"][name]
        known = [times[b] for b in BASELINES if times.get(b) is not None]
        return float(min(known) / times["hyper"])

    longest = max(lengths)
    both = "forward and backward"
    faster = [n for n in lengths if ratio(n, "causal", both) > 1]
    top = found[f"{longest}-causal"]
    known = [top[both][b] for b in BASELINES if top[both].get(b) is not None]
    peers = [top["bytes"][b] for b in BASELINES if top["bytes"].get(b) is not None]
    return Measured(
        {
            "causal, forward and backward, at 131k": ratio(longest, "causal", both),
            "causal, forward, at 131k": ratio(longest, "causal", "forward"),
            "no mask, forward and backward, at 131k": ratio(longest, "full", both),
            "no mask, forward, at 131k": ratio(longest, "full", "forward"),
            "causal, forward and backward, at 32k": ratio(
                32_768 if 32_768 in lengths else longest, "causal", both
            ),
            "shortest text that is faster, causal, forward and backward": min(faster, default=None),
            "milliseconds, causal, forward and backward, at 131k": top[both]["hyper"],
            "milliseconds of the baseline there": min(known),
            "peak memory at 131k over the baseline": top["bytes"]["hyper"] / min(peers),
        },
        {"milliseconds": found},
    )


def measure(length: int, causal: bool, seed: int) -> dict[str, Any]:
    """Milliseconds by pass and contender, and peak bytes of forward and backward."""
    import torch

    generator = torch.Generator("cuda").manual_seed(seed)
    shape = (1, HEADS, length, HEAD_DIM)
    q, k, v, g = (
        torch.randn(shape, generator=generator, device="cuda", dtype=torch.bfloat16)
        for _ in range(4)
    )
    for x in (q, k, v):
        x.requires_grad_()
    times: dict[str, Any] = {name: {} for name in (*PASSES, "bytes")}
    for name in ("hyper", *BASELINES):
        attend = contender(name, causal, seed)

        def forward(attend: Any = attend) -> None:
            with torch.no_grad():
                attend(q, k, v)

        def both(attend: Any = attend) -> None:
            torch.autograd.grad(attend(q, k, v), (q, k, v), g)

        try:
            times["forward"][name] = milliseconds(forward)
            torch.cuda.reset_peak_memory_stats()
            times["forward and backward"][name] = milliseconds(both)
            times["bytes"][name] = torch.cuda.max_memory_allocated()
        except RuntimeError as error:  # a back-end that cannot run here
            if name == "hyper":
                raise
            times["reason " + name] = str(error)[:200]
    return times


def contender(name: str, causal: bool, seed: int) -> Callable[..., Any]:
    """Attention of q, k and v as one function."""
    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from unspool.attention.hyper import hyper_attention

    if name == "hyper":
        generator = torch.Generator("cuda").manual_seed(seed)

        def ours(q: Any, k: Any, v: Any) -> Any:
            return hyper_attention(q, k, v, causal=causal, generator=generator)

        return ours
    kind = SDPBackend.CUDNN_ATTENTION if name == "cudnn" else SDPBackend.FLASH_ATTENTION

    def stock(q: Any, k: Any, v: Any) -> Any:
        with sdpa_kernel(kind):
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

    return stock


def milliseconds(call: Callable[[], None], runs: int = 5) -> float:
    """Median of some runs, by device events, after one that warms up."""
    import torch

    call()
    found = []
    for _ in range(runs):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        found.append(start.elapsed_time(end))
    return float(sorted(found)[len(found) // 2])
