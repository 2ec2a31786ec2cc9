"""XL3M: the segments that make a small model certain hold the answer, far past its window.

Source: Wang et al. (2024), "XL3M", abstract and section 4: 20M tokens, needles, without training.
Differs from the paper: SmolLM2-135M (window 8,192). Facts replace tokens of the filler, so segments
that a fact does not touch have the same score in all trials of a question; it is computed once, and
one trial is computed without reuse to show that the numbers are the same.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from claims import Claim, Context, Figure, Measured, _minilm
from claims._long import CODE, PACKAGES, model, text_ids
from claims._needles import Needle, bm25, needle, question_of
from claims.ask_quality import wilson

LENGTHS = {"32k": 32_768, "128k": 131_072}
DEPTHS = 10
QUESTIONS = {"cpu": 2, "gpu": 3}
SELECTORS = ("entropy-mean", "entropy-last", "nll")
KEEP = 4
SEGMENT, OVERLAP = 512, 64
HUGE = 20_000_000
BLOCK = 500_000
STOCK = {"cpu": 1, "gpu": 10}

CLAIM = Claim(
    system="xl3m",
    title="Facts at 32k and 128k tokens are found and answered by a model with a window of 8k",
    required=(
        Figure("kept at 32k", ">=", 0.95),
        Figure("answered at 32k", ">=", 0.9),
        Figure("kept at 128k", ">=", 0.95),
        Figure("answered at 128k", ">=", 0.9),
        Figure("kept at 128k by entropy-last", "report"),
        Figure("kept at 128k by nll", "report"),
        Figure("kept at 128k by BM25", "report"),
        Figure("kept at 128k by MiniLM", "report"),
        Figure("answered at 32k from passages of BM25", "report"),
        Figure("both of two facts kept at 32k", ">=", 0.8),
        Figure("answered at 32k by the stock model", "report"),
        Figure("largest difference of a score without reuse", "<=", 1e-3, unit="nats"),
        Figure("kept of 3 facts in 20M tokens", "report"),
        Figure("tokens scored a second", "report"),
    ),
    setup=(
        "SmolLM2-135M-Instruct in float32, 20M tokens in bfloat16; Python reference and "
        "manual pages with one planted fact at 10 depths and three distractors; 2 questions on the "
        "CPU, 3 on a GPU, worded like the fact or only naming its subject. Segments of 512 tokens, "
        "64 shared, 4 kept by every selector; MiniLM (all-MiniLM-L6-v2) only where its package is "
        "installed. 20M tokens (the text repeated) on a GPU only."
    ),
    packages=PACKAGES,
    code=(*CODE, "reading/xl3m.py", "reading/reader.py", "reading/answering.py"),
)

Scores = dict[str, list[float]]


def run(ctx: Context, lengths: dict[str, int] | None = None, depths: int = DEPTHS) -> Measured:
    """Selection and answers by length and selector."""
    lengths = lengths or LENGTHS
    seeds = range(QUESTIONS[ctx.budget if ctx.budget == "cpu" else "gpu"])
    figures: dict[str, float | None] = {}
    facts: dict[str, Any] = {}
    rate: list[float] = []
    shortest = min(lengths, key=lambda name: lengths[name])
    for name, length in lengths.items():
        kept: dict[str, list[bool]] = {s: [] for s in (*SELECTORS, "BM25")}
        answered: dict[str, list[bool]] = {"entropy-mean": [], "BM25": []}
        for seed in seeds:
            base = ctx.step(
                f"filler-{name}-{seed}",
                lambda length=length, seed=seed: filler_scores(ctx, length, seed, 1),
                inputs={"length": length},
            )
            rate.append(base["rate"])
            for number in range(depths):
                trial = ctx.step(
                    f"trial-{name}-{seed}-{number}",
                    lambda length=length, seed=seed, number=number, base=base: one(
                        ctx, length, seed, [(number + 0.5) / depths], base["scores"],
                        answers=("entropy-mean", "BM25") if length == lengths[shortest]
                        else ("entropy-mean",),
                    ),
                    inputs={"length": length, "depths": depths},
                )  # fmt: skip
                for selector, hit in trial["kept"].items():
                    kept[selector].append(hit)
                if _minilm.present():
                    kept.setdefault("MiniLM", []).append(
                        ctx.step(
                            f"minilm-{name}-{seed}-{number}",
                            lambda length=length, seed=seed, number=number: kept_by_minilm(
                                ctx, length, seed, (number + 0.5) / depths
                            ),
                            inputs={"length": length, "depths": depths},
                        )
                    )
                for selector, hit in trial["answered"].items():
                    answered[selector].append(hit)
        for selector, hits in kept.items():
            by = "" if selector == "entropy-mean" else f" by {selector}"
            figures[f"kept at {name}{by}"] = sum(hits) / len(hits)
            facts[f"kept at {name}{by}"] = wilson(sum(hits), len(hits))
        for selector, hits in answered.items():
            if hits:
                by = "" if selector == "entropy-mean" else f" from passages of {selector}"
                figures[f"answered at {name}{by}"] = sum(hits) / len(hits)
                facts[f"answered at {name}{by}"] = wilson(sum(hits), len(hits))
    length = lengths[shortest]
    pair = ctx.step("pair-filler", lambda: filler_scores(ctx, length, 0, 2), inputs={"n": length})
    both = [
        ctx.step(
            f"pair-{number}",
            lambda number=number: one(
                ctx, length, 0, [(number + 0.5) / depths, (number * 7 % depths + 0.2) / depths],
                pair["scores"], answers=("entropy-mean",),
            ),
            inputs={"n": length, "depths": depths},
        )
        for number in range(depths)
    ]  # fmt: skip
    figures["both of two facts kept at 32k"] = sum(t["kept"]["entropy-mean"] for t in both) / depths
    facts["both of two answered"] = sum(t["answered"]["entropy-mean"] for t in both) / depths
    figures["largest difference of a score without reuse"] = ctx.step(
        "no-reuse", lambda: difference(ctx, length), inputs={"n": length}
    )
    stock = [
        ctx.step(f"stock-{n}", lambda n=n: stock_answer(ctx, length, n), inputs={"n": length})
        for n in range(STOCK["cpu" if ctx.budget == "cpu" else "gpu"])
    ]
    figures["answered at 32k by the stock model"] = sum(stock) / len(stock)
    figures["tokens scored a second"] = sum(rate) / len(rate)
    figures.setdefault("kept at 128k by MiniLM", None)
    figures["kept of 3 facts in 20M tokens"] = None
    if ctx.budget != "cpu":
        figures["kept of 3 facts in 20M tokens"], facts["20M"] = huge(ctx)
    wanted = {figure.name for figure in CLAIM.required}
    return Measured({n: v for n, v in figures.items() if n in wanted}, {**facts, "all": figures})


def _model(ctx: Context, dtype: str = "float32") -> Any:
    return model(ctx.budget, dtype)


def parts(ctx: Context, question: str) -> tuple[list[int], list[int]]:
    """Head and tail of the prompt of a question."""
    from unspool.reading.reader import begins, encode, frame

    tokenizer = _model(ctx).tokenizer
    before, after = frame(tokenizer, question)
    return begins(tokenizer, encode(tokenizer, before)), encode(tokenizer, after)


def score(
    ctx: Context, segments: Sequence[list[int]], question: str, dtype: str = "float32"
) -> Scores:
    """Every kind of score of some segments, from one pass each."""
    from unspool.extension import extend
    from unspool.reading.reader import Reader
    from unspool.reading.xl3m import uncertainty

    loaded = _model(ctx, dtype)
    head, tail = parts(ctx, question)
    out: Scores = {name: [] for name in SELECTORS}
    size = 4 if ctx.budget == "cpu" else 96
    with (
        extend(loaded.model, "xl3m", tokenizer=loaded.tokenizer) as extension,
        ctx.progress("segments", total=len(segments), unit="segments") as bar,
    ):
        reader = Reader(extension)
        for start in range(0, len(segments), size):
            batch = [[*head, *segment, *tail] for segment in segments[start : start + size]]
            logits = reader.logits(batch, len(tail) + 1)
            for name in SELECTORS:
                seen = logits if name == "nll" else logits[:, 1:]
                out[name] += [round(x, 6) for x in uncertainty(seen, name, tail).tolist()]
            bar.update(start + len(batch))
    return out


def segments_of(ids: Sequence[int]) -> tuple[list[tuple[int, int]], list[list[int]]]:
    from unspool.reading.xl3m import cut

    places = cut(len(ids), SEGMENT, OVERLAP)
    return places, [list(ids[a:b]) for a, b in places]


def filler_scores(ctx: Context, length: int, seed: int, facts: int) -> dict[str, Any]:
    """Scores of all segments of a text without facts."""
    plain = needle(_model(ctx).tokenizer, text_ids(length), [], seed)
    _, segments = segments_of(plain.ids)
    began = time.perf_counter()
    found = score(ctx, segments, question_of(seed, facts))
    return {"scores": found, "rate": length / (time.perf_counter() - began)}


def one(
    ctx: Context,
    length: int,
    seed: int,
    depths: list[float],
    base: Scores,
    answers: tuple[str, ...],
) -> dict[str, dict[str, bool]]:
    """What each selector keeps of one text, and what is answered from it."""
    loaded = _model(ctx)
    plain = needle(loaded.tokenizer, text_ids(length), [], seed).ids
    trial = needle(loaded.tokenizer, text_ids(length), depths, seed)
    places, segments = segments_of(trial.ids)
    touched = [n for n, (a, b) in enumerate(places) if plain[a:b] != segments[n]]
    again = score(ctx, [segments[n] for n in touched], trial.question)
    kept: dict[str, bool] = {}
    answered: dict[str, bool] = {}
    for name in (*SELECTORS, "BM25"):
        if name == "BM25":
            texts = loaded.tokenizer.batch_decode(segments)
            values = [-x for x in bm25(texts, trial.question)]
        else:
            values = list(base[name])
            for number, value in zip(touched, again[name], strict=True):
                values[number] = value
        pieces = best(places, values)
        kept[name] = trial.kept(pieces)
        if name in answers:
            answered[name] = trial.answered(write(ctx, trial, pieces))
    return {"kept": kept, "answered": answered}


def kept_by_minilm(ctx: Context, length: int, seed: int, depth: float) -> bool:
    """Whether a fact lies in the segments whose embeddings are nearest to the question's."""
    tokenizer = _model(ctx).tokenizer
    plain = needle(tokenizer, text_ids(length), [], seed)
    trial = needle(tokenizer, text_ids(length), [depth], seed)
    places, segments = segments_of(trial.ids)
    _, before = segments_of(plain.ids)
    values: list[float] = list(
        ctx.step(
            f"minilm-filler-{length}-{seed}",
            lambda: _minilm.similarities(tokenizer.batch_decode(before), question_of(seed)),
            inputs={"length": length},
        )
    )
    touched = [n for n, (ours, theirs) in enumerate(zip(segments, before, strict=True))
               if ours != theirs]  # fmt: skip
    texts = tokenizer.batch_decode([segments[n] for n in touched])
    for number, value in zip(touched, _minilm.similarities(texts, trial.question), strict=True):
        values[number] = value
    return trial.kept(best(places, [-value for value in values]))


