"""The Triton search finds the blocks of the plain one, ties included."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from unspool.attention.hip import kernel, tree_search
from unspool.attention.hip.functional import hip_attention
from unspool.attention.hip.layout import BlockLayout
from unspool.attention.hip.recall import held_mass
from unspool.attention.hip.search import TreeSearch
from unspool.attention.hip.sparse import Blocks
from unspool.attention.hip.union import block_mask
from unspool.caches.chosen import Choice
from unspool.errors import ConfigError

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from unspool.attention.hip import kernels

SEARCH = dict(
    D=128, BLOCK_D=128, GROUPS=4, KEPT=256, GROUPS_AT_ONCE=256, BLOCK_K=2, SAMPLES=32, STRIDE=2,
    TILE=32, STANDS=1, PRECISION="tf32",
)
MEET = dict(
    D=128, DV=128, BLOCK_D=128, BLOCK_DV=128, TILE=64, FAR_GROUPS=1, GROUPS=4, MASKED=True,
    SOFTCAP=True,
)
LISTS = dict(BLOCK_KEPT=256, BLOCK_WIDTH=512)
KINDS = {"SCORES": "*fp32", "SEEN": "*i1", "scale": "fp32", "softcap": "fp32"}
WHOLE = "FIRST LAST NEAR END STARTS SIZES CHOSEN COUNTS".split()


def compiled(program, fixed, **kinds):
    names = program.arg_names
    kinds = dict.fromkeys(WHOLE, "*i32") | KINDS | kinds
    source = ASTSource(
        fn=program,
        signature={n: "constexpr" if n in fixed else kinds.get(n, "i32") for n in names},
        constexprs={(names.index(n),): value for n, value in fixed.items()},
    )
    options = {"num_warps": 4, "num_stages": 5}
    ptx = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]
    assert len(ptx) > 5000


half = dict.fromkeys(("Q", "K", "V", "FAR_K", "FAR_V"), "*bf16")
compiled(kernels.search_blocks, SEARCH, **half, OUT="*i32")
compiled(kernels.join_lists, LISTS, OUT="*i32")
compiled(kernels.meet_chosen, MEET, **half, OUT="*bf16")
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
def test_the_kernels_compile_for_a_hopper_gpu_on_any_machine() -> None:
    environment = {n: x for n, x in os.environ.items() if n != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMPILE], env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def compare_lists(device: str) -> None:
    q, k = torch.randn(1, 2, 40, 8), torch.randn(1, 1, 130, 8)
    for sizes in ({"k_tokens": 8, "window": 12, "sink": 4}, {"k_tokens": 10, "sink": 0}):
        frame = BlockLayout(**{"block_q": 16, "window": 4, **sizes}).frame(40, 130)
        chosen = tree_search(q, k, frame, backend="torch")
        plain = block_mask(chosen, frame)
        lists, counts = kernel.triton_lists(chosen.to(device), frame)
        assert torch.equal(lists.cpu(), plain.indices)
        assert torch.equal(counts.cpu(), plain.counts)


def compare_meeting(device: str) -> None:
    """A written token over chosen and newest keys, unused places and capped scores included."""
    for heads, far, near, masked, cap in ((4, 70, 33, False, None), (2, 21, 5, True, 3.0)):
        q, v = torch.randn(2, 4, 1, 24), torch.randn(2, 2, 40, 12)[:, :, :near]
        k = torch.randn(2, 2, near + 9, 24)[:, :, 9:]
        far_k, far_v = torch.randn(2, heads, far, 24), torch.randn(2, heads, far, 12)
        seen = torch.rand(2, heads, far) > 0.3 if masked else None
        choice = Choice(far_k, far_v, seen, (), 0, 0)
        blocks = Blocks(BlockLayout(), TreeSearch(), softcap=cap)
        expected = blocks._meet(q, k, v, choice, 0.2)
        there = [None if x is None else x.to(device) for x in (q, far_k, far_v, seen, k, v)]
        out = kernel.triton_meet(*there, 0.2, cap)
        torch.testing.assert_close(out.cpu(), expected, rtol=0, atol=1e-5)


@needs_triton
def test_interpreted_lists_and_written_tokens_equal_the_plain_ones() -> None:
    compare_lists("cpu")
    compare_meeting("cpu")


@needs_gpu
@pytest.mark.gpu
def test_lists_and_written_tokens_on_a_gpu_equal_the_plain_ones() -> None:
    compare_lists("cuda")
    compare_meeting("cuda")


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
