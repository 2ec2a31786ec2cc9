"""Sentence embeddings of real text, packed: as many sentences more as there is padding less.

Source: Zhai et al. (2022), "ByteTransformer", section 4: variable lengths with alpha = 0.6.
Differs from the paper: all-MiniLM-L6-v2 on a CPU in float32, on one-line descriptions and
paragraphs of manual pages; batches sorted by length stand beside it, the usual way out.
"""

from __future__ import annotations

import json
import random
import re
import statistics
import time
from collections.abc import Sequence
from typing import Any

from claims import Claim, Context, Figure, Measured

SENTENCES = 2000
BATCH = 32
ROUNDS = 3
_PIECES = 256
"""Word pieces that the model was made for; longer paragraphs are left out and counted."""
_BREAK = re.compile(r"\.(?:PP|P|LP|TP|IP|SH|SS|RS|RE|nf|fi|EX|EE|TQ|in|TS|TE)\b.*")

CLAIM = Claim(
    system="byte-transformer",
    title="Embeddings of sentences of all lengths without computing padding, on a CPU",
    required=(
        Figure("packed over padded, of 1/alpha", ">=", 0.9, "x"),
        Figure("largest difference from each sentence alone", "<=", 1e-5),
        Figure("largest difference from the padded batch", "<=", 1e-5),
        Figure("alpha", "report"),
        Figure("packed over padded", "report", unit="x"),
        Figure("packed over sorted by length", "report", unit="x"),
        Figure("padded", "report", unit="sentences/s"),
        Figure("sorted by length, padded", "report", unit="sentences/s"),
        Figure("packed", "report", unit="sentences/s"),
    ),
    setup=(
        f"all-MiniLM-L6-v2, float32; {SENTENCES:,} one-line descriptions and paragraphs of manual "
        f"pages of up to {_PIECES} word pieces, in drawn order, batches of {BATCH}, tokenised "
        f"beforehand; medians of {ROUNDS} rounds that take turns. Padded is transformers with its "
        "sdpa attention. Alpha is the share of real tokens in the padded batches."
    ),
    packages=("torch", "transformers"),
    code=("attention/padding_free", "layout.py", "_packed.py", "_dispatch.py"),
)


def run(ctx: Context, sentences: int = SENTENCES, rounds: int = ROUNDS) -> Measured:
    """Tokenise, compare the embeddings, then time the three ways in turns."""
    texts = ctx.step(
        "texts", lambda: choose(sentences, ctx.seed), inputs={"n": sentences}, prepares=True
    )
    key = {"n": sentences, "batch": BATCH}
    same = ctx.step("same", lambda: differences(ctx, texts["rows"]), inputs=key)
    times = [
        ctx.step(f"round-{i}", lambda: one_round(texts["rows"]), inputs=key) for i in range(rounds)
    ]
    middle = {name: statistics.median(t[name] for t in times) for name in times[0]}
    alpha = same["alpha"]
    gain = middle["padded"] / middle["packed"]
    figures: dict[str, float | int | None] = {
        "packed over padded, of 1/alpha": gain * alpha,
        "largest difference from each sentence alone": same["alone"],
        "largest difference from the padded batch": same["padded"],
        "alpha": alpha,
        "packed over padded": gain,
        "packed over sorted by length": middle["sorted"] / middle["packed"],
        "padded": sentences / middle["padded"],
        "sorted by length, padded": sentences / middle["sorted"],
        "packed": sentences / middle["packed"],
    }
    return Measured(figures, {"seconds": times, "texts": texts["facts"]})


# ---- texts


