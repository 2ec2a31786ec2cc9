"""What the claims of kNN-LM share: texts of two kinds, one examination, and its figures."""

from __future__ import annotations

import json
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from claims import Context, Figure, data

SCALE = float(os.environ.get("UNSPOOL_CLAIM_SCALE", "1"))
"""Below 1: less of everything, to try the script out. The row says so."""
SAME, OTHER = "postgresql-doc-15", "rust-doc"
LONGEST = 4096
"""Tokens of a page that is tested or tuned on; longer ones go into the datastore."""
SHARED = 50
"""Pages to be tested on that share so many tokens in a row with the datastore are left out."""


@dataclass(frozen=True, slots=True)
class Arm:
    """How much of everything."""

    store: int
    """Tokens of the datastore; fewer if the texts have fewer."""
    other: int
    """Of the datastore of another domain."""
    test: int
    tune: int
    prefixes: int
    """Beginnings that are continued; fewer if the test text has fewer."""
    prefix: int
    new: int
    seeds: int
    index: str
    budget: int
    """Tokens the model reads at once."""
    batch: int
    """Texts that are continued at once."""


ARMS = {
    "cpu": Arm(300_000, 60_000, 30_000, 10_000, 40, 128, 128, 2, "auto", 2048, 20),
    "gpu": Arm(2_000_000, 1_000_000, 150_000, 30_000, 200, 128, 256, 5, "flat", 32_768, 200),
}
REPORTED = (
    Figure("perplexity of the model alone", "report"),
    Figure("perplexity of the mixture", "report"),
    Figure("lower end of the interval of tokens hurt", "report"),
    Figure("gains that the best tenth of the tokens holds", "report"),
    Figure("tokens that no neighbour has", "report"),
    Figure("further drop by steps of the weight", "report"),
    Figure("perplexity drop, datastore of another domain", "report"),
    Figure("tokens hurt, datastore of another domain", "report"),
    Figure("rise of entropy along human text: retrieved less model", "report",
           unit="nats per 100 tokens"),
    Figure("repeated 4-grams: mixture less model", "report"),
    Figure("words shared with the human text: mixture less model", "report"),
)  # fmt: skip
TOKENS = (
    Figure("perplexity drop", ">=", 0.05),
    Figure("lower end of its 95% interval", ">", 0.0),
    Figure("tokens hurt", ">", 0.5),
)


def drift_figures(required: bool) -> tuple[Figure, ...]:
    """The figures of generated text; only reported where there is too little of it."""
    names = (
        ("rise of entropy along the mixture's text: retrieved less model", "nats per 100 tokens"),
        ("lower end of that rise's 95% interval", "nats per 100 tokens"),
        ("MAUVE: mixture less model", ""),
        ("MAUVE: that difference less the spread of seeds", ""),
    )
    bounds: tuple[Any, ...] = (None, (">", 0.0), None, ("<=", 0.0))
    return tuple(
        Figure(name, bound[0], bound[1], unit=unit)
        if required and bound
        else Figure(name, "report", unit=unit)
        for (name, unit), bound in zip(names, bounds, strict=True)
    )


def texts_of(folder: Path, seed: int) -> dict[str, list[str]]:
    """Pages of the two domains, in a random order, kept in one file."""
    path = folder / "texts.json"
    if not path.exists():
        pages: dict[str, list[str]] = {SAME: [], OTHER: []}
        with data.corpus_distinct().open("rb") as lines:
            for line in lines:
                head = line[:120]
                if f'"{SAME}/'.encode() not in head and f'"{OTHER}/'.encode() not in head:
                    continue
                page = orjson.loads(line)
                if page["id"].endswith(".html"):
                    pages[page["id"].split("/")[0]].append(page["text"])
        for each in pages.values():
            random.Random(seed).shuffle(each)
        pages[OTHER] = pages[OTHER][:450]  # some 1.4 million tokens
        part = path.with_suffix(".part")
        part.write_text(json.dumps(pages))
        part.replace(path)
    found: dict[str, list[str]] = json.loads(path.read_text())
    return found