def best(places: Sequence[tuple[int, int]], values: Sequence[float]) -> list[tuple[int, int]]:
    from unspool.reading.xl3m import Segment, choose, merged

    found = [Segment(a, b, v) for (a, b), v in zip(places, values, strict=True)]
    return [(s.start, s.end) for s in merged(choose(found, KEEP, ends=False))]


def write(ctx: Context, trial: Needle, pieces: Sequence[tuple[int, int]]) -> str:
    """The model's answer from some pieces of the text."""
    import torch

    from unspool.extension import extend

    loaded = _model(ctx)
    head, tail = parts(ctx, trial.question)
    ids = [*head, *(i for a, b in pieces for i in trial.ids[a:b]), *tail]
    with extend(loaded.model, "dense", tokenizer=loaded.tokenizer) as extension:
        prompt = torch.tensor([ids], device=loaded.model.device)
        out = extension.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=16 * len(trial.codes),
            do_sample=False,
        )
    return str(loaded.tokenizer.decode(out[0, len(ids) :]))


def difference(ctx: Context, length: int) -> float:
    """The largest difference between scores with and without reuse, in one trial."""
    loaded = _model(ctx)
    plain = needle(loaded.tokenizer, text_ids(length), [], 0).ids
    trial = needle(loaded.tokenizer, text_ids(length), [0.35], 0)
    places, segments = segments_of(trial.ids)
    base = ctx.step(
        "filler-32k-0", lambda: filler_scores(ctx, length, 0, 1), inputs={"length": length}
    )["scores"]["entropy-mean"]
    whole = score(ctx, segments, trial.question)["entropy-mean"]
    same = [n for n, (a, b) in enumerate(places) if plain[a:b] == segments[n]]
    return max(abs(whole[n] - base[n]) for n in same)


