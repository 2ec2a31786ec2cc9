"""HiP on a small model at its full window: passkeys and loss by kept keys, beside its controls.

Source: Lee et al. (2024), "HiP Attention", abstract and section 4.
Differs from the paper: SmolLM2-135M (window 8,192); every arm leaves the first three layers dense
and meets as many keys in the others: StreamingLLM 784 newest and first ones, random blocks 512
drawn beside the 272 that HiP always meets.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from claims import Claim, Context, Figure, Measured
from claims._long import CODE, PACKAGES, model, text_ids
from claims.ask_quality import wilson

SPARSE = "dense_layers=0,1,2,dense_below=0"
LAYERS = "3-29"
ARMS = {
    "dense": "dense",
    "HiP 512": f"hip:{SPARSE}",
    "HiP 256": f"hip:k_tokens=256,{SPARSE}",
    "HiP 128": f"hip:k_tokens=128,{SPARSE}",
    "StreamingLLM": f"streaming-llm:window=768,sinks=16,layers={LAYERS}",
    "random": f"random-blocks:{SPARSE}",
    "stages 512": f"hip:variant=multistage,k_tokens=512,window=256,sink=16,{SPARSE}",
    "best": f"oracle-top-k:{SPARSE}",
}
CPU_LOSS = tuple(ARMS)[:6]
CPU_PASSKEY = ("dense", "HiP 512", "StreamingLLM", "random")
PASSKEY = (*CPU_PASSKEY, "HiP 128", "best")
LENGTHS = (2048, 4096, 7500)
WINDOW = 784
LENGTH = 8192
FROM = 1024
TEXTS, DEPTHS, CPU_DEPTHS = 4, 10, 5

CLAIM = Claim(
    system="hip-attention",
    title="Keys that a tree search finds replace the others without training",
    required=(
        Figure("passkeys lost with 512 kept keys", "<=", 0.05),
        Figure("passkeys that StreamingLLM finds outside its window", "<=", 0.1),
        Figure("loss added with 512 kept keys", "<", 0.05, unit="nats"),
        Figure("loss added with 256 kept keys", "report", unit="nats"),
        Figure("loss added with 128 kept keys", "report", unit="nats"),
        Figure("loss added by StreamingLLM", "report", unit="nats"),
        Figure("loss added by 512 random keys", "report", unit="nats"),
        Figure("loss added by the best 512 keys", "report", unit="nats"),
        Figure("passkeys found, dense", "report"),
        Figure("passkeys found, 512 kept keys", "report"),
        Figure("passkeys found, StreamingLLM", "report"),
        Figure("passkeys found, 512 random keys", "report"),
        Figure("share of dense operations at 128k, counted", "report"),
        Figure("log-log slope of counted operations, 16k to 1M", "<=", 1.2),
    ),
    setup=(
        "SmolLM2-135M-Instruct (float32 on the CPU, bfloat16 on a GPU), three dense layers in "
        "every arm, windows of 256 and 16 first keys. Loss: 8,192 tokens of the Python language "
        "reference (4 such texts on a GPU), tokens from 1,024 on. Passkeys: prompts of 2,048, "
        "4,096 and 7,500 tokens, 5 depths each (10 on a GPU), greedy."
    ),
    packages=PACKAGES,
    code=CODE,
)


def run(
    ctx: Context, length: int = LENGTH, depths: int | None = None, texts: int | None = None
) -> Measured:
    """Losses, passkeys and counts; a step each, so that a run that was killed goes on."""
    large = ctx.budget != "cpu"
    depths = depths or (DEPTHS if large else CPU_DEPTHS)
    texts = texts or (TEXTS if large else 1)
    arms = tuple(ARMS) if large else CPU_LOSS
    losses: dict[str, float] = {}
    for arm in arms:
        parts = [
            ctx.step(
                f"loss-{arm}-{number}",
                lambda arm=arm, number=number: loss(ctx, ARMS[arm], length, number),
                inputs={"n": length},
            )
            for number in range(texts)
        ]
        losses[arm] = float(np.mean(parts))
    asked = PASSKEY if large else CPU_PASSKEY
    found: dict[str, list[dict[str, Any]]] = {}
    for arm in asked:
        found[arm] = [
            ctx.step(
                f"passkey-{arm}-{size}-{number}",
                lambda arm=arm, size=size, number=number: passkey(
                    ctx, ARMS[arm], min(size, length), number, depths
                ),
                inputs={"depths": depths, "n": length},
            )
            for size in LENGTHS
            for number in range(depths)
        ]
    share = {arm: sum(x["found"] for x in rows) / len(rows) for arm, rows in found.items()}
    outside = [x["found"] for x in found["StreamingLLM"] if x["outside"]]
    counted = operations()
    added = {arm: value - losses["dense"] for arm, value in losses.items()}
    return Measured(
        {
            "passkeys lost with 512 kept keys": share["dense"] - share["HiP 512"],
            "passkeys that StreamingLLM finds outside its window": (
                sum(outside) / len(outside) if outside else None
            ),
            "loss added with 512 kept keys": added["HiP 512"],
            "loss added with 256 kept keys": added["HiP 256"],
            "loss added with 128 kept keys": added["HiP 128"],
            "loss added by StreamingLLM": added["StreamingLLM"],
            "loss added by 512 random keys": added["random"],
            "loss added by the best 512 keys": added.get("best"),
            "passkeys found, dense": share["dense"],
            "passkeys found, 512 kept keys": share["HiP 512"],
            "passkeys found, StreamingLLM": share["StreamingLLM"],
            "passkeys found, 512 random keys": share["random"],
            "share of dense operations at 128k, counted": counted["share"],
            "log-log slope of counted operations, 16k to 1M": counted["slope"],
        },
        {
            "losses": losses,
            "passkeys": share,
            "by length": by_length(found),
            "intervals": {
                arm: wilson(sum(x["found"] for x in rows), len(rows)) for arm, rows in found.items()
            },
        },
    )


def loss(ctx: Context, spec: str, length: int, number: int) -> float:
    """Mean nats of the tokens past the first thousand."""
    from unspool.extension import extend
    from unspool.reading.losses import method_losses

    loaded = model(ctx.budget)
    ids = text_ids(length * (number + 1))[length * number :]
    with (
        extend(loaded.model, spec) as extension,
        ctx.progress(spec, total=length, unit="tokens") as bar,
    ):
        nats = method_losses(extension, ids, tell=bar.update)
    return float(np.mean(nats[min(FROM, length // 2) :]))


def passkey(ctx: Context, spec: str, length: int, number: int, depths: int) -> dict[str, Any]:
    """Whether the number hidden in one prompt is written, and whether it lay out of a window."""
    from unspool.extension import extend
    from unspool.reading.passkey import make_passkey

    loaded = model(ctx.budget)
    prompt = make_passkey(
        loaded.tokenizer, text_ids(LENGTH), length, (number + 0.5) / depths, seed=ctx.seed + number
    )
    with extend(loaded.model, spec, tokenizer=loaded.tokenizer) as extension:
        stream = extension.stream().feed(prompt.ids)
        answer = str(stream.generate(max_new_tokens=8, do_sample=False))
    outside = prompt.key_start >= 16 and prompt.key_end <= length - WINDOW
    return {"found": prompt.found(answer), "outside": outside, "length": length}


def by_length(found: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Share of passkeys found by arm and length."""
    table: dict[str, dict[str, float]] = {}
    for arm, rows in found.items():
        sizes = sorted({x["length"] for x in rows})
        table[arm] = {
            str(n): float(np.mean([x["found"] for x in rows if x["length"] == n])) for n in sizes
        }
    return table


def operations() -> dict[str, float]:
    """Counted operations of one head of 64 channels, reading alone."""
    from unspool.attention.hip.count import hip_cost
    from unspool.attention.hip.layout import BlockLayout

    lengths = [1 << power for power in range(14, 21)]
    costs = [hip_cost(n, n, BlockLayout(), 64) for n in lengths]
    slope = np.polyfit(np.log(lengths), np.log([c.total for c in costs]), 1)[0]
    middle = costs[lengths.index(1 << 17)]
    return {"slope": float(slope), "share": middle.total / middle.dense}