def split_texts(pages: list[str], tokenizer: Any, arm: Arm) -> dict[str, Any]:
    """Test, tuning and datastore out of one domain; what the datastore repeats is left out."""
    from unspool.forensics.knn_lm import encode
    from unspool.forensics.knn_lm.overlap import shared_tokens
    from unspool.forensics.knn_lm.windows import joined

    tokens = encode(tokenizer, pages)
    documents = [tokens.document(i) for i in range(len(tokens))]
    documents = [d for d in documents if len(d) >= SHARED]
    parts: dict[str, list[Any]] = {"test": [], "tune": [], "store": []}
    sizes = {"test": int(1.25 * arm.test * SCALE), "tune": int(1.25 * arm.tune * SCALE),
             "store": int(arm.store * SCALE)}  # fmt: skip
    totals = dict.fromkeys(sizes, 0)
    for document in documents:
        short = len(document) <= LONGEST
        name = next((n for n in ("test", "tune") if short and totals[n] < sizes[n]), "store")
        if totals[name] < sizes[name]:
            parts[name].append(document)
            totals[name] += len(document)
    store = np.concatenate(parts["store"])
    left_out = {}
    for name in ("test", "tune"):
        hit = shared_tokens(store, np.concatenate(parts[name]), SHARED)
        ends = np.cumsum([len(d) for d in parts[name]])[:-1]
        here = [bool(each.any()) for each in np.split(hit, ends)]
        kept = [d for d, bad in zip(parts[name], here, strict=True) if not bad]
        left_out[name] = len(parts[name]) - len(kept)
        parts[name] = kept
    return {**{n: joined(p, tokens.prefix) for n, p in parts.items()}, "left_out": left_out}


