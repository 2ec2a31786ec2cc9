"""From trained decoders to figures: one step a seed and way, and means over seeds."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

from claims import Context, Figure
from claims._softplus_training import SCORED, Arm, prepare, prepared, trained

Scores = dict[str, dict[str, dict[str, dict[str, float]]]]
"""seed -> way -> times -> figure."""


def nats_figures(arm: Arm) -> list[Figure]:
    """The loss of every way at every length, as reported figures."""
    return [
        Figure(f"loss at {times}x, {way}", "report", unit="nats a token")
        for way in arm.ways
        for times in arm.times
    ]


def prepare_once(ctx: Context, arm: Arm) -> None:
    """Write the ids of an arm unless they lie there."""
    if not prepared(ctx, arm):
        ctx.step("ids", lambda: prepare(ctx, arm), inputs={"arm": repr(arm)}, prepares=True)


def seeds_of(ctx: Context, arm: Arm) -> Scores:
    """Train and score what is not done yet: all ways of a seed before the next."""
    prepare_once(ctx, arm)
    weights = list(dict.fromkeys(SCORED[way][0] for way in arm.ways))
    one = repr(replace(arm, seeds=()))  # a seed more or less leaves finished trainings as they are
    found: Scores = {}
    for seed in arm.seeds:
        scores: dict[str, Any] = {}
        for way in weights:
            made = ctx.step(
                f"{way.replace(', ', '-').replace(' ', '-')}-{seed}",
                lambda way=way, seed=seed: trained(ctx, arm, way, seed),
                inputs={"arm": one},
            )
            scores |= made["scores"]
        found[str(seed)] = scores
    return found


def mean(found: Scores, way: str, times: int, figure: str) -> float:
    """Over seeds."""
    return statistics.fmean(scores[way][str(times)][figure] for scores in found.values())


def mean_of_one(trained: dict[str, Any], times: str) -> float:
    """Nats of a token at a length, of one training."""
    return float(trained["scores"][times]["nats"])
