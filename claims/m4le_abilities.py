"""M4LE's finding, with pool, wording and lengths held equal: longer is harder, several harder yet.

The five abilities are made of the same docstrings (whole modules for `global`) at four lengths and
asked of a small model.
"""

from __future__ import annotations

from collections.abc import Iterable

from claims import Claim, Context, Figure, Measured
from claims._long import PACKAGES, model

LENGTHS = (256, 512, 1000, 2000)
ITEMS = {"cpu": 15, "gpu": 15, "full": 200}
"""Of each ability and length."""

CLAIM = Claim(
    system="m4le",
    title="Scores fall with length for each ability, and several spans are harder than one",
    required=(
        Figure("abilities whose score at the longest is not below that at the shortest", "==", 0),
        Figure("lengths at which several spans are not below one, explicit", "==", 0),
        Figure("lengths at which several spans are not below one, semantic", "==", 0),
        Figure("mean score at the shortest length, percent", "report"),
        Figure("mean score at the longest length, percent", "report"),
        Figure("items of an ability and length", "report"),
    ),
    setup=(
        "SmolLM2-135M-Instruct, greedy; docstrings of twelve packages of Python's standard "
        "library, the package being the class; 256, 512, 1,000 and 2,000 words with one example; "
        "seed 0."
    ),
    packages=PACKAGES,
    code=("evaluation",),
)


def run(ctx: Context) -> Measured:
    """Ask everything."""
    from unspool.evaluation.tasks.m4le.facts import ABILITIES

    items = ITEMS[ctx.budget]
    scores: dict[str, dict[str, float]] = {
        ability: ctx.step(
            ability, lambda ability=ability: ask(ctx, ability), inputs={"items": items}
        )
        for ability in ABILITIES
    }
    first, last = str(LENGTHS[0]), str(LENGTHS[-1])

    def above(several: str, one: str) -> int:
        return sum(scores[several][level] >= scores[one][level] for level in scores[one])

    return Measured(
        {
            "abilities whose score at the longest is not below that at the shortest": sum(
                by[last] >= by[first] for by in scores.values()
            ),
            "lengths at which several spans are not below one, explicit": above(
                "explicit-multiple", "explicit-single"
            ),
            "lengths at which several spans are not below one, semantic": above(
                "semantic-multiple", "semantic-single"
            ),
            "mean score at the shortest length, percent": mean(by[first] for by in scores.values()),
            "mean score at the longest length, percent": mean(by[last] for by in scores.values()),
            "items of an ability and length": items,
        },
        {"scores": scores},
    )


def ask(ctx: Context, ability: str) -> dict[str, float]:
    """Mean score in percent by length in words."""
    from unspool.evaluation.plan import RunSettings
    from unspool.evaluation.report import joined, score_one
    from unspool.evaluation.run import evaluate
    from unspool.evaluation.tasks import task as task_named

    task = task_named(f"m4le-twin/{ability}")
    items = ITEMS[ctx.budget]
    folder = ctx.folder / f"run-{ability}-{items}"
    with ctx.progress(ability, total=items * len(LENGTHS), unit="answers") as bar:
        evaluate(
            model(ctx.budget),
            [task],
            out=folder,
            settings=RunSettings(limit=items, seed=ctx.seed),
            progress=lambda stage, done, total: bar.update(done, total=total, stage=stage),
        )
    found: dict[str, list[float]] = {}
    for _, sample, _, response in joined(folder):
        if response is not None:
            score = score_one(task.metric, sample, response)["score"]
            found.setdefault(str(int(sample.meta["bucket"])), []).append(score)
    return {level: 100 * mean(values) for level, values in found.items()}


def mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
