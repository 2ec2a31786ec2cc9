"""Queries of the index from Python, one call at a time and in batches, beside the peers.

Each run is a fresh process that opens the index, calls every eighth query once, then times each
call by itself; the figure is the median call in microseconds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.bench_index_build import ours
from benchmarks.index_data import Workload
from benchmarks.index_peers import register_query_peers
from benchmarks.registry import Timed, benchmark
from unspool.errors import UnspoolError

TESTS = ("tests/native/test_native_properties.py",)
SWEEP = {"tier": ("fm", "sa"), "corpus": ("docs",), "megabytes": (200,)}
BATCH = 1000
EXTRACT = 512


def opened(
    corpus: str, megabytes: int, tier: str, store_text: str | None = None
) -> tuple[Any, Workload]:
    """Our index of a workload, as built with two workers."""
    import unspool

    workload = Workload.make(corpus, megabytes)
    directory = workload.ours(tier, "32-64", store_text)
    try:
        return unspool.open_index(directory), workload
    except UnspoolError:  # not built yet, or by code with another format
        ours(corpus, megabytes, tier, 2, "4GiB", "32-64", store_text).call()
    return unspool.open_index(directory), workload


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


@benchmark(
    "index-count",
    tests=TESTS,
    against=("infini-gram", "fm-index", "pydivsufsort", "sdsl-rrr127", "sdsl-hyb16"),
    sweep=SWEEP,
    unit="µs",
    fresh=True,
    runs=5,
)
def index_count(tier: str, corpus: str, megabytes: int) -> Timed:
    """One count of a str, over lengths 4, 8, 16, 32 and 64 in equal shares."""
    ix, workload = opened(corpus, megabytes, tier)

    def call() -> dict[str, Any]:
        micros, counts = timed(ix.count, workload.asked["counts"])
        by_length: dict[int, list[float]] = {}
        for query, took in zip(workload.asked["counts"], micros, strict=True):
            by_length.setdefault(len(query.encode()), []).append(took)
        facts = {f"micros_{n}": statistics.median(v) for n, v in sorted(by_length.items())}
        return {"value": statistics.median(micros), "hits": sum(counts), **facts}

    return Timed(call)


def batched(
    ask: Callable[[list[Any]], Any], arguments: list[Any], size: int = BATCH
) -> dict[str, Any]:
    """Microseconds a query in batches, after one of every eighth query, and the threads."""
    from unspool import _native

    batches = [arguments[i : i + size] for i in range(0, len(arguments), size)]
    ask(arguments[::8])
    micros, _ = timed(ask, batches)
    each = statistics.median(t / len(b) for t, b in zip(micros, batches, strict=True))
    return {"value": each, "threads": _native.num_threads()}


@benchmark("index-count-batch", tests=TESTS, sweep=SWEEP, unit="µs", fresh=True, runs=5)
def index_count_batch(tier: str, corpus: str, megabytes: int) -> Timed:
    """The same counts in batches of 1,000: time of a batch over its queries, which are new, so that
    it pays for the pages that it is the first to touch."""
    ix, workload = opened(corpus, megabytes, tier)
    return Timed(lambda: batched(ix.count_batch, workload.asked["counts"]))


@benchmark("index-count-batch-warm", tests=TESTS, sweep=SWEEP, unit="µs", fresh=True, runs=5)
def index_count_batch_warm(tier: str, corpus: str, megabytes: int) -> Timed:
    """The same after `warm()`, which maps and checks the whole index, as a server would begin."""
    ix, workload = opened(corpus, megabytes, tier)
    ix.warm()
    return Timed(lambda: batched(ix.count_batch, workload.asked["counts"]))


@benchmark("index-infgram-prob-batch", tests=TESTS, sweep=SWEEP, unit="µs", fresh=True, runs=5)
def index_infgram_prob_batch(tier: str, corpus: str, megabytes: int) -> Timed:
    """The ∞-gram probabilities of index-infgram-prob in batches of 200."""
    ix, workload = opened(corpus, megabytes, tier)
    prompts = [(p, n) for p, n in workload.asked["prompts"]]
    return Timed(
        lambda: batched(lambda some: ix.infgram_batch(*zip(*some, strict=True)), prompts, 200)
    )


@benchmark(
    "index-infgram-prob",
    tests=TESTS,
    against=("infini-gram",),
    sweep=SWEEP,
    unit="µs",
    fresh=True,
    runs=5,
)
def index_infgram_prob(tier: str, corpus: str, megabytes: int) -> Timed:
    """∞-gram probability of the byte after a 64-byte prompt cut from documents not indexed."""
    ix, workload = opened(corpus, megabytes, tier)
    prompts = [(p, n) for p, n in workload.asked["prompts"]]
    return Timed(lambda: statistics.median(timed(lambda p: ix.infgram(p[0], p[1]), prompts)[0]))


@benchmark(
    "index-next", tests=TESTS, against=("infini-gram",), sweep=SWEEP, unit="µs", fresh=True, runs=5
)
def index_next(tier: str, corpus: str, megabytes: int) -> Timed:
    """Exact distribution of the next byte after the longest known suffix of such a prompt."""
    ix, workload = opened(corpus, megabytes, tier)
    prompts = [p for p, _ in workload.asked["prompts"]]
    return Timed(lambda: statistics.median(timed(ix.infgram, prompts)[0]))


@benchmark(
    "index-locate",
    tests=TESTS,
    against=("infini-gram", "fm-index", "sdsl-rrr127", "sdsl-hyb16"),
    sweep=SWEEP,
    unit="µs",
    fresh=True,
    runs=5,
)
def index_locate(tier: str, corpus: str, megabytes: int) -> Timed:
    """Document and offset of every hit of strings with 1,000 to 20,000 hits: time of one hit."""
    import numpy as np

    ix, workload = opened(corpus, megabytes, tier)
    native = ix._native  # hits as numbers; `find` would also quote the text around each

    def locate(query: str) -> int:
        found = 0
        for shard, (lo, hi) in enumerate(native.ranges(query)):
            rows = np.arange(lo, hi, dtype=np.uint64)
            found += len(native.locate(shard, rows, len(query.encode()))[0])
        return found

    def call() -> dict[str, Any]:
        micros, hits = timed(locate, workload.asked["locate"])
        each = [t / n for t, n in zip(micros, hits, strict=True)]
        return {"value": statistics.median(each), "hits": sum(hits), "least_hits": min(hits)}

    return Timed(call)


def extracts(ix: Any) -> Timed:
    """512 bytes from a random place of a document that is at least so long."""
    import numpy as np

    rng = np.random.default_rng(0)
    lengths = np.array([ix.document_length(number) for number in range(len(ix))])
    long_enough = np.flatnonzero(lengths >= EXTRACT)
    weights = lengths[long_enough] / lengths[long_enough].sum()
    chosen = rng.choice(long_enough, 2000, p=weights)
    places = [(int(d), int(rng.integers(0, lengths[d] - EXTRACT + 1))) for d in chosen]

    def extract(place: tuple[int, int]) -> bytes:
        return bytes(ix.extract(place[0], place[1], place[1] + EXTRACT))

    return Timed(lambda: statistics.median(timed(extract, places)[0]))


@benchmark(
    "index-extract",
    tests=TESTS,
    against=("sdsl-rrr127", "sdsl-hyb16"),
    sweep=SWEEP,
    unit="µs",
    fresh=True,
    runs=5,
)
def index_extract(tier: str, corpus: str, megabytes: int) -> Timed:
    """Quoting from the index itself."""
    return extracts(opened(corpus, megabytes, tier)[0])


@benchmark(
    "index-extract-text",
    tests=TESTS,
    sweep={**SWEEP, "tier": ("fm",)},
    unit="µs",
    fresh=True,
    runs=5,
)
def index_extract_text(tier: str, corpus: str, megabytes: int) -> Timed:
    """Quoting from the text that `store_text="zstd"` keeps beside the index."""
    return extracts(opened(corpus, megabytes, tier, "zstd")[0])


@benchmark("index-matches", tests=TESTS, sweep=SWEEP, unit="µs", fresh=True, runs=5)
def index_matches(tier: str, corpus: str, megabytes: int) -> Timed:
    """The longest match of every start of 500 bytes, which are eight prompts joined."""
    ix, workload = opened(corpus, megabytes, tier)
    prompts = [p for p, _ in workload.asked["prompts"]]
    texts = ["".join(prompts[i : i + 8])[:500] for i in range(0, len(prompts) - 7, 8)]
    return Timed(lambda: statistics.median(timed(ix.longest_match, texts)[0]))


SDSL = ["sdsl-rrr127", "sdsl-rrr63", "sdsl-hyb16"]
register_query_peers(
    "index-count",
    "counts",
    ["infini-gram", "fm-index", "tokengrams", "pydivsufsort", "py-infinigram", *SDSL],
)
register_query_peers("index-infgram-prob", "prob", ["infini-gram", "py-infinigram"])
register_query_peers("index-next", "next", ["infini-gram", "py-infinigram"])
register_query_peers("index-locate", "locate", ["infini-gram", "fm-index", *SDSL])
register_query_peers("index-extract", "extract", SDSL)
