"""BERT without its padding on a GPU: whole model and attention alone, beside what PyTorch has.

Source: Zhai et al. (2022), "ByteTransformer", section 4 and the table of the repository: 12 layers
of BERT base, half precision, batches of 16, lengths with a mean of 0.6 of the longest.
Differs from the paper: rivals are those of today (compiled SDPA, cuDNN, nested tensors,
FlexAttention); weights are random, since no time depends on them.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable
from typing import Any

from claims import Claim, Context, Figure, Measured

LONGEST = (512, 1024, 64)
BATCH, SHARE = 16, 0.6
MODEL_WAYS = ("eager", "sdpa", "cudnn", "compiled", "packed", "packed, compiled", "packed, graphs")
ATTENTION_WAYS = ("eager", "sdpa", "cudnn", "nested", "flex", "packed")

CLAIM = Claim(
    system="byte-transformer",
    title="BERT base on variable lengths, without computing padding, on a GPU",
    required=(
        Figure("compiled SDPA over packed, longest 512", ">=", 1.55, "x"),
        Figure("compiled SDPA over packed, longest 1024", ">=", 1.55, "x"),
        Figure("eager attention over packed, longest 1024", ">=", 6.13, "x"),
        Figure("largest difference of a hidden state from padded SDPA", "<=", 0.05),
        *(
            Figure(f"model, longest {n}: {way}", "report", unit="ms")
            for n in LONGEST
            for way in MODEL_WAYS
        ),
        *(
            Figure(f"attention, longest {n}: {way}", "report", unit="ms")
            for n in LONGEST
            for way in ATTENTION_WAYS
        ),
    ),
    setup=(
        f"BERT base, 12 layers, random weights, float16, one forward pass over {BATCH} sentences "
        f"of lengths spread evenly with a mean of {SHARE} of the longest; medians of 20 after 5, "
        "by events. Packed is the faster of compiled and compiled with CUDA graphs. Attention "
        "alone: 12 heads of 64, from padded or packed projections. A way that cannot run has no "
        "figure; facts say why."
    ),
    budget="gpu",
    packages=("torch", "transformers", "triton"),
    code=("attention/padding_free", "layout.py", "_packed.py", "_replay.py", "_dispatch.py"),
)


def run(ctx: Context, longest: tuple[int, ...] = LONGEST) -> Measured:
    """Attention and model, a way at a time: each is a step, over all lengths."""
    figures: dict[str, float | int | None] = {}
    facts: dict[str, Any] = {}
    difference = 0.0
    for kind, ways, measure in (
        ("attention", ATTENTION_WAYS, attention),
        ("model", MODEL_WAYS, model),
    ):
        for way in ways:
            name = f"{kind}-{way}".replace(", ", "-")
            key = {"longest": longest}
            found = ctx.step(name, lambda f=measure, w=way: f(w, longest), inputs=key)
            for most, each in found.items():
                figures[f"{kind}, longest {most}: {way}"] = each["ms"]
                difference = max(difference, each.get("apart", 0.0))
                if each.get("why"):
                    facts[f"{kind}, longest {most}: {way}"] = each["why"]

    def ratio(slow: str, *fast: str) -> float | None:
        times = [figures.get(name) for name in fast]
        there = [time for time in times if time is not None]
        top = figures.get(slow)
        return top / min(there) if there and top is not None else None

    for most in (512, 1024):
        at = f"model, longest {most}: "
        figures[f"compiled SDPA over packed, longest {most}"] = ratio(
            at + "compiled", at + "packed, compiled", at + "packed, graphs"
        )
    at = "attention, longest 1024: "
    figures["eager attention over packed, longest 1024"] = ratio(at + "eager", at + "packed")
    figures["largest difference of a hidden state from padded SDPA"] = difference
    return Measured(figures, facts)


def spread_lengths(most: int) -> list[int]:
    """Lengths of a batch: even between 0.2 and 1 of the longest, in drawn order.

    Sixteen drawn lengths can be far from their mean (a batch of 1,024 had 0.76 instead of 0.6);
    spread ones have it, and so does the table that this repeats on average.
    """
    import random

    low = 2 * SHARE - 1
    lengths = [round(most * (low + (1 - low) * i / (BATCH - 1))) for i in range(BATCH)]
    random.Random(most).shuffle(lengths)
    return lengths


def milliseconds(call: Callable[[], Any], runs: int = 20, warm: int = 5) -> float:
    """Median time of a call on the GPU."""
    import torch

    for _ in range(warm):
        call()
    times = []
    for _ in range(runs):
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        call()
        after.record()
        torch.cuda.synchronize()
        times.append(before.elapsed_time(after))
    return statistics.median(times)


def attempt(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A figure, or why there is none."""
    try:
        return measure()
    except Exception as error:
        return {"ms": None, "why": f"{type(error).__name__}: {str(error)[:200]}"}


# ---- the whole model


