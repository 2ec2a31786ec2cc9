"""∞-gram language modelling: accuracy by effective n, and what it adds to a small neural model.

Source: Liu et al. (2024), "Infini-gram", sections 4 and 5, at the scale of two processor cores.
Differs from the paper: 200 MB of documentation for trillions of tokens, SmolLM2-135M-Instruct for
Llama-2; the text to predict comes from whole packages that are not indexed, less every document
that shares 50 tokens in a row with the index; the weights are fitted on documents of their own.
"""

from __future__ import annotations

import math
import os
import random
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from claims import Claim, Context, Figure, Measured, data
from claims._ngram_lm import Estimates, bootstrap, by_length, estimates, fit, mix

CLAIM = Claim(
    system="infini-gram",
    title="The ∞-gram estimate is right where its context is long, and lowers perplexity",
    required=(
        Figure("accuracy at effective n of 16 and more", ">=", 0.75),
        Figure("drops of accuracy as effective n grows", "==", 0),
        Figure("accuracy over that of 5-grams", ">=", 0.0),
        Figure("perplexity drop by the ∞-gram mixture", ">=", 0.15),
        Figure("lower end of its 95% interval", ">", 0.0),
        Figure("drop over that of the 5-gram mixture", ">", 0.0),
        Figure("perplexity, neural model alone", "report"),
        Figure("perplexity, ∞-gram mixture", "report"),
        Figure("perplexity, 5-gram mixture", "report"),
        Figure("accuracy of ∞-grams", "report"),
        Figure("accuracy of 5-grams", "report"),
    ),
    setup=(
        "Tier sa over 200 MB of deduplicated documentation, SmolLM2 tokens (16 bits); 50,000 "
        "tokens from packages that are not indexed, documents that share 50 tokens in a row with "
        "the index left out; two weights fitted on other documents; intervals by drawing "
        "documents anew."
    ),
    packages=("torch", "transformers", "tokenizers"),
)
HELD_OUT = (
    "git-doc",
    "perl-doc",
    "cmake-doc",
    "python-django-doc",
    "libeigen3-doc",
    "libcommons-lang3-java-doc",
    "libcommons-io-java-doc",
    "junit4-doc",
    "libservlet-api-java-doc",
    "ant-doc",
)
"""Packages of the kinds that are indexed (manuals, Sphinx, Doxygen, Javadoc), of other software."""
SCALE = float(os.environ.get("UNSPOOL_CLAIM_SCALE", "1"))
"""Below 1: less text and fewer tokens, to try the script out. The row says so."""
SIZE = 512
TOKENS = int(50_000 * SCALE)
TUNING = int(12_000 * SCALE)
SHARED = 50
EDGES = (1, 2, 3, 4, 5, 6, 8, 11, 16)
INDEX_BYTES = int(200_000_000 * SCALE)


