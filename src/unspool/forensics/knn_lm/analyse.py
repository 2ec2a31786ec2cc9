"""Is mixing in a datastore worth it? The whole examination of one model, datastore and text.

What: perplexity and tokens helped and hurt on the text; continuations of its prefixes by the model
and by the mixture; entropies along them and along what people wrote; MAUVE, overlap, repetition;
a blinded sheet for human judges; all in a folder that a killed run goes on with.
Source: Wang et al. (2023), sections 4 to 6.
Differs from the paper: the difference of MAUVE is judged against the spread between seeds; no
judges are hired.
Cost: see `hits` and `generate`; the rest is seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unspool.errors import ConfigError
from unspool.forensics.knn_lm.columns import Column, reading, writing
from unspool.forensics.knn_lm.datastore import Datastore
from unspool.forensics.knn_lm.drift import Drift, drift
from unspool.forensics.knn_lm.generate import (
    Continuing,
    Course,
    Prompts,
    continue_texts,
    cut_prompts,
    observe,
)
from unspool.forensics.knn_lm.hits import Hits, Retriever, record_hits
from unspool.forensics.knn_lm.mauve import mauve
from unspool.forensics.knn_lm.mixture import Mixture
from unspool.forensics.knn_lm.overlap import shared_tokens
from unspool.forensics.knn_lm.quality import (
    Difference,
    distinct,
    features,
    name_overlap,
    paired,
    seq_rep,
    word_overlap,
)
from unspool.forensics.knn_lm.states import fingerprint, vocabulary_size
from unspool.forensics.knn_lm.tokens import TokenSplit, split_tokens
from unspool.forensics.knn_lm.windows import Tokens

ARMS = ("lm", "mix")
SHARED = 32
"""Tokens of a run that count as standing in the datastore word for word."""
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A mixture on a text, token by token."""

    split: TokenSplit
    mixture: Mixture
    shared: float | None
    """Share of the text's tokens in runs of 32 that the datastore holds; None: not a datastore."""
    settings: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        split = self.split.to_json()
        return {
            **split,
            "shared": self.shared,
            "mixture": self.mixture.to_json(),
            "settings": self.settings,
        }


@dataclass(frozen=True, slots=True)
class Texts:
    """What was written: prefixes, people's continuations, and those of each arm and seed."""

    prompts: Prompts
    written: NDArray[np.int32]
    """[arms, seeds, n, L]"""
    human: Course
    courses: dict[str, Course]
    """For each arm [seeds · n, L]."""


@dataclass(frozen=True, slots=True)
class Generation:
    """What can be said of the continuations."""

    drift: dict[str, Drift]
    """Of the human texts and of each arm's."""
    mauve: dict[str, tuple[float, ...]]
    """Of each arm against the human texts, a value a seed; empty with fewer than 20 texts."""
    mauve_gap: float | None
    """Mean of mix less mean of lm."""
    mauve_spread: float | None
    """Largest less smallest value over seeds, of the arm where that is more."""
    quality: dict[str, dict[str, float]]
    """Means of each arm, and of the human texts where that means something."""
    gaps: dict[str, Difference]
    """mix less lm, paired by prefix, seeds averaged."""
    texts: int
    seeds: int

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "drift": {name: each.to_json() for name, each in self.drift.items()},
            "gaps": {name: each._asdict() for name, each in self.gaps.items()},
        }


def evaluate(
    model: Any,
    tokenizer: Any,
    retriever: Retriever,
    tokens: Tokens,
    out: Path,
    mixture: Mixture,
    *,
    name: str = "",
    budget: int = 2048,
    seed: int = 0,
    progress: Progress = lambda stage, done, total: None,
) -> Evaluation:
    """Perplexity, and tokens helped and hurt, on a text; `out` keeps what was retrieved."""
    hits = record_hits(
        model,
        retriever,
        tokens,
        out / "hits",
        k=mixture.k,
        tokenizer=tokenizer,
        budget=budget,
        on_progress=lambda done, total: progress("Reading the text", done, total),
    )
    return evaluate_hits(hits, retriever, tokens, mixture, tokenizer, name=name, seed=seed)


def evaluate_hits(
    hits: Hits,
    retriever: Retriever,
    tokens: Tokens,
    mixture: Mixture,
    tokenizer: Any,
    *,
    name: str = "",
    seed: int = 0,
) -> Evaluation:
    """The same on hits that were recorded before."""
    counts = shared = None
    if isinstance(retriever, Datastore):
        counts = np.bincount(retriever.values).astype(np.int64)
        shared = float(shared_tokens(retriever.values, tokens.ids, SHARED).mean())
    split = split_tokens(hits, mixture, counts, lambda i: str(tokenizer.decode([i])), seed=seed)
    settings = {
        "model": name,
        "store": retriever.identity,
        "text": tokens.digest(),
        "documents": len(tokens),
        "reading": retriever.reading.to_json(),
        "seed": seed,
    }
    return Evaluation(split, mixture, shared, settings)


