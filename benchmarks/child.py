"""One contender at one point of a sweep, measured in a process of its own.

`python -m benchmarks.child` reads a job as JSON on stdin and writes one JSON object to the file
that the job names: samples, facts and peak memory.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.registry import Timed, discover
from unspool._machine import peak_rss

_SAMPLE_SECONDS = 5e-3
"""Shorter calls are repeated until one sample takes so long that the clock does not matter."""


def main() -> None:
    job = json.load(sys.stdin)
    benchmark = discover(job["source"])[job["benchmark"]]
    made = benchmark.contender(job["contender"])(**job["point"])
    timed = made if isinstance(made, Timed) else Timed(made)
    if benchmark.fresh:
        result = _once(timed, benchmark.unit)
    else:
        result = _repeat(timed, benchmark.unit, job["runs"], benchmark.seconds)
    result["peak_bytes"] = peak_rss()
    Path(job["result"]).write_text(json.dumps(result), encoding="utf-8")


def _once(timed: Timed, unit: str) -> dict[str, Any]:
    started = time.perf_counter()
    returned = timed.call()
    seconds = time.perf_counter() - started
    value = seconds if unit == "s" else _value(returned)
    return {"samples": [value / timed.per], "facts": _facts(returned), "seconds": seconds}


def _repeat(timed: Timed, unit: str, runs: int, seconds: float) -> dict[str, Any]:
    returned = timed.call()  # warm-up: caches, lazy imports, page faults
    if unit != "s":
        samples = [_value(returned) / timed.per]
        samples += [_value(timed.call()) / timed.per for _ in range(runs - 1)]
        return {"samples": samples, "facts": _facts(returned)}
    loops = _calibrate(timed.call)
    samples = []
    until = time.perf_counter() + seconds
    while len(samples) < runs or time.perf_counter() < until:
        samples.append(_time(timed.call, loops) / (loops * timed.per))
    return {"samples": samples, "facts": _facts(returned)}


def _calibrate(call: Callable[[], object]) -> int:
    loops = 1
    while (taken := _time(call, loops)) < _SAMPLE_SECONDS:
        loops = max(loops * 2, int(loops * _SAMPLE_SECONDS / max(taken, 1e-9)))
    return loops


def _time(call: Callable[[], object], loops: int) -> float:
    started = time.perf_counter()
    for _ in range(loops):
        call()
    return time.perf_counter() - started


def _value(returned: object) -> float:
    if isinstance(returned, Mapping):
        returned = returned["value"]
    if not isinstance(returned, int | float):
        raise TypeError(
            f"a benchmark that is not in seconds must return a number, got {returned!r}"
        )
    return float(returned)


def _facts(returned: object) -> dict[str, Any]:
    if not isinstance(returned, Mapping):
        return {}
    return {k: v for k, v in returned.items() if isinstance(v, int | float | str) and k != "value"}


if __name__ == "__main__":
    main()
