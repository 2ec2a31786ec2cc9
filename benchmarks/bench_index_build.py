"""Builds of the index, end to end from one JSONL file, beside the peers.

Ours and infini-gram read the same records and keep ids; fm-index, tokengrams, pydivsufsort and sdsl
are given the joined text and keep no documents. The figure is millions of bytes of text a second.
"""

from __future__ import annotations

import shutil
from functools import partial
from typing import Any

from benchmarks.index_data import Workload
from benchmarks.index_peers import (
    PYTHON_PEERS,
    SDSL_PEERS,
    build_peer,
    build_sdsl,
    missing_environment,
    rate,
)
from benchmarks.peers import sdsl
from benchmarks.registry import Timed, benchmark, peer

CORPORA = ("docs", "distinct", "twice")
TESTS = ("tests/native/test_native_sa.py",)


def ours(
    corpus: str,
    megabytes: int,
    tier: str,
    workers: int,
    memory: str,
    samples: str,
    store_text: str | None = None,
) -> Timed:
    """Our build of a workload; the directory stays for the benchmarks of queries."""
    import unspool

    workload = Workload.make(corpus, megabytes)
    out = workload.ours(tier, samples, store_text)
    shutil.rmtree(out, ignore_errors=True)
    every, inverse = (int(n) for n in samples.split("-"))

    def call() -> dict[str, Any]:
        report = unspool.build_index(
            [workload.folder / "documents.jsonl"],
            out,
            tier=tier,
            workers=workers,
            memory=memory,
            sa_sample=every,
            isa_sample=inverse,
            store_text=store_text,
        )
        found = {"seconds": report.seconds, "bytes": report.bytes_index}
        with unspool.open_index(out) as ix:
            shards = ix.info().shards
        return rate(workload, found) | {"shards": shards, "reported_peak_bytes": report.peak_bytes}

    return Timed(call)


@benchmark(
    "index-build",
    tests=TESTS,
    against=("infini-gram", "infini-gram-2x1", "fm-index", "sdsl-rrr127", "pydivsufsort"),
    sweep={"corpus": CORPORA, "megabytes": (200, 20)},
    unit="MB/s",
    fresh=True,
    runs=1,
    timeout=1500,
)
def index_build(corpus: str, megabytes: int) -> Timed:
    """Tier fm, 2 workers, the default budget of 4 GiB."""
    return ours(corpus, megabytes, "fm", 2, "4GiB", "32-64")


@benchmark(
    "index-build-sa",
    tests=TESTS,
    against=("infini-gram", "infini-gram-2x1", "pydivsufsort", "tokengrams", "py-infinigram"),
    sweep={"corpus": CORPORA, "megabytes": (200, 20)},
    unit="MB/s",
    fresh=True,
    runs=1,
    timeout=1500,
)
def index_build_sa(corpus: str, megabytes: int) -> Timed:
    """Tier sa, 2 workers."""
    return ours(corpus, megabytes, "sa", 2, "4GiB", "32-64")


@benchmark(
    "index-build-core",
    tests=TESTS,
    against=("sdsl-rrr127", "sdsl-hyb16", "pydivsufsort"),
    sweep={"corpus": ("docs", "distinct"), "megabytes": (200,), "tier": ("fm", "sa")},
    unit="MB/s",
    fresh=True,
    runs=1,
    timeout=1500,
)
def index_build_core(corpus: str, megabytes: int, tier: str) -> Timed:
    """One worker: what one core does."""
    return ours(corpus, megabytes, tier, 1, "4GiB", "32-64")


@benchmark(
    "index-size",
    tests=TESTS,
    sweep={"samples": ("32-64", "64-128"), "corpus": ("docs", "distinct"), "megabytes": (200,)},
    unit="of the text",
    fresh=True,
    runs=1,
)
def index_size(samples: str, corpus: str, megabytes: int) -> Timed:
    """Bytes of the whole directory to bytes of text, at two densities of samples."""
    made = ours(corpus, megabytes, "fm", 2, "4GiB", samples)

    def call() -> dict[str, Any]:
        found = made.call()
        assert isinstance(found, dict)
        return {**found, "value": found["size_ratio"]}

    return Timed(call)


@benchmark(
    "index-size-text",
    tests=TESTS,
    sweep={"tier": ("fm",), "corpus": ("docs", "distinct"), "megabytes": (200,)},
    unit="of the text",
    fresh=True,
    runs=1,
)
def index_size_text(tier: str, corpus: str, megabytes: int) -> Timed:
    """The same with the text kept beside the index (`store_text="zstd"`)."""
    made = ours(corpus, megabytes, tier, 2, "4GiB", "32-64", "zstd")

    def call() -> dict[str, Any]:
        found = made.call()
        assert isinstance(found, dict)
        return {**found, "value": found["size_ratio"]}

    return Timed(call)


@benchmark(
    "index-build-memory",
    tests=TESTS,
    sweep={"memory": ("512MiB", "1GiB", "2GiB"), "corpus": ("docs",), "megabytes": (200,)},
    unit="s",
    fresh=True,
    runs=1,
)
def index_build_memory(memory: str, corpus: str, megabytes: int) -> Timed:
    """A build under a budget; `peak_bytes` of the row is what all its processes held at once."""
    workload = Workload.make(corpus, megabytes)
    made = ours(corpus, megabytes, "fm", 2, memory, "32-64")
    workload.release()
    return made


def _python_build(name: str, corpus: str, megabytes: int, tier: str = "") -> Timed:
    workload = Workload.make(corpus, megabytes)
    return Timed(lambda: rate(workload, build_peer(name, workload)))


def _sdsl_build(kind: str, corpus: str, megabytes: int, tier: str = "") -> Timed:
    workload = Workload.make(corpus, megabytes)
    return Timed(lambda: rate(workload, build_sdsl(kind, workload)))


for _benchmark in ("index-build", "index-build-sa", "index-build-core"):
    for _name, _about in PYTHON_PEERS.items():
        _make = partial(_python_build, _name)
        peer(_benchmark, _name, package=_about[1], missing=missing_environment)(_make)
    for _name, _kind in SDSL_PEERS.items():
        peer(_benchmark, _name, package="libsdsl-dev", missing=sdsl.why_not)(
            partial(_sdsl_build, _kind)
        )
