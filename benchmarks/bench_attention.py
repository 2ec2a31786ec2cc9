"""Attention kernels side by side: time, TFLOP/s and peak memory of ours and of every peer.

A case is one piece of work that several contenders do on the same tensors, one after the other in
one process. Add one with `@case("name")` on a function that returns a `Case`; claims measure cases
with `measured`, and `python -m benchmarks.run attention --sweep case=NAME` appends a row.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks.registry import OURS, Timed, benchmark, peer

TESTS = ("tests/attention/test_flash.py",)
Make = Callable[[], Callable[[], object]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One piece of work and those who do it."""

    contenders: Mapping[str, Make]
    """By name, "unspool" first: prepares tensors and returns the call to time."""
    operations: float = 0
    """Floating-point operations of one call, pairs that are not visible left out; 0: not told."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Sizes worth keeping."""


CASES: dict[str, Callable[[], Case]] = {}


def case(name: str) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
    """Register a case; the function is called when it is measured."""

    def register(function: Callable[[], Case]) -> Callable[[], Case]:
        CASES[name] = function
        return function

    return register


def milliseconds(call: Callable[[], object], seconds: float = 0.3, groups: int = 5) -> float:
    """Median over groups of calls of the time of one, by the device's clock where there is one."""
    import torch

    on_gpu = torch.cuda.is_available()
    for _ in range(2):
        call()
    found: list[float] = []
    calls = 1
    for _ in range(groups + 1):
        if on_gpu:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            for _ in range(calls):
                call()
            end.record()
            torch.cuda.synchronize()
            each = start.elapsed_time(end) / calls
        else:
            began = time.perf_counter()
            for _ in range(calls):
                call()
            each = (time.perf_counter() - began) * 1000 / calls
        found.append(each)
        calls = max(1, min(300, int(seconds * 1000 / groups / max(each, 1e-3))))
    return statistics.median(found[1:])


def peak_bytes(call: Callable[[], object]) -> int | None:
    """Device memory that one call takes beyond what was held before; None without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated() - held)


def measured(
    work: Case, names: Sequence[str] | None = None, seconds: float = 0.3
) -> dict[str, dict[str, Any]]:
    """Milliseconds, TFLOP/s, peak bytes and the ratio to ours, by contender.

    A contender that cannot run has its `error` instead.
    """
    import torch

    found: dict[str, dict[str, Any]] = {}
    for name, make in work.contenders.items():
        if names is not None and name not in names:
            continue
        try:
            call = make()
            row: dict[str, Any] = {
                "ms": milliseconds(call, seconds),
                "peak_bytes": peak_bytes(call),
            }
            if work.operations:
                row["tflops"] = work.operations / row["ms"] / 1e9
            found[name] = row
        except Exception as error:  # a peer that refuses a shape is a result
            found[name] = {"error": f"{type(error).__name__}: {str(error)[:200]}"}
        finally:
            call = None  # type: ignore[assignment] # frees the tensors of this contender
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    ours = found.get(OURS, {}).get("ms")
    for row in found.values():
        if ours is not None and "ms" in row:
            row["times_ours"] = row["ms"] / ours
    return found


def dense(
    tokens: int,
    head_dim: int,
    *,
    causal: bool,
    backward: bool = False,
    batch: int = 1,
    heads: int | None = None,
    peers: Sequence[str] = ("cudnn", "torch-flash", "flex", "eager"),
) -> Case:
    """Dense or causal attention in bfloat16 on a GPU: ours in Triton beside the vendor's."""
    heads = 2048 // head_dim if heads is None else heads
    pairs = tokens * tokens / (2 if causal else 1) * heads * batch
    shape = (batch, heads, tokens, head_dim)
    names = (OURS, *peers)
    return Case(
        contenders={n: partial(_dense_call, n, shape, causal, backward) for n in names},
        operations=(10 if backward else 4) * head_dim * pairs,
        facts={
            "batch": batch,
            "heads": heads,
            "tokens": tokens,
            "head_dim": head_dim,
            "causal": causal,
            "backward": backward,
        },
    )


def _dense_call(
    name: str, shape: tuple[int, int, int, int], causal: bool, backward: bool
) -> Callable[[], object]:
    import torch

    generator = torch.Generator("cuda").manual_seed(0)
    q, k, v, d_out = (
        torch.randn(shape, generator=generator, device="cuda", dtype=torch.bfloat16)
        for _ in range(4)
    )
    attention = _attention(name, causal, shape[2])
    if not backward:
        return partial(_without_gradients, attention, q, k, v)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    out = attention(*leaves)
    return partial(torch.autograd.grad, out, leaves, d_out, retain_graph=True)


