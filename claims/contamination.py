"""Contamination that was planted is found, all of it and nothing else; and what an edit hides.

Source: "Infini-gram mini" (arXiv 2506.12229), section 5, whose figures are of web crawls and
benchmarks that cannot be had here; so the truth is made: entries of random words, of which a known
share of windows is put into a corpus of documentation, each window as a line of its own. A second
set is copied whole, with a character changed every so many.
"""

from __future__ import annotations

import os
import random
import string
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from claims import Claim, Context, Figure, Measured, data

SCALE = float(os.environ.get("UNSPOOL_CLAIM_SCALE", "1"))
"""Below 1: less text, to try the script out. The row says so."""
TEXT_BYTES = int(200_000_000 * SCALE)
ENTRIES = 500
SHARES = tuple(n / 10 for n in range(11))
EVERY = (25, 50, 100, 200, 400)
"""Characters from one change to the next in the edited copies."""
EDITED = 40
"""Edited entries for each distance."""
WORDS = 60
WINDOW = 50

CLAIM = Claim(
    system="infini-gram-mini",
    title="Planted contamination is found to the window, and nothing else",
    required=(
        Figure("entries whose share differs from the planted one", "==", 0),
        Figure("planted windows missed", "==", 0),
        Figure("windows found that were not planted", "==", 0),
        Figure("precision of dirty", ">=", 1.0),
        Figure("recall of dirty", ">=", 1.0),
        Figure("precision of suspicious", ">=", 1.0),
        Figure("recall of suspicious", ">=", 1.0),
        Figure("places reported that do not hold the span", "==", 0),
        Figure("places checked", "report"),
        Figure("seconds for 1,000 entries", "<=", 10, "s"),
        Figure("share found with an edit every 100 characters", "report"),
    ),
    setup=(
        "500 entries of 60 random words, 0 to 100% of their 50-character windows planted one a "
        "line in 200 MB of documentation (tier fm); 200 more copied with one character changed "
        "every 25 to 400; default bounds 0.8 and 0.2."
    ),
    code=("forensics", "index"),
)


def run(ctx: Context) -> Measured:
    """Make the entries, build the index, check, and compare with what was planted."""
    import unspool
    from unspool.forensics.benchmark_files import benchmark
    from unspool.forensics.contamination_run import contamination

    made = make(ctx.seed)
    folder = ctx.folder / f"index-{TEXT_BYTES}"
    ctx.step(
        "index", lambda: build(folder, made["lines"], made["copies"]), inputs={"bytes": TEXT_BYTES}
    )

    def check() -> dict[str, Any]:
        records = [{"id": n, "text": t} for n, t in enumerate(made["texts"] + made["edited"])]
        started = time.perf_counter()
        found = contamination([benchmark("planted", records)], folder)
        seconds = time.perf_counter() - started
        rows = [
            {"eta": row["eta"], "label": row["label"], "windows": row["windows"],
             "hits": row["hits"], "examples": row["examples"]}
            for row in found.entries
        ]  # fmt: skip
        return {"rows": rows, "seconds": seconds * 1000 / len(records)}

    checked = ctx.step("check", check, inputs={"bytes": TEXT_BYTES, "entries": ENTRIES})
    rows = checked["rows"][:ENTRIES]
    index = unspool.open_index(folder)
    wrong = places = 0
    for row, text in zip(checked["rows"], made["texts"] + made["edited"], strict=True):
        for shown in row["examples"]:
            held = index.extract(shown["document"], shown["start"], shown["end"]).decode()
            wrong += held != shown["text"] or held not in text
            places += 1
    index.close()
    planted = made["planted"]
    figures: dict[str, float | int | None] = {
        "entries whose share differs from the planted one": sum(
            row["hits"] != n for row, n in zip(rows, planted, strict=True)
        ),
        "planted windows missed": sum(
            max(0, n - row["hits"]) for row, n in zip(rows, planted, strict=True)
        ),
        "windows found that were not planted": sum(
            max(0, row["hits"] - n) for row, n in zip(rows, planted, strict=True)
        ),
        "places reported that do not hold the span": wrong,
        "places checked": places,
        "seconds for 1,000 entries": checked["seconds"],
    }
    truth = [label_of(n / row["windows"]) for n, row in zip(planted, rows, strict=True)]
    for label in ("dirty", "suspicious"):
        called = [row["label"] == label for row in rows]
        right = sum(c and t == label for c, t in zip(called, truth, strict=True))
        figures[f"precision of {label}"] = right / sum(called) if any(called) else None
        figures[f"recall of {label}"] = right / truth.count(label)
    edited = {
        every: [row["eta"] for row in checked["rows"][ENTRIES + k * EDITED :][:EDITED]]
        for k, every in enumerate(EVERY)
    }
    figures["share found with an edit every 100 characters"] = sum(edited[100]) / EDITED
    return Measured(figures, facts=facts(rows, made["shares"], truth, edited))


