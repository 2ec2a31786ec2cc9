"""`unspool serve` under load on loopback: single counts, counts in batches, and slow clients.

wrk (Debian package `wrk`) asks from one thread over 32 connections, on the same machine, so its
work is in the figures. Every answer must be a success. Before the load some answers are compared
with those of the index asked in this process.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.bench_index_query import opened
from benchmarks.registry import Timed, benchmark
from unspool.errors import BackendError, MissingExtra

TESTS = ("tests/server/test_search_api.py",)
SCRIPT = Path(__file__).parent / "wrk" / "bodies.lua"
CONNECTIONS = 32
BATCH = 1000
CHECKED = 50
SWEEP = {"tier": ("fm", "sa"), "workers": (2,), "corpus": ("docs",), "megabytes": (200,)}


def _wrk() -> str:
    found = shutil.which("wrk")
    if found is None:
        raise MissingExtra("The load comes from wrk, which is not installed: apt install wrk")
    return found


@contextmanager
def serving(directory: Path, workers: int) -> Iterator[tuple[str, int]]:
    """The service in processes of its own: its address, and the process that started the others."""
    command = [sys.executable, "-m", "unspool", "serve", "--index", f"bench={directory}"]
    process = subprocess.Popen(
        [*command, "--port", "0", "--workers", str(workers)], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        address = None
        for line in process.stderr:
            if address := re.search(r"http://[\w.]+:\d+", line):
                break
        if address is None:
            raise BackendError("the service did not start")
        _wait(address.group(), workers)
        yield address.group(), process.pid
    finally:
        process.terminate()
        process.communicate()


def _wait(address: str, workers: int) -> None:
    """Until every process has answered: the kernel hands connections to each of them."""
    for _ in range(40 * workers):
        urllib.request.urlopen(f"{address}/healthz", timeout=60).read()


def _post(address: str, path: str, body: str) -> Any:
    request = urllib.request.Request(
        address + path, body.encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def _load(address: str, path: str, bodies: Sequence[str], seconds: int) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        file.write("".join(body + "\n" for body in bodies))
        file.flush()
        load = ("-t1", f"-c{CONNECTIONS}", f"-d{seconds}s")
        done = subprocess.run(
            [_wrk(), *load, "--timeout", "10s", "-s", SCRIPT, address, "--", path, file.name],
            capture_output=True,
            text=True,
            check=True,
        )
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    if found["errors"]:
        raise BackendError(f"{found['errors']} requests failed")
    return found


def _memory(parent: int) -> int:
    """Anonymous memory of a process and its children, in bytes."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(
                line.split(":", 1) for line in path.read_text().splitlines() if ":" in line
            )
        except OSError:
            continue
        if int(path.parent.name) == parent or int(fields["PPid"]) == parent:
            total += int(fields.get("RssAnon", "0 kB").split()[0]) * 1024
    return total


@contextmanager
def slow_clients(address: str, number: int) -> Iterator[None]:
    """Connections that begin a request and never end it."""
    host, port = address.removeprefix("http://").split(":")
    with ExitStack() as stack:
        for _ in range(number):
            each = stack.enter_context(socket.create_connection((host, int(port))))
            each.sendall(
                b"POST /v1/indexes/bench/count HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nContent-Length: 30\r\n\r\n{"
            )
        yield


def _measure(
    tier: str, workers: int, corpus: str, megabytes: int, batch: int, slow: int, seconds: int
) -> Timed:
    ix, workload = opened(corpus, megabytes, tier)
    queries = list(workload.asked["counts"])
    random.Random(0).shuffle(queries)
    if batch == 1:
        path, asked = "/v1/indexes/bench/count", [[q] for q in queries]
        bodies = [json.dumps({"query": q}) for q in queries]
    else:
        path = "/v1/indexes/bench/count/batch"
        asked = [queries[at : at + batch] for at in range(0, len(queries) - batch + 1, batch)]
        bodies = [json.dumps({"queries": group}) for group in asked]
    expected = [ix.count_batch(group).tolist() for group in asked[:CHECKED]]
    ix.close()
    directory = workload.ours(tier, "32-64")

    def call() -> dict[str, Any]:
        with ExitStack() as stack:
            address, parent = stack.enter_context(serving(directory, workers))
            for body, counts in zip(bodies, expected, strict=False):
                said = _post(address, path, body)
                if said.get("counts", [said.get("count")]) != counts:
                    raise BackendError(f"a wrong count: {body[:80]}")
            stack.enter_context(slow_clients(address, slow))
            _load(address, path, bodies, max(1, seconds // 6))
            before = _memory(parent)
            found = _load(address, path, bodies, seconds)
            grown = _memory(parent) - before
        rate = found["requests"] * batch / found["seconds"]
        return {"value": rate, **found, "anonymous_growth_bytes": grown, "anonymous_bytes": before}

    return Timed(call)


def _seconds() -> int:
    """How long the load lasts; shorter in a trial."""
    return int(os.environ.get("UNSPOOL_BENCH_SECONDS", "60"))


@benchmark(
    "serve-count",
    tests=TESTS,
    sweep={**SWEEP, "slow": (0, 200)},
    unit="counts/s",
    fresh=True,
    runs=3,
)
def serve_count(tier: str, workers: int, corpus: str, megabytes: int, slow: int) -> Timed:
    """One count a request, for a minute; `slow` more clients hold half a request each."""
    return _measure(tier, workers, corpus, megabytes, 1, slow, _seconds())


@benchmark("serve-count-batch", tests=TESTS, sweep=SWEEP, unit="counts/s", fresh=True, runs=3)
def serve_count_batch(tier: str, workers: int, corpus: str, megabytes: int) -> Timed:
    """A thousand counts a request."""
    return _measure(tier, workers, corpus, megabytes, BATCH, 0, _seconds())
