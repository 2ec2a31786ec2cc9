"""Drafts by look-up: the same greedy text, and how much sooner it is written.

Source: prompt look-up decoding (Saxena 2023) and REST (He et al. 2024) set the shape of the trial:
text to repeat, text of a corpus, and questions that neither helps with.
Differs from them: one small model on two cores, where a pass over several tokens costs more, beside
one over a single token, than on an accelerator.
"""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path
from typing import Any

from claims import Claim, Context, Figure, Measured, data

CLAIM = Claim(
    system="infini-gram",
    title="Drafts by look-up write the same text sooner where it repeats itself or a corpus",
    required=(
        Figure("texts that differ from plain greedy writing", "==", 0),
        Figure("speed-up, text to repeat", ">=", 1.5),
        Figure("speed-up, a corpus recited", ">=", 1.5),
        Figure("speed-up, questions", "report"),
        Figure("tokens a pass, text to repeat", "report"),
        Figure("tokens a pass, a corpus recited", "report"),
        Figure("tokens a pass, questions", "report"),
        Figure("share of guesses kept, questions", "report"),
    ),
    setup=(
        "SmolLM2-135M-Instruct in float32, greedy, at most 96 tokens, each prompt written with and "
        "without drafts in turn; 8 prompts a kind: a paragraph of the Python reference to repeat "
        "(drafts from the text), the beginning of one with the ∞-gram of an index of it mixed in "
        "at weight 0.6 (drafts from the text and the index), and questions of one line (both)."
    ),
    packages=("torch", "transformers", "tokenizers"),
    code=("backends", "index", "extension.py", "caches", "attention"),
)
PROMPTS = 8
TOKENS = 96
WEIGHT = 0.6
KINDS = ("text to repeat", "a corpus recited", "questions")
QUESTIONS = (
    "Why is the sky blue?",
    "How do I boil an egg?",
    "What is the difference between a list and a tuple?",
    "Write a short poem about the sea.",
    "Why do cats purr?",
    "Explain what a suffix array is.",
    "Name three uses of a paper clip.",
    "How does a bicycle stay upright?",
)


def run(ctx: Context) -> Measured:
    from unspool.backends.embedded import embedded_folder

    model, identity = embedded_folder()
    indexes = {
        name: ctx.step(
            f"index-{name}",
            lambda name=name: build(ctx.folder / name, model if name == "tokens" else None),
            inputs={"model": identity},
        )
        for name in ("tokens", "bytes")
    }
    loaded: list[Any] = []
    rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    with ctx.progress("writing", total=len(KINDS) * PROMPTS, unit="prompts") as bar:
        for number in range(PROMPTS):
            for kind in KINDS:
                rows[kind].append(
                    ctx.step(
                        f"{kind.replace(' ', '-')}-{number}",
                        lambda kind=kind, number=number: measure(
                            loaded, model, ctx.folder, kind, prompt(kind, number, ctx.seed)
                        ),
                        inputs={"model": identity, "tokens": TOKENS, "weight": WEIGHT},
                    )
                )
                bar.update(sum(map(len, rows.values())))
    figures: dict[str, float | int | None] = {
        "texts that differ from plain greedy writing": sum(
            not row["same"] for some in rows.values() for row in some
        )
    }
    for kind in KINDS:
        figures[f"speed-up, {kind}"] = total(rows[kind], "plain") / total(rows[kind], "drafted")
        figures[f"tokens a pass, {kind}"] = total(rows[kind], "written") / total(
            rows[kind], "passes"
        )
    guessed = total(rows["questions"], "guessed")
    figures["share of guesses kept, questions"] = total(rows["questions"], "kept") / max(1, guessed)
    return Measured(figures, {"rows": rows, "model": identity, "indexes": indexes})


def total(rows: list[dict[str, Any]], name: str) -> float:
    """The sum of one figure over the prompts of a kind."""
    return float(sum(row[name] for row in rows))


def build(folder: Path, model: Path | None) -> dict[str, Any]:
    """An index of the Python reference, of a model's tokens or of bytes."""
    import unspool

    shutil.rmtree(folder, ignore_errors=True)
    alphabet = "bytes" if model is None else f"tokenizer:{model}"
    report = unspool.build_index([data.python_reference()], folder, alphabet=alphabet)
    return {"documents": report.documents, "symbols": report.symbols}


def paragraphs(seed: int) -> list[str]:
    """Paragraphs of 400 to 700 characters, shuffled."""
    from unspool.corpus.readers import read_documents

    found = [
        " ".join(part.split())
        for document in read_documents([data.python_reference()])
        for part in document.text.split("\n\n")
        if 400 <= len(part) <= 700
    ]
    random.Random(seed).shuffle(found)
    return found


def prompt(kind: str, number: int, seed: int) -> list[dict[str, str]] | str:
    """What the model is given."""
    if kind == "questions":
        return [{"role": "user", "content": QUESTIONS[number]}]
    text = paragraphs(seed)[number]
    if kind == "text to repeat":
        return [{"role": "user", "content": f"Repeat this text word for word:\n\n{text}"}]
    return " ".join(text.split()[:16])


def measure(loaded: list[Any], model: Path, folder: Path, kind: str, asked: Any) -> dict[str, Any]:
    """One prompt, written plainly and with drafts, seconds of each."""
    import torch

    import unspool
    from unspool.backends.drafts import IndexDrafts, TextDrafts
    from unspool.backends.lookup import Lookup
    from unspool.backends.ngram import MixWeights, NgramMix
    from unspool.backends.prompts import encode_prompt

    if not loaded:
        loaded.append(unspool.load_model())
    network, tokenizer = loaded[0].model, loaded[0].tokenizer
    ids = torch.tensor([encode_prompt(tokenizer, asked)])
    options: dict[str, Any] = {
        "attention_mask": torch.ones_like(ids),
        "max_new_tokens": TOKENS,
        "do_sample": False,
    }
    drafters: list[Any] = [TextDrafts()]
    if kind == "questions":
        drafters.append(IndexDrafts(unspool.open_index(folder / "bytes"), tokenizer))
    if kind == "a corpus recited":
        index = unspool.open_index(folder / "tokens")
        weights = MixWeights(sparse=WEIGHT, other=WEIGHT)
        options["logits_processor"] = [NgramMix(index, tokenizer, weights)]
        drafters.append(IndexDrafts(index, tokenizer))
    network.generate(ids, **{**options, "max_new_tokens": 4})  # so that neither comes first
    times, texts = [], []
    for way in ("plain", "drafted"):
        lookup = Lookup(*drafters)
        more = {} if way == "plain" else {"custom_generate": lookup}
        started = time.perf_counter()
        texts.append(network.generate(ids, **options, **more)[0].tolist())
        times.append(time.perf_counter() - started)
    return {
        "same": texts[0] == texts[1],
        "plain": times[0],
        "drafted": times[1],
        "written": lookup.report.written,
        "passes": lookup.report.passes,
        "guessed": lookup.report.drafted,
        "kept": lookup.report.kept,
    }
