"""HiP on a GPU: one layer of a large model read and written, beside the vendor's dense kernels.

Source: Lee et al. (2024), "HiP Attention", abstract and section 4.4.
Differs from the paper: one attention layer alone, so that nothing but attention is compared; random
keys, since what a search costs does not depend on what it finds; dense is the faster of cuDNN,
FlashAttention and the split decode kernel of this project.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from claims import Claim, Context, Figure, Measured
from unspool.attention.hip import kernel

HEADS, KV_HEADS, HEAD_DIM = 32, 8, 128
LENGTHS = tuple(1 << power for power in range(13, 19))
BATCH = 32
CACHE_TOKENS = 32 << 17
"""Tokens of all sequences that a decode point keeps at most."""
STEPS = 24

CLAIM = Claim(
    system="hip-attention",
    title="Reading grows nearly linearly, and a token is written in a tenth of the time at 128k",
    required=(
        Figure("reading 128k over the fastest dense kernel", ">", 5, "x"),
        Figure("writing at 128k, batch 32, over the fastest dense kernel", ">", 10, "x"),
        Figure("log-log slope of the time to read, 16k to 256k", "<", 1.2),
        Figure("writing at 128k, batch 1, over the fastest dense kernel", "report", "x"),
        Figure("milliseconds to read 128k", "report", unit="ms"),
        Figure("milliseconds to read 128k, dense", "report", unit="ms"),
        Figure("milliseconds of it for the search", "report", unit="ms"),
        Figure("milliseconds of it for the attention", "report", unit="ms"),
        Figure("microseconds a written token at 128k, batch 32", "report", unit="us"),
        Figure("microseconds a written token at 128k, batch 32, dense", "report", unit="us"),
        Figure("length from which reading is faster", "report"),
    ),
    setup=(
        "One layer, 32 query heads over 8 key-value heads of 128 channels, bfloat16; 512 kept "
        "keys, window 256, 16 first keys, blocks of 64 queries and 2 keys; the search is in the "
        "time, every 8 written tokens, and its tile sizes are the fastest of six. Median of "
        "repeated calls."
    ),
    budget="gpu",
    packages=("torch", "triton"),
    code=("attention",),
)


def run(ctx: Context, lengths: tuple[int, ...] = LENGTHS, batch: int = BATCH) -> Measured:
    """Times of reading and writing by length."""
    use_tiles(ctx.step("tiles", lambda: try_tiles(min(lengths[-1], 1 << 16), ctx.seed)))
    read = {
        n: ctx.step(f"read-{n}", lambda n=n: reading(n, ctx.seed), inputs={"n": n}) for n in lengths
    }
    write: dict[int, dict[int, Any]] = {}
    for rows in (batch, 1):
        write[rows] = {
            n: ctx.step(
                f"write-{rows}-{n}",
                lambda n=n, rows=rows: writing(n, max(1, min(rows, CACHE_TOKENS // n)), ctx.seed),
                inputs={"n": n, "rows": rows},
            )
            for n in lengths[-3:]
        }
    middle = 1 << 17 if 1 << 17 in lengths else lengths[-1]
    long = [n for n in lengths if n >= 1 << 14] or list(lengths)
    slope = np.polyfit(np.log(long), np.log([read[n]["hip"] for n in long]), 1)[0]
    faster = [n for n in lengths if read[n]["hip"] < read[n]["dense"]]
    many, one = write[batch][middle], write[1][middle]
    return Measured(
        {
            "reading 128k over the fastest dense kernel": (
                read[middle]["dense"] / read[middle]["hip"]
            ),
            "writing at 128k, batch 32, over the fastest dense kernel": many["dense"] / many["hip"],
            "log-log slope of the time to read, 16k to 256k": float(slope),
            "writing at 128k, batch 1, over the fastest dense kernel": one["dense"] / one["hip"],
            "milliseconds to read 128k": read[middle]["hip"] * 1e3,
            "milliseconds to read 128k, dense": read[middle]["dense"] * 1e3,
            "milliseconds of it for the search": read[middle]["search"] * 1e3,
            "milliseconds of it for the attention": read[middle]["attend"] * 1e3,
            "microseconds a written token at 128k, batch 32": many["hip"] * 1e6,
            "microseconds a written token at 128k, batch 32, dense": many["dense"] * 1e6,
            "length from which reading is faster": min(faster) if faster else None,
        },
        {"read": read, "write": write, "tiles": list(kernel.TILES)},
    )


def try_tiles(num_keys: int, seed: int) -> list[list[Any]]:
    """Seconds of the search by tile sizes, fastest first, without those that do not compile."""
    import torch

    from unspool.attention.hip import tree_search
    from unspool.attention.hip.layout import BlockLayout

    if not torch.cuda.is_available():
        return []
    q, k, _ = tensors(1, num_keys, num_keys, seed)
    frame = BlockLayout().frame(num_keys, num_keys)
    found: list[list[Any]] = []
    shipped = kernel.TILES
    for tiles in kernel.CANDIDATES:
        kernel.TILES = tiles
        try:
            found.append([seconds(lambda: tree_search(q, k, frame), budget=0.3), list(tiles)])
        except RuntimeError:
            continue
        finally:
            kernel.TILES = shipped
    return sorted(found)


def use_tiles(found: list[list[Any]]) -> None:
    """Search with the tiles that were fastest."""
    if found:
        kernel.TILES = kernel.SearchTiles(*found[0][1])


def tensors(rows: int, num_queries: int, num_keys: int, seed: int) -> Any:
    """q, k, v of one layer."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    generator = torch.Generator(device).manual_seed(seed)
    return tuple(
        torch.randn(rows, h, n, HEAD_DIM, generator=generator, device=device, dtype=dtype)
        for h, n in ((HEADS, num_queries), (KV_HEADS, num_keys), (KV_HEADS, num_keys))
    )


