"""Spans a layer: what they cost, and what a model loses that was not trained for them.

Source: Zhang et al. (2023), MASFormer, section 3 and the abstract's 75%.
Differs from the paper: SmolLM2-135M-Instruct, converted and not trained on, which the method is not
meant for: it shows what training has to mend, and where full layers matter. The claim of quality
is `masformer_trained`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from claims import Claim, Context, Figure, Measured
from claims._long import CODE, PACKAGES, model
from claims._long_windows import windows

BLOCK, LAYERS = 512, 30
DOCUMENTS = 3
TAIL = 1024
COUNTS = (4, 8, 15)
FIXED = ("bottom", "top", "uniform")
PLACES = (*FIXED, "far")

CLAIM = Claim(
    system="masformer",
    title="A plan of spans costs what it says, and full layers belong where attention goes far",
    required=(
        Figure("pairs at 8k over all full, 6 of 30 layers full", "<=", 0.35, "x"),
        Figure("cache at 8k over all full, 6 of 30 layers full", "<=", 0.33, "x"),
        Figure("rectangles of the paper's model over all full", "<=", 0.275, "x"),
        Figure("nats: 8 full layers, the other placements' mean less where attention goes far",
               ">=", 0),
        Figure("nats of the last 1k, all full", "report"),
        Figure("nats of the last 1k, all local", "report"),
        *(
            Figure(f"nats of the last 1k, {count} full at {place}", "report")
            for count in COUNTS
            for place in PLACES
        ),
    ),
    setup=(
        "SmolLM2-135M-Instruct in float32, not trained on: the last 1,024 tokens of 3 held-out "
        "documents of 8,192; blocks of 512 and the one before, full layers at the bottom, at the "
        "top, evenly, or where most attention lies beyond a span (measured on another document). "
        "The paper's model: 24 layers, 4 of them full, 8,192 tokens, blocks of 1,024 alone."
    ),
    packages=PACKAGES,
    code=CODE,
)  # fmt: skip


def run(ctx: Context, documents: int = DOCUMENTS, length: int = 8192) -> Measured:
    """Costs of plans, and the loss of every arm on every document."""
    from transformers import LlamaConfig

    from unspool.attention.masformer import MASFormer
    from unspool.attention.span_cost import plan_cost

    _, held = windows(ctx.data("masformer"))
    texts = held[:, :length].astype(np.int64)
    shares = ctx.step("shares", lambda: far(ctx, texts[-1].tolist()), inputs={"length": length})
    best = sorted(range(LAYERS), key=lambda layer: -shares[layer])
    plans = {"all full": "all", "all local": "none"}
    for count in COUNTS:
        plans |= {f"{count} full at {place}": f"{place}:{count}" for place in FIXED}
        plans[f"{count} full at far"] = ",".join(map(str, sorted(best[:count])))
    nats: dict[str, list[float]] = {arm: [] for arm in plans}
    for number in range(documents):
        for arm, full in plans.items():
            nats[arm].append(
                ctx.step(
                    f"{arm.replace(' ', '-')}-{number}",
                    lambda full=full, number=number: tail_nats(ctx, full, texts[number].tolist()),
                    inputs={"full": full, "length": length},
                )["nats"]
            )
    mean = {arm: float(np.mean(values)) for arm, values in nats.items()}
    held_bytes = {
        full: ctx.step(
            f"cache-{full.replace(':', '-')}",
            lambda full=full: cache_bytes(ctx, full, length),
            inputs={"length": length},
        )
        for full in ("all", "bottom:6")
    }
    config = model(ctx.budget).model.config
    plan = plan_cost(config, length, MASFormer(full="bottom:6", block=BLOCK))
    paper = plan_cost(LlamaConfig(num_hidden_layers=24), 8192, MASFormer(previous_blocks=0))
    others = np.mean([mean[f"8 full at {place}"] for place in FIXED])
    return Measured(
        {
            "pairs at 8k over all full, 6 of 30 layers full": plan.ratio,
            "cache at 8k over all full, 6 of 30 layers full": held_bytes["bottom:6"]
            / held_bytes["all"],
            "rectangles of the paper's model over all full": paper.dense_ratio,
            "nats: 8 full layers, the other placements' mean less where attention goes far": float(
                others - mean["8 full at far"]
            ),
            **{f"nats of the last 1k, {arm}": value for arm, value in mean.items()},
        },
        {"nats": nats, "attention beyond a span, by layer": shares, "plans": plans},
    )


def far(ctx: Context, ids: list[int]) -> list[float]:
    """Share of each layer's attention beyond a span, on one document."""
    from unspool.attention.span_choice import far_shares
    from unspool.attention.spans import Span

    found = far_shares(model(ctx.budget).model, [ids], Span(BLOCK))
    return [round(found[layer], 6) for layer in range(LAYERS)]


def tail_nats(ctx: Context, full: str, ids: list[int]) -> dict[str, float]:
    """Mean loss of the last tokens of a document."""
    import torch

    from unspool.extension import extend

    stock = model(ctx.budget).model
    with extend(stock, f"masformer:full={full},block={BLOCK}") as ext, torch.inference_mode():
        cache = ext.new_cache()
        with ctx.progress(f"full={full}", total=len(ids), unit="tokens") as bar:
            for start in range(0, len(ids), TAIL):
                last = start + TAIL >= len(ids)
                part = torch.tensor([ids[start : start + TAIL]], device=stock.device)
                out = stock(part, past_key_values=cache, logits_to_keep=0 if last else 1)
                bar.update(min(start + TAIL, len(ids)))
        wanted = torch.tensor(ids[start + 1 :], device=stock.device)
        loss = torch.nn.functional.cross_entropy(out.logits[0, :-1].float(), wanted)
    return {"nats": float(loss)}


def cache_bytes(ctx: Context, full: str, length: int) -> int:
    """Bytes that the caches hold after a text of a length, whatever it says."""
    import torch

    from unspool.caches.base import KV
    from unspool.extension import extend

    stock: Any = model(ctx.budget).model
    with extend(stock, f"masformer:full={full},block={BLOCK}") as ext:
        cache, facts = ext.new_cache(), ext.facts
        for store in cache.stores:
            for start in range(0, length, TAIL):
                kv = torch.zeros(1, facts.num_kv_heads, TAIL, facts.head_dim, dtype=facts.dtype)
                store.update(kv, kv)
                store.meet()
                store.append(KV(kv, kv, None, start))
                store.settle()
            store.finish_prefill()
        return sum(report.bytes_device for report in cache.reports())
