"""Small decoders past their training length, under softmax, ALiBi and softplus attention.

Source: Gao & Spratling (2025), "Softplus Attention with Re-weighting Boosts Length Extrapolation in
Large Language Models": nearly constant validation loss at 16 times the training length.
Differs from the paper: decoders of some 14 million weights, trained at 256 tokens on documentation;
ALiBi beside them, whose loss stays flat too, and a pass key to be copied, which tells them apart.
"""

from __future__ import annotations

from claims import Claim, Context, Figure, Measured
from claims._softplus_scores import mean, nats_figures, seeds_of
from claims._softplus_training import ARMS, Arm, device

COPIED = (1, 4, 16)

CLAIM = Claim(
    system="softplus-attention",
    title="Loss at 16 times the training length stays where it was",
    required=(
        Figure("rise from 1x to 16x, LSSAR", "<=", 0.05, "nats"),
        Figure("rise from 1x to 16x, softmax", ">", 0.5, "nats"),
        Figure("loss at 1x, LSSAR less softmax", "<=", 0.01, "nats"),
        Figure("rise from 1x to 16x, ALiBi", "report", unit="nats"),
        Figure("rise from 1x to 16x, LSSA+rw", "report", unit="nats"),
        *(
            Figure(f"digits copied at {times}x, {way}", "report")
            for way in ARMS["gpu"].ways
            for times in COPIED
        ),
        *nats_figures(ARMS["gpu"]),
    ),
    setup=(
        "A Llama of {0.layers} layers and {0.width} channels, BPE of {0.vocabulary:,} tokens, "
        "trained at {0.window} tokens for {0.steps} steps of {0.batch_tokens:,} on 60 MB of "
        "Debian's documentation, a quarter of the rows with a pass key to repeat; loss over the "
        "last {0.window} positions of {0.texts} held-out texts a length; means over {1} seeds. "
        "LSSA+rw is LSSA, re-weighted when scored only."
    ).format(ARMS["gpu"], len(ARMS["gpu"].seeds)),
    budget="gpu",
    packages=("torch", "transformers", "tokenizers", "triton"),
    code=("attention/softplus", "attention/alibi.py", "_dispatch.py"),
)


def run(ctx: Context, arm: Arm = ARMS["gpu"]) -> Measured:
    """Train and score each way and seed, a step each."""
    found = seeds_of(ctx, arm)
    last = arm.times[-1]

    def at(way: str, times: int) -> float:
        return mean(found, way, times, "nats")

    rise = {way: at(way, last) - at(way, 1) for way in arm.ways}
    figures: dict[str, float | int | None] = {
        **{f"rise from 1x to 16x, {w}": rise[w] for w in ("LSSAR", "softmax", "ALiBi", "LSSA+rw")},
        "loss at 1x, LSSAR less softmax": at("LSSAR", 1) - at("softmax", 1),
        **{f"loss at {t}x, {way}": at(way, t) for way in arm.ways for t in arm.times},
        **{
            f"digits copied at {t}x, {way}": mean(found, way, t, "copied")
            for way in arm.ways
            for t in COPIED
        },
    }
    return Measured(figures, {"seeds": found, "device": device()})
