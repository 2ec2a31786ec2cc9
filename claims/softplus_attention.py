"""A tiny decoder past its training length, with softmax and with re-weighted softplus attention.

Source: Gao & Spratling (2025), "Softplus Attention with Re-weighting Boosts Length Extrapolation in
Large Language Models": nearly constant validation loss at 16 times the training length.
Differs from the paper: orderings only, by a decoder a hundred times smaller; the larger run is
`softplus_attention_gpu`.
"""

from __future__ import annotations

from claims import Claim, Context, Figure, Measured
from claims._softplus_scores import mean, nats_figures, seeds_of
from claims._softplus_training import ARMS, Arm

CLAIM = Claim(
    system="softplus-attention",
    title="Loss past the training length: re-weighted softplus keeps it, softmax does not (tiny)",
    required=(
        Figure("rise from 1x to 16x, softmax less LSSAR", ">", 0, "nats"),
        Figure("loss at 16x, softmax less LSSAR", ">", 0, "nats"),
        Figure("rise from 1x to 16x, LSSAR", "report", unit="nats"),
        Figure("loss at 1x, LSSAR less softmax", "report", unit="nats"),
        *nats_figures(ARMS["cpu"]),
    ),
    setup=(
        "A Llama of {0.layers} layers and {0.width} channels, BPE of {0.vocabulary:,} tokens, "
        "trained at {0.window} tokens for {0.steps} steps of {0.batch_tokens:,} on Python's "
        "library and reference; loss over the last {0.window} positions of {0.texts} held-out "
        "texts a length; means over {1} seeds. Orderings only."
    ).format(ARMS["cpu"], len(ARMS["cpu"].seeds)),
    packages=("torch", "transformers", "tokenizers"),
    code=("attention/softplus", "attention/alibi.py", "_dispatch.py"),
)


def run(ctx: Context, arm: Arm = ARMS["cpu"]) -> Measured:
    """Train and score each way and seed, a step each."""
    found = seeds_of(ctx, arm)

    def at(way: str, times: int) -> float:
        return mean(found, way, times, "nats")

    last = arm.times[-1]
    rise = {way: at(way, last) - at(way, 1) for way in arm.ways}
    figures: dict[str, float | int | None] = {
        "rise from 1x to 16x, softmax less LSSAR": rise["softmax"] - rise["LSSAR"],
        "loss at 16x, softmax less LSSAR": at("softmax", last) - at("LSSAR", last),
        "rise from 1x to 16x, LSSAR": rise["LSSAR"],
        "loss at 1x, LSSAR less softmax": at("LSSAR", 1) - at("softmax", 1),
        **{f"loss at {t}x, {way}": at(way, t) for way in arm.ways for t in arm.times},
    }
    return Measured(figures, {"seeds": found})