def _without_gradients(attention: Callable[..., Any], *tensors: Any) -> object:
    import torch

    with torch.no_grad():
        return attention(*tensors)


def _attention(name: str, causal: bool, tokens: int) -> Callable[..., Any]:
    """q, k, v -> output, by one contender."""
    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if name == OURS:
        from unspool.attention import Spec, attend

        return partial(attend, spec=Spec(causal=causal), backend="triton")
    if name in ("cudnn", "torch-flash"):
        kernel = SDPBackend.CUDNN_ATTENTION if name == "cudnn" else SDPBackend.FLASH_ATTENTION

        def vendor(q: Any, k: Any, v: Any) -> Any:
            with sdpa_kernel(kernel):  # refused with an error if it can't take the call
                return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

        return vendor
    if name == "flex":
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        mask = None
        if causal:
            mask = create_block_mask(lambda b, h, i, j: j <= i, None, None, tokens, tokens)
        return partial(torch.compile(flex_attention, dynamic=False), block_mask=mask)

    def eager(q: Any, k: Any, v: Any) -> Any:
        scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
        if causal:
            seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
            scores = scores.masked_fill(~seen, float("-inf"))
        return torch.softmax(scores, -1) @ v

    return eager


for _dim in (64, 128):
    for _tokens in (2048, 8192, 16_384):
        for _causal in (True, False):
            for _backward in (False, True):
                _name = f"{'causal' if _causal else 'full'}-d{_dim}-n{_tokens}"
                CASES[_name + ("-backward" if _backward else "")] = partial(
                    dense,
                    _tokens,
                    _dim,
                    causal=_causal,
                    backward=_backward,
                    batch=16_384 // _tokens,
                    # written out, 16k tokens do not fit
                    peers=("cudnn", "torch-flash", "flex", *(("eager",) if _tokens < 8192 else ())),
                )


@case("cpu-blocks-16k")
def cpu_blocks() -> Case:
    """Causal 64 x 64 blocks, a tenth of them, on the processor; the peer computes all of them."""
    import torch
    from unspool.attention.flash.patterns import sliding_window, union

    from unspool.attention import Spec, attend
    from unspool.attention.blocks import BlockMask

    tokens, head_dim, heads = 16_384, 64, 2
    blocks = union(
        sliding_window(tokens // 64, tokens // 64, width=12, causal=True),
        torch.rand(tokens // 64, tokens // 64, generator=torch.Generator().manual_seed(0)) < 0.06,
    ).tril()
    mask = BlockMask.from_dense(blocks, block_q=64, block_k=64)

    def make(spec: Spec, backend: str) -> Callable[[], object]:
        generator = torch.Generator().manual_seed(1)
        q, k, v = (torch.randn(1, heads, tokens, head_dim, generator=generator) for _ in range(3))
        return lambda: attend(q, k, v, spec=spec, backend=backend)

    return Case(
        contenders={
            OURS: lambda: make(Spec(blocks=mask), "native"),
            "sdpa": lambda: make(Spec(), "sdpa"),
        },
        operations=4 * head_dim * heads * mask.pairs(tokens, tokens),
        facts={"share": 2 * mask.pairs(tokens, tokens) / tokens / (tokens + 1), "tokens": tokens},
    )


PEERS = ("cudnn", "torch-flash", "flex", "eager", "sdpa")


@benchmark(
    "attention",
    tests=TESTS,
    against=("sdpa",),
    sweep={"case": ("cpu-blocks-16k",)},
    unit="ms",
    fresh=True,
    runs=3,
)
def attention(case: str) -> Timed:
    """Milliseconds of one call of ours; every name in `CASES` can be given."""
    return Timed(partial(_one, OURS, case))


def _one(name: str, case: str) -> dict[str, Any]:
    row = measured(CASES[case](), [name])[name]
    if "error" in row:
        raise RuntimeError(row["error"])
    return {"value": row.pop("ms"), **row}


def _other(name: str, case: str) -> Timed:
    return Timed(partial(_one, name, case))


for _peer in PEERS:
    peer("attention", _peer, package="torch", missing="torch")(partial(_other, _peer))