def choose(count: int, seed: int) -> dict[str, Any]:
    """Ids of half descriptions and half paragraphs, in drawn order."""
    from claims._minilm import _model

    tokenizer, _ = _model()
    lines, paragraphs = texts_of_pages()
    draw = random.Random(seed)
    draw.shuffle(lines)
    draw.shuffle(paragraphs)
    rows: list[list[int]] = []
    longer = 0
    for wanted, found in ((count // 2, lines), (count, paragraphs)):
        for text in found:
            if len(rows) == wanted:
                break
            ids = tokenizer(text, verbose=False).input_ids
            longer += len(ids) > _PIECES
            if len(ids) <= _PIECES:
                rows.append(ids)
    draw.shuffle(rows)
    lengths = sorted(map(len, rows))
    return {
        "rows": rows,
        "facts": {
            "sentences": len(rows),
            "left out for their length": longer,
            "tokens": sum(lengths),
            "median": lengths[len(lengths) // 2],
            "longest": lengths[-1],
        },
    }


def texts_of_pages() -> tuple[list[str], list[str]]:
    """One-line descriptions and paragraphs of manual pages, each once."""
    from claims.data import corpus_small

    lines: dict[str, None] = {}
    paragraphs: dict[str, None] = {}
    with corpus_small().open(encoding="utf-8") as file:
        for record in file:
            under = ""
            for part in _paragraphs(json.loads(record)["text"]):
                if part.startswith(".SH"):
                    under = part[3:].strip()
                elif under == "NAME" and " - " in part:
                    lines[part] = None
                elif len(part.split()) >= 5:
                    paragraphs[part] = None
    return list(lines), list(paragraphs)


def _paragraphs(roff: str) -> Sequence[str]:
    """Plain text of a page, paragraph by paragraph; headings as `.SH NAME`."""
    found: list[str] = []
    words: list[str] = []
    for line in [*roff.split("\n"), ""]:
        is_break = not line.strip() or _BREAK.match(line) is not None
        if is_break:
            if words:
                found.append(" ".join(" ".join(words).split()))
                words = []
            if line.startswith(".SH"):
                found.append(line.replace('"', ""))
        elif not line.startswith(('.\\"', "'", ".TH", ".so", ".\\}")):
            text = re.sub(r"^\.[A-Za-z]+ ?", "", line)
            text = re.sub(r"\\f(?:\[\w*\]|\(..|.)", "", text).replace("\\-", "-")
            words.append(re.sub(r"\\[&/|,e^]", "", text).replace('"', ""))
    return found


# ---- measuring


def differences(ctx: Context, rows: Sequence[Sequence[int]]) -> dict[str, float]:
    """Alpha, and how far packed embeddings are from those of each sentence alone."""
    import torch

    from claims._minilm import _model
    from unspool.extension import extend

    _, model = _model()
    padded = [embed(model, batch) for batch in batches(rows)]
    with extend(model, "padding-free") as reader:
        found = torch.cat([embed(model, batch) for batch in batches(rows)])
        alpha = reader.report().alpha
    worst = 0.0
    with ctx.progress("One by one", total=len(rows), unit="sentences") as bar:
        for i, row in enumerate(rows):
            alone = embed(model, pad([row]))
            worst = max(worst, float((found[i] - alone[0]).abs().max()))
            bar.update(i + 1)
    return {
        "alpha": alpha,
        "alone": worst,
        "padded": float((found - torch.cat(padded)).abs().max()),
    }


def one_round(rows: Sequence[Sequence[int]]) -> dict[str, float]:
    """Seconds for all rows: padded, sorted by length and padded, packed."""
    from claims._minilm import _model
    from unspool.extension import extend

    _, model = _model()
    by_length = sorted(rows, key=len)
    found = {"padded": seconds(model, batches(rows)), "sorted": seconds(model, batches(by_length))}
    with extend(model, "padding-free"):
        found["packed"] = seconds(model, batches(rows))
    return found


def seconds(model: Any, ready: Sequence[dict[str, Any]]) -> float:
    """Time to embed batches, the first of which is run once before."""
    embed(model, ready[0])
    began = time.perf_counter()
    for batch in ready:
        embed(model, batch)
    return time.perf_counter() - began


def batches(rows: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """Padded to the longest of each batch, as tokenizers do."""
    return [pad(rows[start : start + BATCH]) for start in range(0, len(rows), BATCH)]


def pad(rows: Sequence[Sequence[int]]) -> dict[str, Any]:
    """One batch: ids and mask."""
    import torch

    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), 1
    return {"input_ids": ids, "attention_mask": mask}


def embed(model: Any, batch: dict[str, Any]) -> Any:
    """[B, 384], mean over real tokens, of length 1."""
    import torch

    batch = {name: value.to(model.device) for name, value in batch.items()}
    with torch.inference_mode():
        states = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