def run(ctx: Context) -> Measured:
    from unspool.backends.embedded import embedded_folder

    model, identity = embedded_folder()
    index = ctx.folder / f"index-{INDEX_BYTES}"
    built = ctx.step("index", lambda: build(index, model), inputs={"bytes": INDEX_BYTES})
    made = ctx.step(
        "windows",
        lambda: cut(index, model, ctx.seed),
        inputs={"packages": HELD_OUT, "size": SIZE, "tokens": TOKENS},
    )
    texts, tuning = made["windows"], made["tuning"]
    neural = np.exp(np.array(prefill(ctx, model, identity, texts)))
    grams = {
        name: _estimates(
            ctx.step(
                name,
                lambda order=order: ngram(index, texts, order),
                inputs={"index": INDEX_BYTES, "tokens": TOKENS},
            )
        )
        for name, order in (("infinity", None), ("five", 5))
    }
    owner = np.repeat(np.arange(len(texts)), [len(t) - 1 for t in texts])
    held = np.isin(owner, tuning)
    alone = -np.log(neural[~held])
    found: dict[str, Any] = {"perplexity": {"neural": math.exp(alone.mean())}, "weights": {}}
    drops = {}
    for name, gram in grams.items():
        weights = fit(_part(gram, held), neural[held])
        losses = -np.log(mix(_part(gram, ~held), neural[~held], weights))
        drops[name] = bootstrap(alone, losses, owner[~held], ctx.seed)
        found["perplexity"][name] = math.exp(losses.mean())
        found["weights"][name] = {"sparse": weights[0], "other": weights[1]}
    test = _part(grams["infinity"], ~held)
    curve = by_length(test, EDGES)
    rising = [row["accuracy"] for row in curve if row["tokens"] >= 100]
    accuracy = {name: float(_part(g, ~held).best.mean()) for name, g in grams.items()}
    generated = ctx.step(
        "generated",
        lambda: agreement(index, model, texts, ctx.seed),
        inputs={"index": INDEX_BYTES, "tokens": TOKENS},
    )
    long = test.length + 1 >= EDGES[-1]
    return Measured(
        {
            "accuracy at effective n of 16 and more": float(test.best[long].mean()),
            "drops of accuracy as effective n grows": sum(b < a for a, b in pairwise(rising)),
            "accuracy over that of 5-grams": accuracy["infinity"] - accuracy["five"],
            "perplexity drop by the ∞-gram mixture": drops["infinity"][0],
            "lower end of its 95% interval": drops["infinity"][1],
            "drop over that of the 5-gram mixture": drops["infinity"][0] - drops["five"][0],
            "perplexity, neural model alone": found["perplexity"]["neural"],
            "perplexity, ∞-gram mixture": found["perplexity"]["infinity"],
            "perplexity, 5-gram mixture": found["perplexity"]["five"],
            "accuracy of ∞-grams": accuracy["infinity"],
            "accuracy of 5-grams": accuracy["five"],
        },
        facts={
            "scale": SCALE,
            "index": built,
            "model": identity,
            "documents": made["documents"],
            "left_out": made["left_out"],
            "tokens": int((~held).sum()),
            "tuning_tokens": int(held.sum()),
            "weights": found["weights"],
            "intervals": drops,
            "accuracy_by_n": curve,
            "agreement_of_generated_text": generated,
        },
    )


def build(index: Path, model: Path) -> dict[str, Any]:
    """The token index over the first INDEX_BYTES of the deduplicated corpus."""
    import unspool

    shutil.rmtree(index, ignore_errors=True)  # of other code: the step is run again only then
    source = index.parent / f"distinct-{INDEX_BYTES}.jsonl"
    if not source.exists():
        index.parent.mkdir(parents=True, exist_ok=True)
        part = source.with_suffix(".part")
        with open(data.corpus_distinct(), "rb") as lines, open(part, "wb") as out:
            for line in lines:
                if out.tell() >= INDEX_BYTES * 1.1:  # JSON adds about a tenth
                    break
                out.write(line)
        part.rename(source)
    alphabet = f"tokenizer:{model}"
    report = unspool.build_index([source], index, tier="sa", alphabet=alphabet, memory="4GiB")
    return {key: getattr(report, key) for key in ("documents", "symbols", "bytes_text")}


def native(index: Path) -> Any:
    """The engine under the open index: it answers in arrays of token ids."""
    import unspool

    return unspool.open_index(index)._native


def held_out(model: Path, seed: int) -> Iterator[list[int]]:
    """Tokens of pages of packages that are not indexed: a page of each package in turn."""
    from tokenizers import Tokenizer

    from unspool.corpus.readers import read_documents

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    packages = []
    for folder in data.debian_text(*HELD_OUT):
        found = read_documents(folder, include=["*.html", "*.pod"], encoding_errors="replace")
        pages = [page.text[:40_000] for page in found if len(page.text) >= 2000]
        random.Random(seed).shuffle(pages)
        packages.append(iter(pages))
    while packages:
        for pages in list(packages):
            text = next(pages, None)
            if text is None:
                packages.remove(pages)
            else:
                yield tokenizer.encode(text, add_special_tokens=False).ids


