"""Sparse attention on the processor: how near to the work it saves is the time it saves?

Each call times our kernel on the listed keys and PyTorch's on all of them, in turns, so that a slow
moment of the machine falls on both. The figure is (dense time * share of visible pairs) / our time:
1 means that a tenth of the pairs takes a tenth of the time.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from benchmarks.registry import Timed, benchmark

HEAD_DIM = 64


TESTS = ("tests/attention/test_native_attention.py", "tests/native/test_native_attend.py")
SIZES = {"tokens": (16_384, 32_768), "dtype": ("float32", "bfloat16")}


@benchmark(
    "attention-cpu",
    tests=TESTS,
    sweep={"pattern": ("blocks", "pairs", "kept"), **SIZES},
    unit="of ideal",
    fresh=True,
    runs=2,
)
def attention_cpu(pattern: str, tokens: int, dtype: str) -> Timed:
    """Forward: 64 x 64 blocks, 64 x 2 pairs, or one query's kept keys."""
    return _of_ideal(pattern, tokens, dtype, backward=False)


@benchmark(
    "attention-cpu-gradients",
    tests=TESTS,
    sweep={"pattern": ("blocks", "pairs"), **SIZES},
    unit="of ideal",
    fresh=True,
    runs=2,
)
def attention_cpu_gradients(pattern: str, tokens: int, dtype: str) -> Timed:
    """Forward and backward."""
    return _of_ideal(pattern, tokens, dtype, backward=True)


def _of_ideal(pattern: str, tokens: int, dtype: str, *, backward: bool) -> Timed:
    """Share of the ideal saving that is reached."""
    import torch

    from unspool.attention import Spec, attend

    generator = torch.Generator().manual_seed(0)
    # A single query takes little, so it has more heads and turns.
    heads, turns = (8, 100) if pattern == "kept" else (2, 3)
    mask, queries, share = _pattern(pattern, tokens, generator)
    q, k, v = (
        torch.randn(1, heads, n, HEAD_DIM, generator=generator)
        .to(getattr(torch, dtype))
        .requires_grad_(backward)
        for n in (queries, tokens, tokens)
    )
    d_out = torch.randn(1, heads, queries, HEAD_DIM, generator=generator).to(q.dtype)
    listed, everything = Spec(blocks=mask), Spec()

    def timed(spec: Spec, backend: str) -> float:
        began = time.perf_counter()
        out = attend(q, k, v, spec=spec, backend=backend)
        if backward:
            torch.autograd.grad(out, [q, k, v], d_out)
        return time.perf_counter() - began

    def call() -> dict[str, Any]:
        times: dict[str, list[float]] = {"native": [], "sdpa": []}
        for _ in range(1 + turns):
            for backend, spec in (("native", listed), ("sdpa", everything)):
                times[backend].append(timed(spec, backend))
        ours, dense = (statistics.median(x[1:]) for x in times.values())  # the first warms up
        return {
            "value": dense * share / ours,
            "ms": ours * 1000,
            "sdpa_ms": dense * 1000,
            "share": share,
            "threads": torch.get_num_threads(),
        }

    return Timed(call)


def _pattern(pattern: str, tokens: int, generator: Any) -> tuple[Any, int, float]:
    """The mask, the number of queries, and the share of the causal pairs that it leaves."""
    import torch

    from unspool.attention.blocks import BlockMask

    if pattern == "kept":  # a written token meets 2,048 scattered keys of its head
        kept = torch.rand(1, 8, tokens, generator=generator).argsort(-1)[..., :2048]
        return BlockMask.kept(kept), 1, 2048 / tokens
    rows = tokens // 64
    if pattern == "blocks":  # a tenth of the blocks, and the diagonal
        met = (torch.rand(rows, rows, generator=generator) < 0.1) | torch.eye(rows).bool()
        mask = BlockMask.from_dense(met.tril(), block_q=64, block_k=64)
    else:  # 512 scattered keys in pairs, and the last 256
        met = _scattered(rows, tokens // 2, 256, generator)
        first = torch.arange(rows)[:, None] * 32
        pair = torch.arange(tokens // 2)
        met |= (pair >= first - 96) & (pair < first + 32)
        mask = BlockMask.from_dense(met & (pair < first + 32), block_q=64, block_k=2)
    width = mask.block_k
    listed = int(mask.counts.sum()) * width * 64
    hidden = rows * 64 * 63 // 2  # above the diagonal, within the blocks on it
    return mask, tokens, (listed - hidden) / (tokens * (tokens + 1) / 2)


def _scattered(rows: int, columns: int, count: int, generator: Any) -> Any:
    """About `count` random columns a row among those before its end."""
    import torch

    end = (torch.arange(rows)[:, None] + 1) * (columns // rows)
    drawn = (torch.rand(rows, count, generator=generator) * end).long()
    return torch.zeros(rows, columns, dtype=torch.bool).scatter_(1, drawn, True)
