"""Whether a small model heeds the length it is told: answers with and without the instruction.

The same texts of about a thousand tokens are to be summarised, once with "about N words" in the
prompt and once without; the distance of an answer's length from its reference's is |log(words /
reference words)|.
"""

from __future__ import annotations

import math
from dataclasses import replace

from claims import Claim, Context, Figure, Measured
from claims._long import PACKAGES, model

ITEMS = {"cpu": 16, "gpu": 20, "full": 100}
NEW_TOKENS = 256

CLAIM = Claim(
    system="l-eval",
    title="A model that is told how long to answer comes nearer to that length",
    required=(
        Figure("distance from the reference's length, told less not told", "<", 0),
        Figure("distance when told", "report"),
        Figure("distance when not told", "report"),
        Figure("texts", "report"),
    ),
    setup=(
        "SmolLM2-135M-Instruct, greedy, at most 256 new tokens; texts of 1,024 tokens out of the "
        "Python language reference, whose reference is the first sentence of every paragraph; "
        "mean of |log(words / reference words)|, an empty answer counting as one word."
    ),
    packages=PACKAGES,
    code=("evaluation",),
)


def run(ctx: Context) -> Measured:
    """Summarise every text twice."""
    inputs = {"items": ITEMS[ctx.budget]}
    told = ctx.step("told", lambda: distances(ctx, told=True), inputs=inputs)
    silent = ctx.step("silent", lambda: distances(ctx, told=False), inputs=inputs)
    means = [sum(values) / len(values) for values in (told, silent)]
    return Measured(
        {
            "distance from the reference's length, told less not told": means[0] - means[1],
            "distance when told": means[0],
            "distance when not told": means[1],
            "texts": len(told),
        }
    )


def distances(ctx: Context, *, told: bool) -> list[float]:
    """|log(words / reference words)| of each answer."""
    from unspool.evaluation.plan import RunSettings
    from unspool.evaluation.report import joined
    from unspool.evaluation.run import evaluate
    from unspool.evaluation.tasks.l_eval.twins import TWIN_TASKS, SummaryTask

    task = TWIN_TASKS["summary"]
    assert isinstance(task, SummaryTask)
    task = task if told else task.without_length_instruction()
    task = replace(task, spec=replace(task.spec, max_new_tokens=NEW_TOKENS))
    items = ITEMS[ctx.budget]
    folder = ctx.folder / f"run-{'told' if told else 'silent'}-{items}"
    with ctx.progress("Summarising", total=items, unit="texts") as bar:
        evaluate(
            model(ctx.budget),
            [task],
            out=folder,
            settings=RunSettings(lengths=("1k",), limit=items, seed=ctx.seed),
            progress=lambda stage, done, total: bar.update(done, total=total, stage=stage),
        )
    return [
        abs(math.log(max(len(response.text.split()), 1) / len(sample.references[0].split())))
        for _, sample, _, response in joined(folder)
        if response is not None
    ]
