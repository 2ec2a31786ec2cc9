"""Hundreds of thousands of tokens through one stream: memory is flat, or grows by the formula."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.extend.conftest import VOCABULARY, build
from unspool.extension import extend

TOKENS = 500_000
pytestmark = pytest.mark.slow


def resident() -> int:
    """Bytes of this process in memory, without what the allocator keeps of freed memory."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc
        trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def slope(spec: str, tokens: int = TOKENS) -> tuple[float, int]:
    """Bytes a token by which memory grows after the first fifth, and bytes reported at the end."""
    generator = torch.Generator().manual_seed(0)
    points: list[tuple[int, int]] = []
    with extend(build("llama"), spec) as ext:
        stream = ext.stream()
        while stream.tokens < tokens:
            chunk = torch.randint(3, VOCABULARY, (20_000,), generator=generator).tolist()
            stream.feed(chunk)
            points.append((stream.tokens, resident()))
        report = stream.report()
        counted = report.attended_tokens + report.stored_tokens + report.dropped_tokens
        assert counted == report.usage.read_tokens
    late = [p for p in points if p[0] > tokens // 5]
    fit = np.polyfit([p[0] for p in late], [p[1] for p in late], 1)
    return float(fit[0]), report.bytes_device + report.bytes_host + report.bytes_disk


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.parametrize("spec", ["lm-infinite:local=256,sinks=16", "streaming-llm:window=256"])
def test_a_window_is_flat(spec: str) -> None:
    grows, held = slope(spec)
    assert held < 4 << 20
    assert abs(grows) < 8  # one float32 number in two tokens would be twice that


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_a_memory_of_everything_grows_by_the_formula() -> None:
    layers, kv_heads, head_dim, tokens = 3, 2, 8, 120_000
    per_token = layers * 2 * kv_heads * head_dim * 4
    grows, held = slope("infllm:local=96,block=64,top_k=2,init=16,exec_block=96", tokens)
    # Per block of 64 tokens one vector of all query heads as well.
    formula = per_token + layers * 4 * head_dim * 4 / 64
    assert held == pytest.approx(formula * tokens, rel=0.1)
    assert grows == pytest.approx(formula, rel=0.2)