def facts(
    rows: list[dict[str, Any]], shares: list[float], truth: list[str], edited: dict[int, Any]
) -> dict[str, Any]:
    """A line a planted share, and the mean share found for each distance of edits."""
    table = []
    for share in SHARES:
        own = [(r, t) for r, s, t in zip(rows, shares, truth, strict=True) if s == share]
        table.append(
            {
                "planted": share,
                "entries": len(own),
                "mean_eta": sum(r["eta"] for r, _ in own) / len(own),
                "labelled_right": sum(r["label"] == t for r, t in own),
                "dirty": sum(r["label"] == "dirty" for r, _ in own),
                "suspicious": sum(r["label"] == "suspicious" for r, _ in own),
            }
        )
    curve = {str(every): sum(etas) / len(etas) for every, etas in edited.items()}
    return {"scale": SCALE, "shares": table, "mean_eta_by_edit_distance": curve}


def label_of(share: float) -> str:
    """The method's words for a share, written out anew."""
    if share >= 0.8:
        return "dirty"
    return "suspicious" if share > 0.2 else "clean"


def make(seed: int) -> dict[str, Any]:
    """Entries, the windows planted of each, and copies with edits."""
    rng = random.Random(seed)
    texts, planted, shares, lines = [], [], [], []
    for number in range(ENTRIES):
        text = random_text(rng)
        starts = word_starts(text)
        share = SHARES[number % len(SHARES)]
        chosen = rng.sample(starts, round(share * len(starts)))
        lines += [text[s : s + WINDOW] for s in chosen]
        texts.append(text)
        planted.append(len(chosen))
        shares.append(share)
    rng.shuffle(lines)
    edited, copies = [], []
    for every in EVERY:
        for _ in range(EDITED):
            text = random_text(rng)
            edited.append(text)
            copies.append(
                "".join("#" if i % every == every // 2 else c for i, c in enumerate(text))
            )
    return {
        "texts": texts, "planted": planted, "shares": shares, "lines": lines, "edited": edited,
        "copies": copies,
    }  # fmt: skip


def random_text(rng: random.Random) -> str:
    return " ".join(
        "".join(rng.choices(string.ascii_lowercase, k=rng.randrange(3, 11))) for _ in range(WORDS)
    )


def word_starts(text: str) -> list[int]:
    """Where whole windows start: at words, which stand one blank apart here."""
    at, found = 0, []
    for word in text.split(" "):
        if at + WINDOW <= len(text):
            found.append(at)
        at += len(word) + 1
    return found


def build(folder: Path, lines: list[str], copies: list[str]) -> dict[str, Any]:
    """An index of documentation with the planted lines spread over documents of their own."""
    import unspool
    from benchmarks.index_data import drawn

    def everything() -> Iterator[tuple[str, str]]:
        yield from drawn(data.corpus_docs200(), TEXT_BYTES)
        for n in range(0, len(lines), 40):
            yield f"planted-{n}", "\n".join(lines[n : n + 40])
        for n, copy in enumerate(copies):
            yield f"copy-{n}", f"A page.\n{copy}\nThe end."

    report = unspool.build_index(documents=everything(), out=folder, memory="4GiB", workers=2)
    return {"documents": report.documents, "bytes_text": report.bytes_text}
