"""Contamination checks: 1,000 entries against an index, from files to rows.

Half of the entries are 600 characters out of the corpus, half are the same words in another order,
so that their windows fail late as often as early. Each run is a fresh process; the figure is the
time of the whole call: reading the entries, opening the index, counting, looking up examples.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import orjson

from benchmarks.bench_index_query import opened
from benchmarks.index_data import documents
from benchmarks.registry import Timed, benchmark
from claims import data

TESTS = ("tests/forensics/test_contamination.py",)
ENTRIES = 1000
CHARACTERS = 600


def write_entries(path: Path, entries: int = ENTRIES) -> None:
    """A benchmark of pieces of the corpus and of their words shuffled, as JSON lines."""
    rng = random.Random(0)
    texts = [
        text
        for number, (_, text) in enumerate(documents(data.corpus_docs200()))
        if number % 40 == 0 and len(text) > CHARACTERS
    ]
    with path.open("wb") as file:
        for number in range(entries):
            text = rng.choice(texts)
            at = rng.randrange(len(text) - CHARACTERS + 1)
            words = text[at : at + CHARACTERS]
            if number % 2:
                shuffled = words.split()
                rng.shuffle(shuffled)
                words = " ".join(shuffled)
            row = {"id": number, "text": words}
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


@benchmark(
    "audit-contamination",
    tests=TESTS,
    sweep={"tier": ("fm", "sa"), "corpus": ("docs",), "megabytes": (200,)},
    unit="s/1000 entries",
    fresh=True,
    runs=5,
)
def audit_contamination(tier: str, corpus: str, megabytes: int) -> Timed:
    """Time a check of 1,000 entries; the facts say how many windows it counted."""
    import time

    from unspool.forensics.contamination_run import contamination

    index, workload = opened(corpus, megabytes, tier)
    index.close()
    directory = workload.ours(tier, "32-64")
    workload.release()

    def call() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "entries.jsonl"
            write_entries(path)
            start = time.perf_counter()
            found = contamination(path, directory)
            seconds = time.perf_counter() - start
        row = found.benchmarks[0]
        return {
            "value": seconds * 1000 / ENTRIES,
            **{name: row[name] for name in ("windows", "hits", "dirty", "suspicious", "clean")},
        }

    return Timed(call)