def cut(index: Path, model: Path, seed: int) -> dict[str, Any]:
    """Windows to predict, and which of them the weights are fitted on: whole documents each."""
    ix = native(index)
    rng = random.Random(seed)
    chosen: list[list[int]] = []
    left_out = total = 0
    for ids in held_out(model, seed):
        lengths, _ = ix.longest_matches(np.asarray(ids, dtype=np.uint32))
        if lengths.max(initial=0) >= SHARED:
            left_out += 1
            continue
        start = rng.randrange(max(1, len(ids) - SIZE + 1))
        chosen.append(ids[start : start + SIZE])
        total += len(chosen[-1]) - 1
        if total >= TOKENS + TUNING:
            break
    rng.shuffle(chosen)
    first_test = total = 0
    while total < TUNING:
        total += len(chosen[first_test]) - 1
        first_test += 1
    return {
        "windows": chosen,
        "tuning": list(range(first_test)),
        "documents": len(chosen),
        "left_out": left_out,
    }


def prefill(ctx: Context, model: Path, identity: str, texts: list[list[int]]) -> list[float]:
    """Log-probability (nats) that the neural model gives every token but the first of each text.

    Kept in pieces of sixteen texts, so that a killed run loses at most one.
    """
    loaded: list[Any] = []

    def score(some: list[list[int]]) -> list[float]:
        import torch
        from transformers import AutoModelForCausalLM

        if not loaded:
            loaded.append(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval())
        found: list[float] = []
        for ids in some:
            row = torch.tensor([ids])
            with torch.inference_mode():
                logits = loaded[0](row).logits[0, :-1]
                chosen = logits.gather(1, row[0, 1:, None])[:, 0] - logits.logsumexp(1)
            found += chosen.tolist()
        return found

    found: list[float] = []
    with ctx.progress("neural model", total=len(texts), unit="texts") as bar:
        for at in range(0, len(texts), 16):
            some = texts[at : at + 16]
            found += ctx.step(
                f"prefill-{at // 16}",
                lambda some=some: score(some),
                inputs={"model": identity, "texts": some},
                prepares=True,
            )
            bar.update(at + len(some))
    return found


def ngram(index: Path, texts: list[list[int]], order: int | None) -> dict[str, list[Any]]:
    gram = estimates(native(index), texts, order)
    return {
        "prob": gram.prob.tolist(),
        "sparse": gram.sparse.astype(int).tolist(),
        "length": gram.length.tolist(),
    }


def _estimates(kept: dict[str, list[Any]]) -> Estimates:
    prob = np.array(kept["prob"])
    return Estimates(prob, prob > 0.5, np.array(kept["sparse"]) == 1, np.array(kept["length"]))


def _part(gram: Estimates, chosen: Any) -> Estimates:
    return Estimates(gram.prob[chosen], gram.best[chosen], gram.sparse[chosen], gram.length[chosen])


def agreement(
    index: Path, model: Path, texts: list[list[int]], seed: int, prompts: int = 12
) -> dict[str, Any]:
    """How often ∞-grams agree with text that the model wrote, by effective n (section 4 there)."""
    import torch
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    starts = torch.tensor([ids[:64] for ids in texts if len(ids) >= 64][:prompts])
    ways: dict[str, dict[str, Any]] = {
        "greedy": {"do_sample": False},
        "temperature 1": {"do_sample": True, "temperature": 1.0, "top_k": 0},
        "top-p 0.9": {"do_sample": True, "top_p": 0.9, "top_k": 0},
    }
    found = {}
    for name, way in ways.items():
        torch.manual_seed(seed)
        with torch.inference_mode():
            written = network.generate(
                starts,
                attention_mask=torch.ones_like(starts),
                min_new_tokens=96,
                max_new_tokens=96,
                pad_token_id=0,
                **way,
            )
        gram = estimates(native(index), written.tolist(), None)
        owned = np.tile(np.arange(1, written.shape[1]) >= starts.shape[1], len(written))
        found[name] = by_length(_part(gram, owned), EDGES)
    return found
