"""Opening an index, the memory that queries take, and answering under a small memory cap."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.bench_index_query import TESTS, opened
from benchmarks.registry import Timed, benchmark
from unspool.errors import BackendError

SWEEP = {"tier": ("fm", "sa"), "corpus": ("docs",), "megabytes": (200,)}
COUNTS = 1000


@benchmark("index-open", tests=TESTS, sweep=SWEEP, unit="ms", fresh=True, runs=5)
def index_open(tier: str, corpus: str, megabytes: int) -> Timed:
    """Open a directory in a fresh process; the time of importing the package is apart."""
    import unspool

    _, workload = opened(corpus, megabytes, tier)
    directory = workload.ours(tier, "32-64")
    code = (
        "import sys, time; a = time.perf_counter(); import unspool; unspool.open_index;"
        "b = time.perf_counter(); ix = unspool.open_index(sys.argv[1]);"
        "c = time.perf_counter(); n = ix.count('the'); d = time.perf_counter();"
        "print((b - a) * 1e3, (c - b) * 1e3, (d - c) * 1e3)"
    )
    assert unspool.open_index

    def call() -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", code, str(directory)], capture_output=True, text=True, check=True
        )
        imported, took, first = (float(x) for x in done.stdout.split())
        return {"value": took, "import_ms": imported, "first_count_ms": first}

    return Timed(call)


MEMORY = """
import json, sys, numpy, unspool
unspool.open_index
queries = json.load(sys.stdin)
def now():
    found = {}
    for line in open("/proc/self/status"):
        name, *rest = line.split()
        if name in ("RssAnon:", "RssFile:"):
            found[name] = int(rest[0]) * 1024
    return found
before = now()
ix = unspool.open_index(sys.argv[1])
for query in queries:
    ix.count(query)
after = now()
print(json.dumps([after[name] - before[name] for name in ("RssAnon:", "RssFile:")]))
"""


@benchmark("index-memory", tests=TESTS, sweep=SWEEP, unit="of the index", fresh=True, runs=3)
def index_memory(tier: str, corpus: str, megabytes: int) -> Timed:
    """Growth of anonymous memory from before opening to after 1,000 random counts, in a process
    that has done nothing else; what is mapped of the file, and of the libraries, is apart."""
    ix, workload = opened(corpus, megabytes, tier)
    ix.close()
    directory = workload.ours(tier, "32-64")
    size = sum(p.stat().st_size for p in directory.rglob("*") if p.is_file())
    queries = random.Random(0).sample(workload.asked["counts"], COUNTS)

    def call() -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(directory)],
            input=json.dumps(queries),
            capture_output=True,
            text=True,
            check=True,
        )
        anonymous, mapped = json.loads(done.stdout)
        return {
            "value": anonymous / size,
            "anonymous_growth_bytes": anonymous,
            "mapped_growth_bytes": mapped,
            "bytes_index": size,
        }

    return Timed(call)


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[Path]:
    """A control group that may hold `limit` bytes, page cache included; version 1 or 2."""
    root = Path("/sys/fs/cgroup")
    name = f"unspool-bench-{os.getpid()}"
    if (root / "cgroup.controllers").exists():
        group, file = root / name, "memory.max"
    else:
        group, file = root / "memory" / name, "memory.limit_in_bytes"
    try:
        group.mkdir()
        (group / file).write_text(str(limit), encoding="ascii")
    except OSError as error:
        raise BackendError(
            f"A memory cap needs a control group, and {group} cannot be made ({error.strerror}). "
            "Run this benchmark as root, or inside `systemd-run --user --scope`."
        ) from error
    try:
        yield group
    finally:
        for _ in range(50):  # the kernel needs a moment after the last process has gone
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.1)


@benchmark("index-capped", tests=TESTS, sweep=SWEEP, unit="µs", fresh=True, runs=1)
def index_capped(tier: str, corpus: str, megabytes: int) -> Timed:
    """1,000 random counts with all further memory, page cache included, capped at a quarter of the
    index once the interpreter is up; the figure is the median count, and every count is checked."""
    ix, workload = opened(corpus, megabytes, tier)
    directory = workload.ours(tier, "32-64")
    size = sum(p.stat().st_size for p in directory.rglob("*") if p.is_file())
    queries = random.Random(0).sample(workload.asked["counts"], COUNTS)
    expected = [ix.count(q) for q in queries]
    ix.close()
    code = (
        "import json, os, sys, time, numpy, unspool; from pathlib import Path;"
        "unspool.open_index; queries = json.load(sys.stdin); out = [];"
        "Path(sys.argv[1], 'cgroup.procs').write_text(str(os.getpid()));"
        "ix = unspool.open_index(sys.argv[2]);"
        "clock = time.perf_counter_ns\n"
        "for q in queries:\n"
        "    a = clock(); n = ix.count(q); out.append([n, (clock() - a) / 1000])\n"
        "print(json.dumps(out))"
    )

    def call() -> dict[str, Any]:
        # What the page cache holds of the index already would not count against the group.
        for path in directory.rglob("*"):
            if path.is_file():
                with open(path, "rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with memory_group(size // 4) as group:
            done = subprocess.run(
                [sys.executable, "-c", code, str(group), str(directory)],
                input=json.dumps(queries),
                capture_output=True,
                text=True,
                check=True,
            )
        answers = json.loads(done.stdout)
        if [n for n, _ in answers] != expected:
            raise BackendError("an answer under the cap differs")
        micros = sorted(t for _, t in answers)
        return {"value": micros[COUNTS // 2], "cap_bytes": size // 4, "right": COUNTS}

    return Timed(call)