def model(way: str, longest: tuple[int, ...]) -> dict[str, Any]:
    """Milliseconds of one forward pass, by longest sentence: one model for all of them."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from transformers import BertConfig, BertModel

    from unspool.attention.padding_free import PaddingFree
    from unspool.extension import extend

    torch._dynamo.reset()
    torch.manual_seed(0)
    stock = "eager" if way == "eager" else "sdpa"
    config = BertConfig(max_position_embeddings=max(longest), attn_implementation=stock)
    net = BertModel(config, add_pooling_layer=False).half().cuda().eval()
    given = {most: _batch(most) for most in longest}
    found: dict[str, Any] = {}
    with contextlib.ExitStack() as around, torch.inference_mode():
        right = {}
        if way.startswith("packed"):
            for most, (ids, host) in given.items():
                stock_given = {"input_ids": ids, "attention_mask": host.cuda()}
                right[most] = net(**stock_given).last_hidden_state[host.cuda()]
            method = PaddingFree(compile="compiled" in way, graphs="graphs" in way)
            around.enter_context(extend(net, method))
        elif way == "cudnn":
            around.enter_context(sdpa_kernel(SDPBackend.CUDNN_ATTENTION))
        call: Any = torch.compile(net, dynamic=False) if way == "compiled" else net
        for most, (ids, host) in given.items():
            mask = host if way.startswith("packed") else host.cuda()

            def measure(ids: Any = ids, mask: Any = mask, most: int = most) -> dict[str, Any]:
                ms = milliseconds(lambda: call(input_ids=ids, attention_mask=mask))
                if most not in right:
                    return {"ms": ms}
                out = call(input_ids=ids, attention_mask=mask).last_hidden_state
                apart = (out[mask.cuda()] - right[most]).abs().max()
                return {"ms": ms, "apart": float(apart)}

            found[str(most)] = attempt(measure)
    return found


def _batch(most: int) -> tuple[Any, Any]:
    """Ids on the GPU, and the mask on the host, where tokenizers leave it."""
    import torch

    host = torch.arange(most)[None] < torch.tensor(spread_lengths(most))[:, None]
    generator = torch.Generator().manual_seed(most)
    return torch.randint(1000, 30_000, (BATCH, most), generator=generator).cuda(), host


# ---- attention alone


def attention(way: str, longest: tuple[int, ...]) -> dict[str, Any]:
    """Milliseconds of the attention of one layer, by longest sentence."""
    return {str(most): attempt(lambda most=most: _attention(way, most)) for most in longest}


def _attention(way: str, most: int) -> dict[str, Any]:
    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from unspool.attention.padding_free.layout import arrange
    from unspool.attention.padding_free.varlen import varlen_attend

    torch.manual_seed(0)
    lengths = torch.tensor(spread_lengths(most))
    host = torch.arange(most)[None] < lengths[:, None]
    mask = host.cuda()[:, None, None]
    bias = torch.zeros(mask.shape, dtype=torch.float16, device="cuda").masked_fill(
        ~mask, torch.finfo(torch.float16).min
    )
    shape = (BATCH, most, 12, 64)
    q, k, v = (torch.randn(shape, dtype=torch.float16, device="cuda") for _ in range(3))
    rows = [x.transpose(1, 2) for x in (q, k, v)]
    with torch.inference_mode():
        if way == "eager":

            def unfused() -> Any:
                s = rows[0] @ rows[1].transpose(-1, -2) * 64**-0.5 + bias
                return torch.softmax(s, dim=-1) @ rows[2]

            return {"ms": milliseconds(unfused)}
        if way == "sdpa":
            return {
                "ms": milliseconds(lambda: F.scaled_dot_product_attention(*rows, attn_mask=mask))
            }
        if way == "cudnn":
            with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
                return {
                    "ms": milliseconds(
                        lambda: F.scaled_dot_product_attention(*rows, attn_mask=mask)
                    )
                }
        if way == "nested":
            jagged = [
                torch.nested.nested_tensor(
                    [x[i, :n] for i, n in enumerate(lengths.tolist())], layout=torch.jagged
                ).transpose(1, 2)
                for x in (q, k, v)
            ]
            return {"ms": milliseconds(lambda: F.scaled_dot_product_attention(*jagged))}
        layout = arrange(host, torch.device("cuda"))
        packed = [layout.pack(x).transpose(1, 2) for x in (q, k, v)]
        if way == "packed":
            return {"ms": milliseconds(lambda: varlen_attend(*packed, layout))}
        return {"ms": _flex(packed, layout)}


def _flex(packed: list[Any], layout: Any) -> float:
    """FlexAttention over a mask of documents, compiled; the mask is made beforehand."""
    import torch
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    numbers = torch.arange(len(layout.lengths), device="cuda")
    document = torch.repeat_interleave(numbers, torch.tensor(layout.lengths, device="cuda"))
    tokens = layout.tokens

    def same(b: Any, h: Any, i: Any, j: Any) -> Any:
        return document[i] == document[j]

    blocks = create_block_mask(same, None, None, tokens, tokens, device="cuda")
    call = torch.compile(flex_attention)
    return milliseconds(lambda: call(*packed, block_mask=blocks))
