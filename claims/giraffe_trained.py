"""Which stretch of rotary positions is worth training: a small decoder continued under each.

Source: Pal et al. (2023), "Giraffe", section 5: continued training at twice the window with a scale
of 4, scored by looking up lines and by loss up to eight times the window.
Differs from the paper: a decoder of some 12 million weights and a window of 512, trained here from
nothing on half text and half records; two seeds.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from claims import Claim, Context, Figure, Measured
from claims._giraffe_training import (
    Settings,
    corpus,
    held_out_loss,
    lines_right,
    network,
    train,
)

SEEDS = (0, 1)
TIMES = (1, 2, 4, 8)
TRAINED: dict[str, str] = {
    "none": "rope:kind=default",
    "linear": "rope:factor=4",
    "power": "rope:kind=power",
    "truncated": "rope:kind=truncated",
    "randomised": "rope:kind=default",
    "xpos": "xpos",
}
"""Continued at twice the window, and scored, with this on the model."""
LARGER = "rope:factor=8"
CLOSE_NATS, POOR = 0.1, 0.5
"""A loss that is as good as linear's, and the share of its lines that is bad beside it."""

CLAIM = Claim(
    system="giraffe",
    title="After training, linear scaling finds the most lines at four times the window",
    required=(
        Figure("lines at 4x: linear less the best of the others", ">", 0),
        Figure("lines at 8x, linear: scored at 8 less scored at 4", ">", 0),
        Figure("lines at 4x, before training on", "<=", 0.02),
        Figure("methods with linear's loss at 4x and less than half of its lines", ">=", 1),
        *(Figure(f"lines at {t}x, {m}", "report") for m in TRAINED for t in TIMES),
        *(
            Figure(f"loss at {t}x, {m}", "report", unit="nats a token")
            for m in TRAINED
            for t in TIMES
        ),
        Figure("lines at 1x, before training on", "report"),
        Figure("lines at 8x, linear scored at 8", "report"),
    ),
    setup=(
        "A Llama of 6 layers and 384 channels, BPE of 4,096 tokens, window 512: 1,700 steps of "
        "32,768 tokens, then 300 at 1,024 tokens and a fifth of the rate under each method. 200 "
        "lines and 16 held-out texts a length, method and seed; means over two seeds."
    ),
    budget="gpu",
    packages=("torch", "transformers", "tokenizers"),
)


def run(ctx: Context, settings: Settings | None = None, seeds: tuple[int, ...] = SEEDS) -> Measured:
    """Train a model a seed, continue it under each method, score at every length."""
    settings = settings or Settings()
    scores = {seed: one_seed(ctx, settings, seed) for seed in seeds}

    def lines(method: str, times: int) -> float:
        found = [scores[seed][method][str(times)] for seed in seeds]
        return statistics.fmean(each["right"] / each["asked"] for each in found)

    def loss(method: str, times: int) -> float:
        return statistics.fmean(scores[seed][method][str(times)]["loss"] for seed in seeds)

    others = [method for method in TRAINED if method != "linear"]
    bad = [
        method
        for method in others
        if loss(method, 4) <= loss("linear", 4) + CLOSE_NATS
        and lines(method, 4) < POOR * lines("linear", 4)
    ]
    figures: dict[str, float | int | None] = {
        "lines at 4x: linear less the best of the others": lines("linear", 4)
        - max(lines(method, 4) for method in others),
        "lines at 8x, linear: scored at 8 less scored at 4": lines("larger", 8)
        - lines("linear", 8),
        "lines at 4x, before training on": lines("first", 4),
        "methods with linear's loss at 4x and less than half of its lines": len(bad),
        "lines at 1x, before training on": lines("first", 1),
        "lines at 8x, linear scored at 8": lines("larger", 8),
    }
    for method in TRAINED:
        for times in TIMES:
            figures[f"lines at {times}x, {method}"] = lines(method, times)
            figures[f"loss at {times}x, {method}"] = loss(method, times)
    facts = {"device": device_name(), "scores": scores, "good loss and few lines": bad}
    return Measured(figures, facts)


def one_seed(ctx: Context, settings: Settings, seed: int) -> dict[str, Any]:
    """Scores of every method by length, for one seed; weights stay in the claim's folder."""
    key = {"settings": repr(settings), "seed": seed}
    weights = ctx.folder / f"first-{seed}.safetensors"
    found = {
        "first": ctx.step(f"first-{seed}", lambda: first(ctx, settings, seed, weights), inputs=key)
    }
    for method in TRAINED:
        made = ctx.step(
            f"{method}-{seed}",
            lambda method=method: continued(ctx, settings, seed, method, weights),
            inputs=key,
        )
        found |= made
    return found


def first(ctx: Context, settings: Settings, seed: int, weights: Path) -> dict[str, Any]:
    """Train from nothing at the window; keep the weights; score as it is."""
    from safetensors.torch import save_model

    model = network(settings, seed, device())
    with ctx.progress("Training", total=settings.first_steps, unit="steps") as bar:
        train(
            model,
            corpus(settings.vocabulary),
            settings,
            length=settings.window,
            steps=settings.first_steps,
            seed=seed,
            rate=settings.rate,
            report=bar.update,
        )
    ctx.folder.mkdir(parents=True, exist_ok=True)
    partial = weights.with_suffix(".partial")
    save_model(model, str(partial))
    partial.replace(weights)
    return scored(model, settings, seed)


def continued(
    ctx: Context, settings: Settings, seed: int, method: str, weights: Path
) -> dict[str, dict[str, Any]]:
    """Continue at twice the window under a method; score, linear also with a larger factor."""
    from safetensors.torch import load_model

    from unspool.extension import extend

    model = network(settings, seed, device())
    load_model(model, weights)
    with (
        extend(model, TRAINED[method]),
        ctx.progress(f"Continuing ({method})", total=settings.more_steps, unit="steps") as bar,
    ):
        train(
            model,
            corpus(settings.vocabulary),
            settings,
            length=2 * settings.window,
            steps=settings.more_steps,
            seed=seed + 1000,
            rate=settings.more_rate,
            randomised=method == "randomised",
            report=bar.update,
        )
        found = {method: scored(model, settings, seed)}
    if method == "linear":
        with extend(model, LARGER):
            found["larger"] = scored(model, settings, seed)
    return found


def scored(model: Any, settings: Settings, seed: int) -> dict[str, Any]:
    """Lines and loss at every length."""
    data = corpus(settings.vocabulary)
    found = {}
    for times in TIMES:
        length = times * settings.window
        right, asked = lines_right(model, data, settings, length, seed)
        found[str(times)] = {
            "right": right,
            "asked": asked,
            "loss": held_out_loss(model, data, settings, length, seed),
        }
    return found


def device() -> str:
    """Where to train."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name() -> str:
    """What it was trained on."""
    import torch

    return str(torch.cuda.get_device_name()) if device() == "cuda" else "cpu"