def examine(ctx: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures and facts of one arm; every part is kept, and a killed run goes on inside it."""
    from unspool import load_model
    from unspool.forensics import knn_lm

    arm = ARMS["cpu" if ctx.budget == "cpu" else "gpu"]
    loaded: Any = load_model(dtype="float32")
    pages = texts_of(ctx.data("knn-lm"), ctx.seed)
    split = split_texts(pages[SAME], loaded.tokenizer, arm)
    other = knn_lm.encode(loaded.tokenizer, pages[OTHER])
    end = int(np.searchsorted(other.offsets, int(arm.other * SCALE))) or 1
    end = min(end, len(other))
    other = type(other)(other.ids[: other.offsets[end]], other.offsets[: end + 1], other.prefix)
    work = _folder(ctx)
    stores = {"same": split["store"], "other": other}
    found: dict[str, Any] = {}
    for name, tokens in stores.items():
        found[name] = ctx.step(
            f"{name}-domain",
            lambda name=name, tokens=tokens: _tokens(ctx, loaded, arm, tokens, split, work / name),
            inputs={"scale": SCALE, "store": tokens.digest(), "test": split["test"].digest()},
        )
    texts = ctx.step(
        "generated",
        lambda: _generated(ctx, loaded, arm, split, work / "same", found["same"]),
        inputs={"scale": SCALE, "store": split["store"].digest(), "test": split["test"].digest()},
    )
    same, far = found["same"]["evaluation"], found["other"]["evaluation"]
    mixed = texts["drift"]["mix"]["difference"]
    gap, spread = texts["mauve_gap"], texts["mauve_spread"]
    figures = {
        "perplexity drop": same["drop"][0],
        "lower end of its 95% interval": same["drop"][1],
        "tokens hurt": same["share_hurt"],
        "perplexity of the model alone": same["ppl_lm"],
        "perplexity of the mixture": same["ppl_mix"],
        "lower end of the interval of tokens hurt": same["share_hurt_interval"][0],
        "gains that the best tenth of the tokens holds": same["top_decile_share"],
        "tokens that no neighbour has": same["without_neighbour"],
        "further drop by steps of the weight": 1 - found["same"]["stepped"] / same["ppl_mix"],
        "perplexity drop, datastore of another domain": far["drop"][0],
        "tokens hurt, datastore of another domain": far["share_hurt"],
        "rise of entropy along human text: retrieved less model": (
            texts["drift"]["human"]["difference"][0]
        ),
        "rise of entropy along the mixture's text: retrieved less model": mixed[0],
        "lower end of that rise's 95% interval": mixed[1],
        "MAUVE: mixture less model": gap,
        "MAUVE: that difference less the spread of seeds": (
            None if gap is None else abs(gap) - spread
        ),
        "repeated 4-grams: mixture less model": texts["gaps"]["seq-rep-4"]["mean"],
        "words shared with the human text: mixture less model": (
            texts["gaps"]["words shared with the human text"]["mean"]
        ),
    }
    facts = {
        "scale": SCALE,
        "model": loaded.name,
        "device": str(loaded.model.device),
        "left_out": split["left_out"],
        "same": found["same"],
        "other": found["other"],
        "generated": texts,
    }
    if SCALE >= 1:
        shutil.rmtree(work, ignore_errors=True)  # gigabytes that the steps have been made from
    return figures, facts


def _folder(ctx: Context) -> Path:
    """Datastores and hits of this code; those of other code are removed."""
    mark = f"work-{ctx.budget}-{SCALE:g}-{ctx._fingerprint()}"
    for old in ctx.folder.glob(f"work-{ctx.budget}-*"):
        if old.name != mark:
            shutil.rmtree(old, ignore_errors=True)
    folder = ctx.folder / mark
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _store(ctx: Context, loaded: Any, arm: Arm, tokens: Any, folder: Path) -> Any:
    from unspool.forensics import knn_lm

    settings = knn_lm.StoreSettings(index=arm.index)  # type: ignore[arg-type]  # "auto" or "flat"
    with ctx.progress("datastore", unit="keys") as bar:
        store = knn_lm.build_store(
            loaded.model, loaded.tokenizer, tokens, folder / "store", settings,
            name=loaded.name, budget=arm.budget,
            on_progress=lambda done, total, stage: bar.update(done, total=total, stage=stage),
        )  # fmt: skip
    store.prepare(device=str(loaded.model.device))
    return store


def _tokens(
    ctx: Context, loaded: Any, arm: Arm, tokens: Any, split: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Tune on one part, then measure on the other."""
    from unspool.forensics import knn_lm
    from unspool.forensics.knn_lm.analyse import evaluate_hits
    from unspool.forensics.knn_lm.tune import log_mixed, weights

    store = _store(ctx, loaded, arm, tokens, folder)
    hits = {}
    for name in ("tune", "test"):
        with ctx.progress(f"{name} text", unit="tokens") as bar:
            hits[name] = knn_lm.record_hits(
                loaded.model, store, split[name], folder / name, tokenizer=loaded.tokenizer,
                budget=arm.budget, on_progress=lambda d, t: bar.update(d, total=t),
            )  # fmt: skip
    tuned = knn_lm.tune(hits["tune"])
    stepped = knn_lm.tune(
        hits["tune"], k=[tuned.mixture.k], temperature=[tuned.mixture.temperature], buckets=8
    ).mixture
    said = hits["test"].log_retrieved(stepped.k, stepped.temperature)
    alone = np.array(hits["test"].log_lm)
    reached = float(np.exp(-log_mixed(alone, said, weights(hits["test"], stepped)).mean()))
    evaluation = evaluate_hits(
        hits["test"], store, split["test"], tuned.mixture, loaded.tokenizer, name=loaded.name,
        seed=ctx.seed,
    )  # fmt: skip
    return {
        "keys": len(store),
        "index": store.facts["index"],
        "mixture": tuned.mixture.to_json(),
        "stepped": reached,
        "steps": stepped.to_json(),
        "evaluation": evaluation.to_json(),
    }


def _generated(
    ctx: Context,
    loaded: Any,
    arm: Arm,
    split: dict[str, Any],
    folder: Path,
    found: dict[str, Any],
) -> dict[str, Any]:
    """Continuations with and without the datastore, entropies along them, MAUVE."""
    from unspool.forensics import knn_lm
    from unspool.forensics.knn_lm.analyse import end_tokens

    store = _store(ctx, loaded, arm, split["store"], folder)
    mixture = knn_lm.Mixture.from_json(found["mixture"])
    size = arm.prefix + arm.new
    there = sum(len(split["test"].document(i)) // size for i in range(len(split["test"])))
    settings = knn_lm.Continuing(
        n=min(there, max(2, int(arm.prefixes * SCALE))), prefix=arm.prefix, new=arm.new,
        seeds=arm.seeds, seed=ctx.seed,
    )  # fmt: skip
    with ctx.progress("continuations", unit="texts") as bar:
        texts = knn_lm.generate(
            loaded.model, store, split["test"], folder, mixture, settings,
            ends=end_tokens(loaded.model, loaded.tokenizer), batch=arm.batch,
            progress=lambda stage, done, total: bar.update(done, total=total, stage=stage),
        )  # fmt: skip
    judged = knn_lm.judge(
        loaded.model, loaded.tokenizer, texts, before=split["test"].prefix, seed=ctx.seed
    )
    return judged.to_json()
