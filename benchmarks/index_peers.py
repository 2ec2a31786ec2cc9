"""How the benchmarks of the index run a contender: the peers' environment, builds kept for queries.

Peers live in an environment of their own, named by the variable UNSPOOL_PEERS (its python);
`benchmarks/peers-requirements.txt` says how to make it. Each verb of a peer is one fresh process.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.index_data import Workload
from benchmarks.peers import sdsl
from benchmarks.registry import Timed, peer
from unspool.errors import BackendError

PEERS_VARIABLE = "UNSPOOL_PEERS"
HOW = (
    "make the environment that benchmarks/peers-requirements.txt describes and set "
    f"{PEERS_VARIABLE} to its python"
)
SCRIPTS = Path(__file__).parent / "peers"

# name -> (script, distribution, environment, most megabytes it is asked to build)
PYTHON_PEERS: dict[str, tuple[str, str, dict[str, str], int]] = {
    "infini-gram": ("infini_gram_peer.py", "infini-gram", {}, 200),
    "infini-gram-2x1": ("infini_gram_peer.py", "infini-gram", {"INFINI_GRAM_WORKERS": "2"}, 200),
    "fm-index": ("fm_index_peer.py", "fm-index", {}, 200),
    "tokengrams": ("tokengrams_peer.py", "tokengrams", {}, 20),
    "pydivsufsort": ("pydivsufsort_peer.py", "pydivsufsort", {}, 200),
    "py-infinigram": ("py_infinigram_peer.py", "py-infinigram", {}, 200),
}
SDSL_PEERS = {f"sdsl-{kind}": kind for kind in sdsl.TYPES}


def missing_environment() -> str | None:
    python = os.environ.get(PEERS_VARIABLE)
    return None if python and Path(python).exists() else HOW


def call_peer(name: str, verb: str, workload: Workload, parts: str = "") -> dict[str, Any]:
    """One process of a Python peer; what it printed last is its result."""
    script, _, environment, _ = PYTHON_PEERS[name]
    command = [os.environ[PEERS_VARIABLE], str(SCRIPTS / script), verb]
    command += [str(workload.folder), str(workload.built(name)), *([parts] if parts else [])]
    # What makes our own process find packages must not reach the other environment.
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        command, env={**env, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BackendError(f"{name} {verb} failed: {done.stderr.strip().splitlines()[-1:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def build_peer(name: str, workload: Workload) -> dict[str, Any]:
    """Build from nothing; what an earlier build left is removed first."""
    limit = PYTHON_PEERS[name][3]
    if workload.megabytes > limit:
        raise BackendError(f"{name} is too slow or too large for more than {limit} MB here")
    shutil.rmtree(workload.built(name), ignore_errors=True)
    return call_peer(name, "build", workload)


def build_sdsl(kind: str, workload: Workload) -> dict[str, Any]:
    out = workload.built(f"sdsl-{kind}")
    out.mkdir(parents=True, exist_ok=True)
    return sdsl.run("build", kind, workload.folder / "joined.txt", out / "index.sdsl")


def rate(workload: Workload, result: dict[str, Any]) -> dict[str, Any]:
    """The figure of a build: millions of bytes of text a second, with what it left on disk."""
    text = workload.asked["bytes"]
    return {
        "value": text / result["seconds"] / 1e6,
        "seconds": result["seconds"],
        "bytes_text": text,
        "bytes_index": result["bytes"],
        "size_ratio": result["bytes"] / text,
    }


def median_of(values: list[float]) -> float:
    return statistics.median(values) if values else float("nan")


def query_peer(name: str, part: str, tier: str, corpus: str, megabytes: int) -> Timed:
    """Times of one part ("counts", "infgram", "locate") of a peer's queries, index built before."""
    workload = Workload.make(corpus, megabytes)
    if not workload.built(name).exists():
        build_peer(name, workload)

    def call() -> dict[str, Any]:
        found = call_peer(name, "query", workload, part)
        return {"value": median_of(found["micros"]), **found.get("facts", {})}

    return Timed(call)


def query_sdsl(kind: str, part: str, tier: str, corpus: str, megabytes: int) -> Timed:
    workload = Workload.make(corpus, megabytes)
    index = workload.built(f"sdsl-{kind}") / "index.sdsl"
    if not index.exists():
        build_sdsl(kind, workload)
    locates = len(workload.asked["locate"])

    def call() -> dict[str, Any]:
        where = f"{locates},{1000 if part == 'extract' else 0}"
        found = sdsl.run("query", kind, index, workload.folder / "queries.bin", where)
        figures = {
            "counts": lambda: median_of(found["micros"]),
            "locate": lambda: median_of(found["locate_micros_per_hit"]),
            "extract": lambda: found["extract_512_micros"],
        }
        return {"value": figures[part](), "hits": sum(found["counts"])}

    return Timed(call)


def register_query_peers(benchmark: str, part: str, names: list[str]) -> None:
    """Let these peers run beside a benchmark of queries that sweeps over corpus and megabytes."""
    for name in names:
        if name in SDSL_PEERS:
            make = partial(query_sdsl, SDSL_PEERS[name], part)
            peer(benchmark, name, package="libsdsl-dev", missing=sdsl.why_not)(make)
        else:
            make = partial(query_peer, name, part)
            package = PYTHON_PEERS[name][1]
            peer(benchmark, name, package=package, missing=missing_environment)(make)
