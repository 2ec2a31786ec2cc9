"""What every peer script shares: the workload on disk, the clock, and one JSON line of results.

Runs in the peers' environment, so it imports nothing of the project. A peer script is called as
`PEER.py build WORKLOAD OUT` and `PEER.py query WORKLOAD OUT PART`, where PART is `counts`, `prob`,
`next` or `locate`; a query prints the microseconds of each call as `micros`.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Build = Callable[[Path, Path], dict[str, Any]]
Query = Callable[[dict[str, Any], Path, str], dict[str, Any]]


def peak_bytes() -> int:
    """Largest resident size of this process or of a child that has ended."""
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(w).ru_maxrss for w in whose) * 1024


def folder_bytes(folder: Path, keep: Callable[[Path], bool] = lambda p: True) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and keep(p))


def texts(workload: Path) -> list[str]:
    with open(workload / "documents.jsonl", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def timed(call: Callable[[Any], Any], arguments: list[Any]) -> tuple[list[float], list[Any]]:
    """Microseconds and result of each call, after every eighth was called once to warm up."""
    for argument in arguments[::8]:
        call(argument)
    micros, results = [], []
    clock = time.perf_counter_ns
    for argument in arguments:
        start = clock()
        result = call(argument)
        micros.append((clock() - start) / 1000)
        results.append(result)
    return micros, results


def counted(call: Callable[[Any], int], queries: list[Any]) -> dict[str, Any]:
    micros, counts = timed(call, queries)
    return {"micros": micros, "facts": {"hits": int(sum(counts))}}


def located(call: Callable[[Any], int], queries: list[Any]) -> dict[str, Any]:
    """`call` returns how many hits it located; the time is that of one hit."""
    micros, hits = timed(call, queries)
    each = [t / max(n, 1) for t, n in zip(micros, hits, strict=True)]
    return {"micros": each, "facts": {"hits": int(sum(hits))}}


def main(build: Build, query: Query) -> None:
    verb, workload, out = sys.argv[1], Path(sys.argv[2]).resolve(), Path(sys.argv[3]).resolve()
    if verb == "build":
        out.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        result = build(workload, out)
        result.setdefault("seconds", time.perf_counter() - start)
        result["peak_bytes"] = peak_bytes()
    else:
        asked = json.loads((workload / "workload.json").read_text(encoding="utf-8"))
        result = query(asked, out, sys.argv[4])
        result["rss_bytes"] = peak_bytes()
    sys.stdout.write("\n" + json.dumps(result) + "\n")
    sys.stdout.flush()
    os._exit(0)  # some engines take seconds to tear down
