"""The Triton search finds the blocks of the plain one, ties included."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from unspool.attention.hip import tree_search
from unspool.attention.hip.functional import hip_attention
from unspool.attention.hip.layout import BlockLayout
from unspool.attention.hip.recall import held_mass
from unspool.errors import ConfigError

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from unspool.attention.hip.kernels import search_blocks

fixed = dict(
    D=128, BLOCK_D=128, GROUPS=4, KEPT=256, GROUPS_AT_ONCE=256, BLOCK_K=2, SAMPLES=32, STRIDE=2,
    TILE=32, STANDS=1, PRECISION="tf32",
)
kinds = {"Q": "*bf16", "K": "*bf16", "SCORES": "*fp32"}
kinds |= dict.fromkeys(("FIRST", "LAST", "NEAR", "OUT", "STARTS", "SIZES"), "*i32")
names = search_blocks.arg_names
source = ASTSource(
    fn=search_blocks,
    signature={n: "constexpr" if n in fixed else kinds.get(n, "i32") for n in names},
    constexprs={(names.index(n),): value for n, value in fixed.items()},
)
options = {"num_warps": 4, "num_stages": 5}
print(len(triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]))
"""
CASES = {
    "few": (3, 70, (1, 1), 8, 2, 4, "center", 1, 4, 2),
    "groups": (37, 200, (2, 1), 16, 2, 16, "center", 2, 8, 4),
    "one": (1, 300, (4, 2), 32, 2, 1, "first", 2, 16, 2),
    "odd": (64, 129, (1, 1), 10, 2, 8, "last", 3, 6, 0),
    "fours": (20, 400, (2, 2), 24, 4, 8, "center", 1, 0, 4),
}


def compare(device: str, case: tuple[Any, ...]) -> None:
    num_queries, num_keys, heads, k_tokens, block_k, block_q, stands, stride, window, sink = case
    generator = torch.Generator().manual_seed(1)
    q = torch.randint(-3, 4, (1, heads[0], num_queries, 8), generator=generator).float().to(device)
    k = torch.randint(-3, 4, (1, heads[1], num_keys, 8), generator=generator).float().to(device)
    layout = BlockLayout(
        k_tokens=k_tokens, block_q=block_q, block_k=block_k, window=window, sink=sink, stride=stride
    )
    frame = layout.frame(num_queries, num_keys)
    plain = tree_search(q, k, frame, representative=stands, backend="torch")
    found = tree_search(q, k, frame, representative=stands, backend="triton")
    assert torch.equal(found, plain)


@needs_triton
def test_interpreted_search_equals_the_plain_one() -> None:
    compare("cpu", CASES["few"])


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name != "few"])
def test_interpreted_search_equals_the_plain_one_on_odd_sizes(name: str) -> None:
    compare("cpu", CASES[name])


@needs_triton
@pytest.mark.slow
def test_the_kernel_compiles_for_a_hopper_gpu_on_any_machine() -> None:
    environment = {n: x for n, x in os.environ.items() if n != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMPILE], env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) > 10_000


def test_what_the_kernel_cannot_take_is_said() -> None:
    q = torch.zeros(1, 1, 4, 8, dtype=torch.float64)
    frame = BlockLayout(k_tokens=4, window=2, sink=0).frame(4, 4)
    with pytest.raises(ConfigError, match=r"float64|triton is not installed"):
        tree_search(q, q, frame, backend="triton")


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("name", list(CASES))
def test_search_on_a_gpu_equals_the_plain_one(name: str) -> None:
    compare("cuda", CASES[name])


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("num_queries", [1, 100, 3000])
def test_attention_on_a_gpu_equals_the_fetched_one(num_queries: int, dtype: torch.dtype) -> None:
    """Kernel and fetched path over one and the same mask, and a search that loses no mass."""
    generator = torch.Generator("cuda").manual_seed(0)
    q, k, v = (
        torch.randn(2, h, n, 64, generator=generator, device="cuda").to(dtype)
        for h, n in ((4, num_queries), (2, 3000), (2, 3000))
    )
    fast = hip_attention(q, k, v)
    slow = hip_attention(q, k, v, backend="gathered")
    truth = hip_attention(q.float(), k.float(), v.float(), backend="gathered")
    assert (fast.float() - truth).abs().mean() <= 2 * (slow.float() - truth).abs().mean() + 1e-4
    if num_queries > 1:
        layout = BlockLayout()
        frame = layout.frame(num_queries, 3000)
        by_kernel = held_mass(q, k, tree_search(q, k, frame, backend="triton"), frame, 0.125)
        by_loop = held_mass(q, k, tree_search(q, k, frame, backend="torch"), frame, 0.125)
        torch.testing.assert_close(by_kernel, by_loop, rtol=0.02, atol=0.01)
