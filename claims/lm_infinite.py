"""LM-Infinite: fluent at four windows in constant memory, where the stock model breaks.

Source: Han et al. (2024), "LM-Infinite", abstract, sections 5.1 and 5.3.
Differs from the paper: SmolLM2-135M (window 8,192); the reference reads the same tokens in fresh
windows of 4,096 at a stride of 2,048 and scores the second half of each, so that every scored token
has 2k to 4k of context. The speed of writing is measured on caches filled with random keys, since
what a step costs does not depend on what the keys say; dense and Λ go through the same step.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from claims import Claim, Context, Figure, Measured
from claims._long import CODE, PACKAGES, model, text_ids
from claims.ask_quality import wilson

LENGTH = 32_768
BUCKET = 8192
LAMBDA = "lm-infinite:local=4096,sinks=16"
WINDOW = 4096
DECODED = 24
TOP_K = "lm-infinite:local=4096,sinks=16,top_k=5"
SAMPLES, CPU_SAMPLES = 50, 4
PASSKEY = (12_288, 16_384)

CLAIM = Claim(
    system="lm-infinite",
    title="Λ attention stays within 3% of fresh windows to four windows, in constant memory",
    required=(
        Figure("worst 8k bucket over fresh windows", "<=", 1.03, "x"),
        Figure("stock model over fresh windows, 8k-16k", "report", unit="x"),
        Figure("stock model over fresh windows, 24k-32k", ">=", 1.25, "x"),
        Figure("written tokens/s at 32k over dense, 8-bit weights", ">=", 2.7, "x"),
        Figure("written tokens/s at 32k over dense, float weights", "report", unit="x"),
        Figure("cache at 32k, dense over Λ", ">=", 7.5, "x"),
        Figure("passkey at 12k-16k with top_k=5", "report"),
        Figure("passkey at 12k-16k without", "report"),
        Figure("passkeys found more with top_k=5", ">=", 0.2),
        Figure("dense written tokens/s at 32k, 8-bit weights", "report"),
        Figure("Λ written tokens/s at 32k, 8-bit weights", "report"),
    ),
    setup=(
        "SmolLM2-135M-Instruct (float32 on the CPU, bfloat16 on a GPU), trained window 8,192; the "
        "Python language reference and manual pages, 32,768 tokens in one pass; L = 4,096, G = 16. "
        "Written tokens go through the lean step, dense and Λ alike. Passkey: prompts of 12,288 "
        "and 16,384 tokens (4 on the CPU, 50 on a GPU), depths spread, greedy, Wilson interval."
    ),
    packages=PACKAGES,
    code=CODE,
)


def run(ctx: Context, length: int = LENGTH, samples: int | None = None) -> Measured:
    """Losses, speed and memory, passkeys."""
    samples = samples or (CPU_SAMPLES if ctx.budget == "cpu" else SAMPLES)
    bucket = min(BUCKET, length // 4)
    nats: dict[str, list[float]] = {}
    for name, spec in (("fresh", None), ("lambda", LAMBDA), ("stock", "dense")):
        nats[name] = ctx.step(
            f"loss-{name}", lambda spec=spec: losses(ctx, spec, length), inputs={"n": length}
        )
    over = {
        name: [
            float(np.mean(nats[name][i : i + bucket]) / np.mean(nats["fresh"][i : i + bucket]))
            for i in range(0, length - 1, bucket)
        ]
        for name in ("lambda", "stock")
    }
    speeds = {
        weights: ctx.step(
            f"speed-{weights}",
            lambda weights=weights: written_speed(ctx, length, weights),
            inputs={"n": length},
        )
        for weights in ("int8", "same")
    }
    speed = speeds["int8"]
    ratio = {w: s["Λ"]["rate"] / s["dense"]["rate"] for w, s in speeds.items()}
    found: dict[str, list[bool]] = {"with": [], "without": []}
    for number in range(samples):
        for name, spec in (("with", TOP_K), ("without", LAMBDA)):
            found[name].append(
                ctx.step(
                    f"passkey-{name}-{number}",
                    lambda spec=spec, number=number: passkey(ctx, spec, number, samples),
                    inputs={"samples": samples},
                )
            )
    share = {name: sum(hits) / len(hits) for name, hits in found.items()}
    return Measured(
        {
            "worst 8k bucket over fresh windows": max(over["lambda"]),
            "stock model over fresh windows, 8k-16k": over["stock"][1],
            "stock model over fresh windows, 24k-32k": over["stock"][-1],
            "written tokens/s at 32k over dense, 8-bit weights": ratio["int8"],
            "written tokens/s at 32k over dense, float weights": ratio["same"],
            "cache at 32k, dense over Λ": speed["dense"]["bytes"] / speed["Λ"]["bytes"],
            "passkey at 12k-16k with top_k=5": share["with"],
            "passkey at 12k-16k without": share["without"],
            "passkeys found more with top_k=5": share["with"] - share["without"],
            "dense written tokens/s at 32k, 8-bit weights": speed["dense"]["rate"],
            "Λ written tokens/s at 32k, 8-bit weights": speed["Λ"]["rate"],
        },
        {
            "buckets": over,
            "speed": speeds,
            "passkey intervals": {n: wilson(sum(h), len(h)) for n, h in found.items()},
        },
    )


def losses(ctx: Context, spec: str | None, length: int) -> list[float]:
    """Nats of every token but the first."""
    from unspool.extension import extend
    from unspool.reading.losses import fresh_losses, method_losses

    loaded, ids = model(ctx.budget), text_ids(length)
    with ctx.progress(spec or "fresh windows", total=length, unit="tokens") as bar:
        if spec is None:
            found = fresh_losses(loaded.model, ids, WINDOW, tell=bar.update)
        else:
            with extend(loaded.model, spec) as extension:
                found = method_losses(extension, ids, tell=bar.update)
    return [round(float(x), 5) for x in found]


def written_speed(ctx: Context, length: int, weights: Any) -> dict[str, dict[str, float]]:
    """Tokens a second and bytes of the cache, dense and Λ, after `length` tokens.

    Both write through the lean step over the same weights, so neither is held up by what is around
    the arithmetic.
    """
    import torch

    from unspool.caches.base import KV
    from unspool.extension import extend
    from unspool.positions.rotation import Rotation

    loaded = model(ctx.budget)
    out: dict[str, dict[str, float]] = {}
    for name, spec in (("dense", "dense"), ("Λ", LAMBDA)):
        with extend(loaded.model, spec, weights=weights) as extension, torch.inference_mode():
            facts = extension.facts
            cache = extension.new_cache()
            generator = torch.Generator().manual_seed(ctx.seed)
            shape = (1, facts.num_kv_heads, 1024, facts.head_dim)
            for store in cache.stores:
                for start in range(0, length, 1024):
                    kv = torch.randn(shape, generator=generator).to(facts.device, facts.dtype)
                    store.update(kv, kv)
                    store.meet()
                    store.append(KV(kv, kv, None, start, rotated=name == "dense"))
                    if hasattr(store, "take"):
                        store.take(Rotation(facts.rotations["full_attention"].inv_freq))
                    store.settle()
                store.finish_prefill()
            held = sum(report.bytes_device for report in cache.reports())
            token = torch.tensor([[5]], device=facts.device)
            times = []
            for _ in range(DECODED):
                began = time.perf_counter()
                loaded.model(token, past_key_values=cache, use_cache=True)
                if facts.device.type == "cuda":
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - began)
            out[name] = {"rate": 1 / float(np.median(times[4:])), "bytes": float(held)}
    return out


def passkey(ctx: Context, spec: str, number: int, samples: int) -> bool:
    """Whether the number hidden in one prompt is written."""
    from unspool.reading.passkey import make_passkey

    loaded = model(ctx.budget)
    length = PASSKEY[number % len(PASSKEY)]
    depth = (number + 0.5) / samples
    prompt = make_passkey(loaded.tokenizer, text_ids(LENGTH), length, depth, seed=ctx.seed + number)
    return prompt.found(complete(loaded, spec, prompt.ids))


def complete(loaded: Any, spec: str, ids: list[int], max_new_tokens: int = 8) -> str:
    """What a method writes after a prompt, greedily."""
    from unspool.extension import extend

    with extend(loaded.model, spec, tokenizer=loaded.tokenizer) as extension:
        stream = extension.stream().feed(ids)
        return str(stream.generate(max_new_tokens=max_new_tokens, do_sample=False))
