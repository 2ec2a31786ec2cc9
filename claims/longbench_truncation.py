"""What to keep of a prompt that is too long: its head, its tail, or both ends.

Twins of LongBench's code completion and passage retrieval, 2k to 8k tokens, cut to about 1,024 by
each policy and answered by a small model; then, without a model, the best paragraph by BM25 among
all of them beside the best among those that keeping both ends leaves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from claims import Claim, Context, Figure, Measured
from claims._long import PACKAGES, model

LENGTHS = ("2k", "4k", "8k")
ITEMS = {"cpu": 20, "gpu": 20, "full": 67}
"""Of each length."""
POLICIES = ("head", "tail", "ends")
TASKS = ("lcc", "passage_retrieval")
KEPT = 1024
EXTRACTIVE = 200

CLAIM = Claim(
    system="longbench",
    title="Code needs its tail: keeping both ends is never the worst, and retrieval beats both",
    required=(
        Figure("next line of code, tail kept less head kept, points", ">=", 10),
        Figure("next line of code, both ends kept less head kept, points", ">=", 10),
        Figure("tasks on which keeping both ends is significantly worst", "==", 0),
        Figure("best paragraph of all less best of what both ends leave, points", ">", 0),
        Figure("next line of code, head kept", "report"),
        Figure("next line of code, tail kept", "report"),
        Figure("next line of code, both ends kept", "report"),
        Figure("paragraph named, head kept", "report"),
        Figure("paragraph named, tail kept", "report"),
        Figure("paragraph named, both ends kept", "report"),
        Figure("items of a task", "report"),
    ),
    setup=(
        "SmolLM2-135M-Instruct, greedy; generated twins of lcc and passage_retrieval_en at 2k, 4k "
        "and 8k tokens, cut to about 1,024; paired bootstrap. The paragraphs are ranked by BM25 "
        "against the abstract, 200 prompts of 4k tokens."
    ),
    packages=(*PACKAGES, "bm25s"),
    code=("evaluation",),
)


def run(ctx: Context) -> Measured:
    """Answer every item under every policy."""
    scores: dict[str, dict[str, list[float]]] = {}
    for name in TASKS:
        scores[name] = {
            keep: ctx.step(
                f"{name}-{keep}",
                lambda name=name, keep=keep: answers(ctx, name, keep),
                inputs={"items": ITEMS[ctx.budget]},
            )
            for keep in POLICIES
        }
    extractive = ctx.step("extractive", lambda: best_paragraphs(ctx.seed))
    means = {name: {k: 100 * sum(v) / len(v) for k, v in by.items()} for name, by in scores.items()}
    code, named = means["lcc"], means["passage_retrieval"]
    return Measured(
        {
            "next line of code, tail kept less head kept, points": code["tail"] - code["head"],
            "next line of code, both ends kept less head kept, points": code["ends"] - code["head"],
            "tasks on which keeping both ends is significantly worst": sum(
                worst(by) for by in scores.values()
            ),
            "best paragraph of all less best of what both ends leave, points": 100
            * (extractive["all"] - extractive["ends"]),
            "next line of code, head kept": code["head"],
            "next line of code, tail kept": code["tail"],
            "next line of code, both ends kept": code["ends"],
            "paragraph named, head kept": named["head"],
            "paragraph named, tail kept": named["tail"],
            "paragraph named, both ends kept": named["ends"],
            "items of a task": len(scores["lcc"]["ends"]),
        },
        {"extractive": extractive},
    )


def answers(ctx: Context, name: str, keep: str) -> list[float]:
    """Scores of the items of a task, in their order."""
    from unspool.evaluation.plan import RunSettings
    from unspool.evaluation.report import joined, score_one
    from unspool.evaluation.run import evaluate
    from unspool.evaluation.tasks import task as task_named

    task = task_named(f"longbench-twin/{name}")
    items = ITEMS[ctx.budget]
    folder = ctx.folder / f"run-{name}-{keep}-{items}"
    with ctx.progress(f"{name}, {keep} kept", total=items * len(LENGTHS), unit="answers") as bar:
        evaluate(
            model(ctx.budget),
            [task],
            out=folder,
            window=KEPT + 64,
            settings=RunSettings(lengths=LENGTHS, limit=items, seed=ctx.seed, keep=keep),
            progress=lambda stage, done, total: bar.update(done, total=total, stage=stage),
        )
    found = {
        (sample.level, sample.id): score_one(task.metric, sample, response)["score"]
        for _, sample, _, response in joined(folder)
        if response is not None
    }
    return [found[key] for key in sorted(found)]


def worst(by_policy: dict[str, list[float]]) -> bool:
    """Whether both others are above `ends` with intervals of the differences clear of zero."""
    from unspool.evaluation.compare import compare

    others = [compare(by_policy["ends"], by_policy[keep]) for keep in ("head", "tail")]
    return all(each.low > 0 for each in others)


def best_paragraphs(seed: int) -> dict[str, float]:
    """Share of abstracts whose paragraph is the best match, among all and among what is left."""
    import bm25s

    from unspool.evaluation.fit import cut
    from unspool.evaluation.make import ruler
    from unspool.evaluation.spec import LengthLevel
    from unspool.evaluation.tasks.longbench import TWIN_TASKS

    tokenizer = ruler("smollm2")
    hits = {"all": 0, "ends": 0}
    samples = TWIN_TASKS["passage_retrieval"].samples(
        LengthLevel("tokens", 4096),
        EXTRACTIVE,
        seed=seed,
        size=lambda text: len(tokenizer(text).input_ids),
    )
    for sample in samples:
        text = sample.parts.prefix + sample.parts.context + sample.parts.query
        left, _ = cut(tokenizer, tokenizer(text).input_ids, KEPT, "ends")
        abstract = sample.parts.query.split("The abstract:\n\n")[1].split("\n\nWhich")[0]
        for name, shown in (("all", text), ("ends", left)):
            held = re.findall(r"^Paragraph (\d+): (.*)$", shown, flags=re.M)
            if held:
                best = held[rank(bm25s, [body for _, body in held], abstract)][0]
                hits[name] += f"Paragraph {best}" == sample.references[0]
    return {name: count / EXTRACTIVE for name, count in hits.items()}


def rank(bm25s: Any, texts: Sequence[str], query: str) -> int:
    """Index of the text that matches best."""
    index = bm25s.BM25()
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    index.index(words, show_progress=False)
    scores = index.get_scores(re.findall(r"\w+", query.lower()))
    return int(scores.argmax())
