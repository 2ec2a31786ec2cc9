"""Traps in a model trained here: does it give away what it read, and only that?

A small decoder is trained on documentation (the reference). It draws the pool. Then it goes on
training on other documents of the same kind in which one of each pair is planted (the target).
Pairs with 0 copies were never planted and must not be told apart. Absolute numbers of copies are
not those of the paper: a small model on few tokens memorises more than one of 1.3 billion
parameters on 3 trillion. What is comparable is the order, and the controls.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from claims import Claim, Context, Figure, Measured

METHODS = ("ratio", "loss", "min_k")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """Sizes of an arm."""

    lengths: tuple[int, ...] = (25, 100)
    repeats: tuple[int, ...] = (0, 10, 100)
    pairs: int = 60
    """Of each length; every number of copies gets a third."""
    hidden: int = 128
    layers: int = 4
    vocabulary: int = 2048
    first_tokens: int = 1_000_000
    documents: int = 120
    document_words: int = 1200
    rate: float = 1e-3
    more_rate: float = 3e-4
    batch: int = 16
    window: int = 256


ARMS = {"cpu": Arm(), "gpu": Arm(lengths=(25, 50, 100), repeats=(0, 1, 10, 100), pairs=240,
                                 hidden=512, layers=8, first_tokens=10_000_000, documents=720,
                                 document_words=4000, batch=64)}  # fmt: skip
ARMS["full"] = ARMS["gpu"]

CLAIM = Claim(
    system="copyright-traps",
    title="Traps that were read often are told from their controls, and unread ones are not",
    required=(
        Figure("AUC of pairs that were never planted", ">=", 0.38),
        Figure("the same, not above", "<=", 0.62),
        Figure("AUC of the longest traps at the most copies", ">=", 0.75),
        Figure("AUC falls when copies grow, at most", "<=", 0.05),
        Figure("AUC of the loss below that of the ratio at the most copies", ">=", 0),
        Figure("AUC of Min-K% below that of the ratio at the most copies", ">=", 0),
        Figure("p-value of all planted pairs", "<=", 0.05),
        Figure("p-value of pairs that were never planted", "report"),
        Figure("fewest pairs for a power of 0.8, longest and most copies", "report"),
        Figure("pairs", "report"),
        Figure("share of trap tokens in the target's training", "report"),
    ),
    setup=(
        "A decoder of 4 layers and 128 channels with a vocabulary of 2,048, one million tokens of "
        "the Python language reference and standard library; then one pass over 120 documents of "
        "1,200 words, of which those with traps carry one each; traps of 25 and 100 tokens, 0, 10 "
        "and 100 copies, 20 pairs a cell. The bound on unplanted pairs is two standard errors."
    ),
    packages=("torch", "transformers", "tokenizers"),
    code=(
        "forensics/traps",
        "backends/transformers.py",
        "backends/scoring.py",
        "backends/next_token.py",
    ),
)


def run(ctx: Context) -> Measured:
    """Train, draw, plant, train on, score; each step resumes."""
    return measure(ctx, ARMS[ctx.budget])


def measure(ctx: Context, arm: Arm) -> Measured:
    """All steps of an arm."""
    from unspool.forensics.traps import PoolSettings, commitment, generate, inject_corpus, score
    from unspool.forensics.traps.manifest import load, load_pool, save, save_pool

    folder = ctx.folder / "models"
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {name: getattr(arm, name) for name in arm.__slots__}
    first, rest = texts(arm)

    def train_reference() -> str:
        train(folder / "reference", None, first, arm, arm.rate, ctx.seed)
        return "reference"

    ctx.step("reference", train_reference, inputs=sizes)
    reference = wrapped(folder / "reference")

    def draw() -> dict[str, Any]:
        settings = PoolSettings(
            lengths=arm.lengths, pairs=arm.pairs, low=1, high=401, buckets=4,
            temperatures=(0.4, 0.6, 0.8, 1.0), max_draws=3_000, jaccard=0.5, seed=ctx.seed,
        )  # fmt: skip
        pool = generate(reference, settings, start="\n")
        save_pool(pool, folder / "pool.json")
        return {"pairs": len(pool.pairs), "draws": pool.draws, "missing": pool.missing}

    drawn = ctx.step("pool", draw, inputs=sizes)

    def plant() -> dict[str, Any]:
        from unspool.types import Document

        documents = [Document(f"d{i}", text) for i, text in enumerate(rest)]
        done = inject_corpus(
            documents, load_pool(folder / "pool.json"), repeats=arm.repeats, seed=ctx.seed,
            salt=f"{ctx.seed:064x}",
        )  # fmt: skip
        save(done.manifest, folder / "manifest.json")
        published = [d.text for d in done.documents]
        train(folder / "target", folder / "reference", published, arm, arm.more_rate, ctx.seed + 1)
        traps = sum(p.repeat * p.pair.length for p in done.manifest.planted)
        total = sum(len(reference.tokenizer(t).input_ids) for t in published)
        return {"commitment": commitment(done.manifest), "share": traps / total}

    planted = ctx.step("target", plant, inputs=sizes)
    manifest = load(folder / "manifest.json")
    records = ctx.step(
        "scores", lambda: score(wrapped(folder / "target"), reference, manifest), inputs=planted
    )
    return summarise(records, arm, {**drawn, **planted})


def summarise(records: list[dict[str, Any]], arm: Arm, facts: dict[str, Any]) -> Measured:
    """Figures from scores."""
    from unspool.forensics.traps import decide

    cells = {
        m: {(d.group["length"], d.group["repeat"]): d for d in decide(records, method=m)}
        for m in METHODS
    }
    never = [r for r in records if r["repeat"] == 0]
    read = [r for r in records if r["repeat"]]
    (unread,) = decide(never, by=())
    (whole,) = decide(read, by=())
    most, longest = max(arm.repeats), max(arm.lengths)
    copies = sorted(arm.repeats)
    by_copies = {d.group["repeat"]: d.auc for d in decide(records, by=("repeat",))}
    falls = [by_copies[a] - by_copies[b] for a, b in pairwise(copies)]
    top = {
        m: next(d.auc for d in decide(read, method=m, by=("repeat",)) if d.group["repeat"] == most)
        for m in METHODS
    }
    best = cells["ratio"][longest, most]
    figures = {
        "AUC of pairs that were never planted": unread.auc,
        "the same, not above": unread.auc,
        "AUC of the longest traps at the most copies": best.auc,
        "AUC falls when copies grow, at most": max(falls),
        "AUC of the loss below that of the ratio at the most copies": top["ratio"] - top["loss"],
        "AUC of Min-K% below that of the ratio at the most copies": top["ratio"] - top["min_k"],
        "p-value of all planted pairs": whole.p_value,
        "p-value of pairs that were never planted": unread.p_value,
        "fewest pairs for a power of 0.8, longest and most copies": best.smallest,
        "pairs": len(records),
        "share of trap tokens in the target's training": facts["share"],
    }
    return Measured(figures, {**facts, "cells": [d.to_json() for d in cells["ratio"].values()]})


@cache
def texts(arm: Arm) -> tuple[list[str], list[str]]:
    """Texts for the reference, and the documents to publish: other files, none in both."""
    import sysconfig

    from claims.data import python_reference

    library = Path(sysconfig.get_paths()["stdlib"])
    files = [*sorted(python_reference().rglob("*.txt")), *sorted(library.glob("*.py"))]
    words = [" ".join(path.read_text(encoding="utf-8", errors="replace").split()) for path in files]
    random.Random(0).shuffle(words)
    documents: list[str] = []
    used = 0
    for text in words:
        if len(documents) == arm.documents:
            break
        used += 1
        parts = text.split(" ")
        for start in range(0, len(parts) - arm.document_words + 1, arm.document_words):
            if len(documents) < arm.documents:
                documents.append(" ".join(parts[start : start + arm.document_words]))
    return words[used:], documents


def tokenizer_of(sample: Sequence[str], size: int) -> Any:
    """A byte-level BPE of the texts, as transformers knows one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(
        sample,
        trainers.BpeTrainer(
            vocab_size=size, show_progress=False, special_tokens=["<end>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )  # fmt: skip
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>")


def train(
    out: Path, begin: Path | None, sample: Sequence[str], arm: Arm, rate: float, seed: int
) -> None:
    """One pass over the texts, from scratch or from a saved model; saved with its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if begin is None:
        tokenizer = tokenizer_of(sample[::3], arm.vocabulary)
        model: Any = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer), hidden_size=arm.hidden, num_hidden_layers=arm.layers,
                intermediate_size=3 * arm.hidden, num_attention_heads=4, num_key_value_heads=4,
                max_position_embeddings=1024, tie_word_embeddings=True, bos_token_id=None,
                eos_token_id=tokenizer.eos_token_id,
            )
        )  # fmt: skip
    else:
        tokenizer = AutoTokenizer.from_pretrained(begin)
        model = AutoModelForCausalLM.from_pretrained(begin)
    ids = [i for text in sample for i in [*tokenizer(text).input_ids, tokenizer.eos_token_id]]
    if begin is None:
        ids = ids[: arm.first_tokens]
    rows = torch.tensor(ids[: len(ids) // arm.window * arm.window]).view(-1, arm.window)
    rows = rows[torch.randperm(len(rows))]
    steps = -(-len(rows) // arm.batch)
    model = model.to(device).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        batch = rows[step * arm.batch : (step + 1) * arm.batch].to(device)
        loss = model(batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        plan.step()
        optimiser.zero_grad(set_to_none=True)
    model.eval().cpu().save_pretrained(out)
    tokenizer.save_pretrained(out)


def wrapped(folder: Path) -> Any:
    """A saved model behind the protocol."""
    from unspool import load_model

    return load_model(str(folder))
