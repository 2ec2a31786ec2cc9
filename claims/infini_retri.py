"""InfiniRetri: a small model keeps the sentence that answers, chunk after chunk, past its window.

Source: Ye et al. (2025), "Infinite Retrieval", section 4: needle in a haystack to 1M tokens.
Differs from the paper: SmolLM2-135M (window 8,192) on the Python reference and manual pages; a
question may be worded unlike the fact, and three distractors are worded like the question. Every
round depends on the one before, so nothing is reused between trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from claims import Claim, Context, Figure, Measured
from claims._long import CODE, PACKAGES, model, text_ids
from claims._needles import Needle, bm25, needle
from claims.ask_quality import wilson
from claims.xl3m import stock_answer, write

LENGTHS = {"32k": 32_768, "128k": 131_072}
TRIALS = {"cpu": {"32k": 6, "128k": 1}, "gpu": {"32k": 15, "128k": 5}}
DEPTHS = 5
SPEC = "infini-retri:chunk=1024,layer=auto,max_kept=1024"
LAST = "infini-retri:chunk=1024,max_kept=1024"
LAST_TRIALS = {"cpu": 1, "gpu": 15}
HUGE = 1_000_000
HUGE_DEPTHS = 3

CLAIM = Claim(
    system="infini-retri",
    title="The sentence that answers is kept at 32k and 128k tokens by a model with a window of 8k",
    required=(
        Figure("kept at 32k", ">=", 0.95),
        Figure("answered at 32k", ">=", 0.9),
        Figure("kept at 128k", ">=", 0.95),
        Figure("answered at 128k", ">=", 0.9),
        Figure("kept at 32k, last layer", "report"),
        Figure("answered at 32k from passages of BM25", "report"),
        Figure("both of two facts kept at 32k", ">=", 0.8),
        Figure("answered at 32k by the stock model", "report"),
        Figure("kept at 1M", "report"),
        Figure("layer that was found", "report"),
        Figure("tokens kept at 32k", "report"),
    ),
    setup=(
        "SmolLM2-135M-Instruct in float32; Python reference and "
        "manual pages with a planted fact at 5 depths and three distractors, 3 wordings asked. "
        "Chunks of 1,024 tokens, at most 1,024 kept, the layer found with planted facts. 6 trials "
        "at 32k and 1 at 128k on the CPU, 15 and 5 on a GPU; 1M tokens at 3 depths on a GPU only. "
        "BM25 picks sentences until as many tokens are kept."
    ),
    packages=PACKAGES,
    code=(
        *CODE,
        "corpus/split.py",
        "reading/infini_retri.py",
        "reading/retrieval_layer.py",
        "reading/sentences.py",
        "reading/reader.py",
    ),
)


def run(
    ctx: Context,
    lengths: dict[str, int] | None = None,
    trials: dict[str, int] | None = None,
) -> Measured:
    """What is kept and answered, by length."""
    lengths = lengths or LENGTHS
    arm = "cpu" if ctx.budget == "cpu" else "gpu"
    trials = trials or TRIALS[arm]
    figures: dict[str, float | None] = {}
    facts: dict[str, Any] = {}
    for name, length in lengths.items():
        found = [
            ctx.step(
                f"trial-{name}-{number}",
                lambda length=length, name=name, number=number: one(
                    ctx, length, SPEC, number, 1, with_bm25=name == "32k"
                ),
                inputs={"length": length},
            )
            for number in range(trials[name])
        ]
        for key in ("kept", "answered"):
            hits = sum(trial[key] for trial in found)
            figures[f"{key} at {name}"] = hits / len(found)
            facts[f"{key} at {name}"] = wilson(hits, len(found))
        if name == "32k":
            figures["answered at 32k from passages of BM25"] = mean(found, "bm25 answered")
            figures["tokens kept at 32k"] = mean(found, "tokens")
            figures["layer that was found"] = found[0]["layer"]
            facts["kept at 32k by BM25"] = mean(found, "bm25 kept")
    length = lengths["32k"]
    last = [
        ctx.step(f"last-{n}", lambda n=n: one(ctx, length, LAST, n, 1), inputs={"n": length})
        for n in range(LAST_TRIALS[arm])
    ]
    figures["kept at 32k, last layer"] = mean(last, "kept")
    pairs = [
        ctx.step(f"pair-{n}", lambda n=n: one(ctx, length, SPEC, n, 2), inputs={"n": length})
        for n in range(2 if arm == "cpu" else 10)
    ]
    figures["both of two facts kept at 32k"] = mean(pairs, "kept")
    figures["answered at 32k by the stock model"] = float(
        ctx.step("stock", lambda: stock_answer(ctx, length, 0), inputs={"n": length})
    )
    figures["kept at 1M"] = None
    if arm == "gpu":
        huge = [
            ctx.step(
                f"huge-{n}",
                lambda n=n: one(ctx, HUGE, SPEC, n, 1, depth=(n + 0.5) / HUGE_DEPTHS),
                inputs={"n": HUGE},
            )
            for n in range(HUGE_DEPTHS)
        ]
        figures["kept at 1M"] = mean(huge, "kept")
        facts["answered at 1M"] = mean(huge, "answered")
    return Measured(figures, facts)


def mean(rows: Sequence[dict[str, Any]], key: str) -> float:
    return sum(float(row[key]) for row in rows) / len(rows)


def one(
    ctx: Context,
    length: int,
    spec: str,
    number: int,
    count: int,
    *,
    depth: float | None = None,
    with_bm25: bool = False,
) -> dict[str, Any]:
    """One text: what is kept, and what is answered from it."""
    from unspool.extension import extend
    from unspool.reading.infini_retri import keep_sentences
    from unspool.reading.reader import Reader

    loaded = model(ctx.budget, "float32")
    where = (number % DEPTHS + 0.5) / DEPTHS if depth is None else depth
    depths = [where] if count == 1 else [where, (where + 0.37) % 1]
    text = text_ids(min(length, LENGTHS["128k"]))
    filler = [text[i % len(text)] for i in range(length)]
    trial = needle(loaded.tokenizer, filler, depths, number)
    with (
        extend(loaded.model, spec, tokenizer=loaded.tokenizer) as extension,
        ctx.progress(f"trial {number}", total=length, unit="tokens") as bar,
    ):
        reader = Reader(extension)
        layer, kept = keep_sentences(
            reader, trial.ids, trial.question, tell=lambda done, total: bar.update(done)
        )
    pieces = joined([(s.first, s.last) for s, _ in kept])
    out: dict[str, Any] = {
        "layer": layer,
        "tokens": sum(b - a for a, b in pieces),
        "kept": holds(trial, loaded.tokenizer, pieces),
        "answered": trial.answered(write(ctx, trial, pieces)),
        "read": reader.read_tokens,
    }
    if with_bm25:
        other = by_bm25(loaded.tokenizer, trial, out["tokens"])
        out["bm25 kept"] = holds(trial, loaded.tokenizer, other)
        out["bm25 answered"] = trial.answered(write(ctx, trial, other))
    return out


def holds(trial: Needle, tokenizer: Any, pieces: Sequence[tuple[int, int]]) -> bool:
    """Whether the sentence of every fact is kept: the blank lines around it need not be."""
    kept = tokenizer.decode([i for a, b in pieces for i in trial.ids[a:b]])
    return all(f"is {code}" in kept for code in trial.codes)


def joined(pieces: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Neighbours as one."""
    out: list[tuple[int, int]] = []
    for a, b in pieces:
        if out and out[-1][1] == a:
            out[-1] = (out[-1][0], b)
        else:
            out.append((a, b))
    return out


def by_bm25(tokenizer: Any, trial: Needle, budget: int) -> list[tuple[int, int]]:
    """Sentences by BM25, as many as the budget of tokens holds, in the order of the text."""
    from unspool.reading.infini_retri import sentences_of_ids

    found = sentences_of_ids(tokenizer, trial.ids, 1024)
    texts = tokenizer.batch_decode([trial.ids[s.first : s.last] for s in found])
    scores = bm25(texts, trial.question)
    taken, held = [], 0
    for number in sorted(range(len(found)), key=lambda n: -scores[n]):
        if held + found[number].tokens > max(budget, 64):
            break
        taken.append(number)
        held += found[number].tokens
    return joined([(found[n].first, found[n].last) for n in sorted(taken)])