def generate(
    model: Any,
    retriever: Retriever,
    tokens: Tokens,
    out: Path,
    mixture: Mixture,
    continuing: Continuing,
    *,
    ends: Sequence[int] = (),
    batch: int = 20,
    progress: Progress = lambda stage, done, total: None,
) -> Texts:
    """Continue prefixes with both arms and record entropies; goes on after a stop.

    Raises:
        ConfigError: `batch` is below 1.
        InputError: The text is too short for so many prefixes.
        RunConflict: The folder holds a run with other settings.
    """
    if batch < 1:
        raise ConfigError(f"batch must be >= 1, got {batch}.")
    prompts = cut_prompts(tokens, continuing)
    n, seeds, new = continuing.n, continuing.seeds, continuing.new
    parts = [
        (arm, seed, start, min(start + batch, n))
        for arm in ARMS
        for seed in range(seeds)
        for start in range(0, n, batch)
    ]
    total = len(ARMS) * seeds * n
    plan = {
        "kind": "continuations",
        "store": retriever.identity,
        "fingerprint": fingerprint(model),
        "text": tokens.digest(),
        "mixture": mixture.to_json(),
        "continuing": continuing.to_json(),
        "batch": batch,
        "ends": sorted(ends),
    }
    with writing(out / "texts", plan, {"written": Column("int32", new)}) as rows:
        at = 0
        for arm, seed, start, end in parts:
            at += end - start
            if rows.finished or at <= rows.done:
                continue
            progress("Writing continuations", rows.done, total)
            written = continue_texts(
                model,
                retriever if arm == "mix" else None,
                mixture,
                prompts.prefixes[start:end],
                new,
                streams=[(continuing.seed + seed, i) for i in range(start, end)],
                top_p=continuing.top_p,
                before=tokens.prefix,
                ends=ends,
            )
            rows.add(written=written)
        if not rows.finished:
            rows.finish()
    _, arrays = reading(out / "texts", "continuations")
    written = np.array(arrays["written"]).reshape(len(ARMS), seeds, n, new)
    everything = np.concatenate([prompts.human, written.reshape(-1, new)])
    prefixes = np.tile(prompts.prefixes, (1 + len(ARMS) * seeds, 1))
    columns = {name: Column("float64", new) for name in ("knn", "lm", "js")}
    with writing(out / "courses", {**plan, "kind": "courses"}, columns) as rows:
        for start in range(rows.done, len(everything), batch) if not rows.finished else []:
            progress("Measuring entropies", rows.done, len(everything))
            some = slice(start, start + batch)
            course = observe(
                model, retriever, mixture, prefixes[some], everything[some], before=tokens.prefix
            )
            rows.add(knn=course.knn, lm=course.lm, js=course.js)
        if not rows.finished:
            rows.finish()
    _, found = reading(out / "courses", "courses")
    whole = Course(*(np.array(found[name]).reshape(-1, new) for name in ("knn", "lm", "js")))
    each = seeds * n
    courses = {
        arm: Course(*(part[n + i * each : n + (i + 1) * each] for part in whole))
        for i, arm in enumerate(ARMS)
    }
    return Texts(prompts, written, Course(*(part[:n] for part in whole)), courses)


def judge(
    model: Any, tokenizer: Any, texts: Texts, *, before: Sequence[int] = (), seed: int = 0
) -> Generation:
    """Slopes, MAUVE and quality of continuations.

    Args:
        model: Whose last hidden states are the features of MAUVE.
        tokenizer: Spells the texts.
        texts: Of `generate`.
        before: Put before every text, such as a token of beginning.
        seed: Of the intervals.
    """
    _, seeds, n, _ = texts.written.shape
    owner = list(range(n)) * seeds
    drifts = {"human": drift(texts.human, seed=seed)}
    for arm in ARMS:
        drifts[arm] = drift(texts.courses[arm], owner, seed=seed)
    human = [str(tokenizer.decode(row)) for row in texts.prompts.human.tolist()]
    tables: dict[str, dict[str, NDArray[np.float64]]] = {}
    quality = {
        "human": {
            "seq-rep-4": float(np.mean([seq_rep(row) for row in texts.prompts.human])),
            "distinct-2": distinct(list(texts.prompts.human)),
        }
    }
    scores: dict[str, tuple[float, ...]] = {}
    theirs = features(model, texts.prompts.human, before) if n >= 20 else None
    for place, arm in enumerate(ARMS):
        rows = texts.written[place]
        said = [[str(tokenizer.decode(row)) for row in one.tolist()] for one in rows]
        tables[arm] = {
            "seq-rep-4": np.array([[seq_rep(row) for row in one] for one in rows]),
            "words shared with the human text": np.array(
                [[word_overlap(a, b) for a, b in zip(one, human, strict=True)] for one in said]
            ),
            "names shared with the human text": np.array(
                [[name_overlap(a, b) for a, b in zip(one, human, strict=True)] for one in said]
            ),
        }
        quality[arm] = {key: float(table.mean()) for key, table in tables[arm].items()}
        quality[arm]["distinct-2"] = float(np.mean([distinct(list(one)) for one in rows]))
        if theirs is not None:
            scores[arm] = tuple(mauve(theirs, features(model, one, before)) for one in rows)
    gaps = {
        key: paired(
            tables["lm"][key].mean(axis=0).tolist(), tables["mix"][key].mean(axis=0).tolist(), seed
        )
        for key in tables["lm"]
    }
    gap = spread = None
    if scores:
        gap = float(np.mean(scores["mix"]) - np.mean(scores["lm"]))
        spread = max(max(each) - min(each) for each in scores.values())
    return Generation(drifts, scores, gap, spread, quality, gaps, n, seeds)


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that would end a text."""
    said = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = list(said) if isinstance(said, (list, tuple)) else [said]
    size = vocabulary_size(model)
    return sorted({int(e) for e in [*ends, tokenizer.eos_token_id] if e is not None and e < size})
