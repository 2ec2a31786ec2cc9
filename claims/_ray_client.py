"""A client of an index on a Ray cluster: `python -m claims._ray_client DIR COPIES whole|partial`.

It compares 10,000 random queries with the index opened here, measures the cost of a call, says
`loaded`, waits for a line on its input that says that a node is dead, and goes on asking for a
while. Every answer is compared; what it lacks must be named. It prints one JSON object before and
one after.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from typing import Any

import unspool
from unspool.errors import ShardsMissing

QUERIES = 10_000
BATCH = 1_000
AFTER_SECONDS = 40


def main(folder: str, copies: int, partial: bool) -> None:
    whole: Any = unspool.open_index(folder)
    parts: Any = unspool.open_index(folder, engine="ray", replicas=copies, partial=partial)
    draw = random.Random(0)
    queries = []
    while len(queries) < QUERIES:
        text = whole.extract(draw.randrange(len(whole))).decode("utf-8", "replace")
        start = draw.randrange(max(1, len(text)))
        queries.append(text[start : start + draw.randrange(1, 40)] or "e")
    counts = whole.count_batch(queries).tolist()
    say(compare(whole, parts, queries, counts))
    say(under_load(parts, queries, counts))
    parts.close()


def compare(whole: Any, parts: Any, queries: list[str], counts: list[int]) -> dict[str, Any]:
    """Differences in 10,000 counts, probabilities and distributions, and what a call takes."""
    started = time.perf_counter()
    found: list[int] = []
    for at in range(0, len(queries), BATCH):
        found += parts.count_batch(queries[at : at + BATCH]).tolist()
    seconds = time.perf_counter() - started
    wrong = sum(a != b for a, b in zip(found, counts, strict=True))
    after: Any = [ord("e")] * BATCH
    for at in range(0, len(queries), BATCH):
        some = queries[at : at + BATCH]
        pairs = zip(parts.infgram_batch(some, after), whole.infgram_batch(some, after), strict=True)
        wrong += sum(a != b for a, b in pairs)
    few = [query for query in queries if query.strip()][:100]
    wrong += sum(parts.find(q, limit=3) != whole.find(q, limit=3) for q in few)
    wrong += sum(parts.next(q, 5) != whole.next(q, 5) for q in few)
    times = []
    for query in few:
        before = time.perf_counter()
        parts.count(query)
        times.append(time.perf_counter() - before)
    return {
        "wrong": wrong,
        "groups": len(parts._native.names),
        "rate": len(queries) / seconds,
        "call_ms": 1e3 * statistics.median(times),
    }


def under_load(parts: Any, queries: list[str], counts: list[int]) -> dict[str, Any]:
    """Batches of 50 counts before and after a node dies, each compared."""
    draw = random.Random(1)
    shards = {name for names in parts._native.names for name in names}
    rows = {"right": 0, "named": 0, "refused": 0, "wrong": 0}
    longest, end = 0.0, None
    while end is None or time.monotonic() < end:
        chosen = draw.sample(range(len(queries)), 50)
        started = time.monotonic()
        try:
            found = parts.count_batch([queries[n] for n in chosen]).tolist()
            missing = set(parts.take_missing())
            truth = [counts[n] for n in chosen]
            if missing:
                less = missing < shards and all(f <= t for f, t in zip(found, truth, strict=True))
                rows["named" if less else "wrong"] += 1
            else:
                rows["right" if found == truth else "wrong"] += 1
        except ShardsMissing as error:
            rows["refused" if set(error.shards) < shards else "wrong"] += 1
        longest = max(longest, time.monotonic() - started)
        if end is None and rows["right"] >= 20:
            sys.stdout.write("loaded\n")
            sys.stdout.flush()
            sys.stdin.readline()
            longest, end = 0.0, time.monotonic() + AFTER_SECONDS
    return {**rows, "longest": longest}


def say(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "partial")