def stock_answer(ctx: Context, length: int, number: int) -> bool:
    """Whether the untouched model answers when it reads everything."""
    import torch

    loaded = _model(ctx)
    trial = needle(loaded.tokenizer, text_ids(length), [(number % DEPTHS + 0.5) / DEPTHS], number)
    head, tail = parts(ctx, trial.question)
    ids = torch.tensor([[*head, *trial.ids, *tail]], device=loaded.model.device)
    with torch.inference_mode():
        out = loaded.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=16,
            do_sample=False,
            prefill_chunk_size=1024,
        )
    return trial.answered(str(loaded.tokenizer.decode(out[0, ids.shape[1] :])))


def huge(ctx: Context) -> tuple[float, dict[str, float]]:
    """Share of three facts in 20M tokens that are kept, every segment really scored."""
    loaded = _model(ctx)
    text = text_ids(LENGTHS["128k"])
    filler = [text[i % len(text)] for i in range(HUGE)]
    depths = [0.07, 0.5, 0.93]
    hits, seconds = 0, 0.0
    trial = needle(loaded.tokenizer, filler, depths, 0)
    question = trial.question
    places, segments = segments_of(trial.ids)
    values: list[float] = []
    block = BLOCK // (SEGMENT - OVERLAP)
    for start in range(0, len(segments), block):
        found = ctx.step(
            f"huge-{start}",
            lambda start=start: timed(ctx, segments[start : start + block], question),
            inputs={"length": HUGE},
        )
        values += found["scores"]
        seconds += found["seconds"]
    pieces = best(places, values)
    for place in trial.places:
        hits += any(a <= place[0] and place[1] <= b for a, b in pieces)
    return hits / len(depths), {"seconds": seconds, "tokens a second": HUGE / seconds}


def timed(ctx: Context, segments: Sequence[list[int]], question: str) -> dict[str, Any]:
    began = time.perf_counter()
    found = score(ctx, segments, question, "bfloat16")["entropy-mean"]
    return {"scores": found, "seconds": time.perf_counter() - began}
