"""LM-Infinite on a GPU: a stream of a million tokens, as fluent as fresh windows, in flat memory.

Source: Han et al. (2024), "LM-Infinite", sections 5.1 and 5.3.
Differs from `claims.lm_infinite`: 128 windows instead of four, of a text of 131,072 tokens read
eight times over (neither Λ attention nor a fresh window reaches from one reading into the last), 50
passkeys, and no times: several processes may share the device.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from claims import Claim, Context, Figure, Measured
from claims._long import CODE, PACKAGES, model, text_ids
from claims.ask_quality import wilson
from claims.lm_infinite import LAMBDA, SAMPLES, TOP_K, WINDOW, passkey

PERIOD, TIMES = 131_072, 8

CLAIM = Claim(
    system="lm-infinite",
    title="Λ attention stays within 3% of fresh windows through a million tokens, in flat memory",
    required=(
        Figure("worst 128k bucket over fresh windows", "<=", 1.03, "x"),
        Figure("peak GPU memory at 1M tokens over 128k", "<=", 1.02, "x"),
        Figure("peak GPU memory at 1M tokens", "report", unit="bytes"),
        Figure("passkey at 12k-16k with top_k=5", "report"),
        Figure("passkey at 12k-16k without", "report"),
        Figure("passkeys found more with top_k=5", ">=", 0.2),
    ),
    setup=(
        "SmolLM2-135M-Instruct in bfloat16, trained window 8,192; 131,072 tokens of the Python "
        "language reference and manual pages, read eight times over in one stream; L = 4,096, "
        "G = 16; fresh windows of 4,096 tokens at a stride of 2,048. Passkey: 50 prompts of 12,288 "
        "and 16,384 tokens, depths spread, greedy, Wilson intervals."
    ),
    budget="gpu",
    packages=PACKAGES,
    code=CODE,
)


def run(ctx: Context, period: int = PERIOD, times: int = TIMES, samples: int = SAMPLES) -> Measured:
    """Losses and memory of a stream, and passkeys."""
    inputs = {"period": period, "times": times}
    fresh = ctx.step("fresh", lambda: fresh_mean(ctx, period), inputs=inputs)
    once = ctx.step("once", lambda: stream(ctx, period, 1), inputs=inputs)
    whole = ctx.step("whole", lambda: stream(ctx, period, times), inputs=inputs)
    found = {
        name: [
            ctx.step(
                f"passkey-{name}-{number}",
                lambda spec=spec, number=number: passkey(ctx, spec, number, samples),
                inputs={"samples": samples},
            )
            for number in range(samples)
        ]
        for name, spec in (("with", TOP_K), ("without", LAMBDA))
    }
    share = {name: sum(hits) / len(hits) for name, hits in found.items()}
    over = [mean / fresh for mean in whole["means"]]
    return Measured(
        {
            "worst 128k bucket over fresh windows": max(over),
            "peak GPU memory at 1M tokens over 128k": whole["peak"] / max(1, once["peak"]),
            "peak GPU memory at 1M tokens": whole["peak"],
            "passkey at 12k-16k with top_k=5": share["with"],
            "passkey at 12k-16k without": share["without"],
            "passkeys found more with top_k=5": share["with"] - share["without"],
        },
        {
            "buckets": over,
            "nats": whole["means"],
            "passkey intervals": {n: wilson(sum(h), len(h)) for n, h in found.items()},
        },
    )


def fresh_mean(ctx: Context, period: int) -> float:
    """Nats a token with no more context than a window."""
    from unspool.reading.losses import fresh_losses

    return float(np.mean(fresh_losses(model(ctx.budget).model, text_ids(period), WINDOW)))


def stream(ctx: Context, period: int, times: int) -> dict[str, Any]:
    """Mean nats of each reading of the text in one stream, and the most memory that it took."""
    import torch

    from unspool.extension import extend
    from unspool.reading.losses import method_losses

    loaded, ids = model(ctx.budget), text_ids(period) * times
    cuda = loaded.model.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    with (
        extend(loaded.model, LAMBDA) as extension,
        ctx.progress(f"{len(ids):,} tokens", total=len(ids), unit="tokens") as bar,
    ):
        found = method_losses(extension, ids, tell=bar.update)
    # The first token of all has no loss, so the buckets begin one token into each reading.
    means = [float(np.mean(found[i * period : (i + 1) * period])) for i in range(times)]
    peak = torch.cuda.max_memory_allocated() if cuda else 0
    return {"means": means, "peak": peak}