def seconds(function: Callable[[], object], *, least: int = 3, budget: float = 0.8) -> float:
    """Median seconds of a call that waits for the device, after a warm-up."""
    import torch

    def once() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        began = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - began

    once()
    times = [once()]
    while len(times) < least or (sum(times) < budget and len(times) < 50):
        times.append(once())
    return float(np.median(times))


def dense_kernels(q: Any, k: Any, v: Any, causal: bool) -> dict[str, Callable[[], object]]:
    """Every dense kernel that this machine has, by name."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from unspool.attention import Spec, attend

    def vendor(backend: Any) -> Callable[[], object]:
        def call() -> object:
            with sdpa_kernel(backend):
                return torch.nn.functional.scaled_dot_product_attention(
                    q, k, v, is_causal=causal, enable_gqa=True
                )

        return call

    if q.device.type == "cpu":
        return {"flash": vendor(SDPBackend.FLASH_ATTENTION)}
    found: dict[str, Callable[[], object]] = {
        "cudnn": vendor(SDPBackend.CUDNN_ATTENTION),
        "flash": vendor(SDPBackend.FLASH_ATTENTION),
    }
    spec = Spec(causal=causal)
    found["ours"] = lambda: attend(q, k, v, spec=spec, backend="triton")
    return found


def fastest(kernels: dict[str, Callable[[], object]]) -> dict[str, Any]:
    """Seconds of the fastest kernel that runs, and of each."""
    times: dict[str, float] = {}
    refused: dict[str, str] = {}
    for name, call in kernels.items():
        try:
            times[name] = seconds(call)
        except (RuntimeError, ValueError) as error:  # a kernel that lacks this shape
            refused[name] = str(error)[:120]
    return {"dense": min(times.values()), "kernels": times, "refused": refused}


def reading(num_keys: int, seed: int) -> dict[str, Any]:
    """Seconds to read a text, by HiP, its search alone, and dense."""
    import torch

    from unspool.attention import Spec, attend
    from unspool.attention.hip import hip_attention, tree_search
    from unspool.attention.hip.layout import BlockLayout
    from unspool.attention.hip.union import block_mask

    q, k, v = tensors(1, num_keys, num_keys, seed)
    layout = BlockLayout()
    frame = layout.frame(num_keys, num_keys)
    with torch.inference_mode():
        chosen = tree_search(q, k, frame)
        spec = Spec(blocks=block_mask(chosen, frame))
        return {
            "hip": seconds(lambda: hip_attention(q, k, v)),
            "search": seconds(lambda: tree_search(q, k, frame)),
            "mask": seconds(lambda: block_mask(chosen, frame)),
            "attend": seconds(lambda: attend(q, k, v, spec=spec)),
            **fastest(dense_kernels(q, k, v, causal=True)),
        }


def writing(num_keys: int, rows: int, seed: int) -> dict[str, Any]:
    """Seconds a written token, by HiP (searches included) and dense."""
    import torch

    from unspool.attention.hip.layout import BlockLayout
    from unspool.attention.hip.search import TreeSearch
    from unspool.attention.hip.sparse import Blocks

    q, k, v = tensors(rows, 1, num_keys + STEPS, seed)
    blocks = Blocks(BlockLayout(), TreeSearch())
    scale = HEAD_DIM**-0.5

    def steps() -> None:
        last = None
        for end in range(num_keys + 1, num_keys + STEPS + 1):
            _, last = blocks.write(q, k[:, :, :end], v[:, :, :end], scale, last)

    with torch.inference_mode():
        held = [x[:, :, :num_keys].contiguous() for x in (k, v)]
        return {
            "rows": rows,
            "hip": seconds(steps) / STEPS,
            **fastest(dense_kernels(q, *held, causal=False)),
        }
