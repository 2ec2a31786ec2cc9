"""The compressed index beside the type that the paper's code uses, on one text and one machine.

Source: Xu et al. (2025), "Infini-gram mini", section 3 and its list of indexes (44% of the text).
Differs from the paper: 200 MB and one core in place of 46 TB and 128; sdsl's released type
csa_wt<wt_huff<rrr_vector<127>>, 32, 64> is built by sdsl itself, not by the paper's parallel code,
and gets the joined text without documents or metadata, which our figures include.
"""

from __future__ import annotations

from typing import Any

from benchmarks.registry import OURS, discover
from benchmarks.run import compare
from claims import Claim, Context, Figure, Measured

RELEASED = "sdsl-rrr127"
OTHERS = ("sdsl-rrr63", "sdsl-hyb16")
POINT = {"corpus": "docs", "megabytes": 200}
RUNS = 5

CLAIM = Claim(
    system="infini-gram-mini",
    title="Smaller than half the text, and several times faster than the released index type",
    required=(
        Figure("index to text, a=32, b=64", "<=", 0.44, aim=0.30),
        Figure("index to text, a=64, b=128", "<=", 0.36, aim=0.30),
        Figure("build, one core", ">=", 5.3, "MB/s", aim=8),
        Figure("build over sdsl's, one core", ">=", 1.5, "times"),
        Figure("one count", "<=", 8, "µs"),
        Figure("one count, in batches", "<=", 2.5, "µs", aim=1),
        Figure("counts over sdsl's", ">=", 3, "times"),
        Figure("locate, a hit", "<=", 10, "µs"),
        Figure("locate over sdsl's", ">=", 3, "times"),
        Figure("extract 512 bytes", "<=", 180, "µs"),
        Figure("open", "<=", 10, "ms"),
        Figure("anonymous memory after 1,000 counts, to the index", "<=", 0.05, aim=0.03),
        Figure("occurrences counted differently from sdsl", "==", 0),
        Figure("build rate of the paper, a core", "report", None, "MB/s"),
    ),
    setup=(
        "200 MB of Debian documentation; builds with one worker; 5,000 counts over lengths 4, 8, "
        "16, 32 and 64 from Python, sdsl's from C++; medians over 5 fresh processes that take "
        "turns."
    ),
)


def run(ctx: Context) -> Measured:
    def row(name: str, against: tuple[str, ...] = (), runs: int = RUNS, **point: Any) -> Any:
        return ctx.step(
            "-".join([name, *(str(v) for v in point.values())]),
            lambda: compare(discover()[name], {**point, **POINT}, against, runs),
            inputs={"point": point, "against": against, "runs": runs},
        )["results"]

    sizes = {s: row("index-size", runs=1, samples=s) for s in ("64-128", "32-64")}
    build = row("index-build-core", (RELEASED, *OTHERS), 1, tier="fm")
    two = row("index-build", runs=1)  # what is queried: built with two workers
    count = row("index-count", (RELEASED, *OTHERS), tier="fm")
    batch = row("index-count-batch", tier="fm")
    locate = row("index-locate", (RELEASED, *OTHERS), tier="fm")
    extract = row("index-extract", (RELEASED, *OTHERS), tier="fm")
    opened = row("index-open", tier="fm")
    memory = row("index-memory", tier="fm")

    def median(found: Any, who: str = OURS) -> float:
        return float(found[who]["median"])

    hits = {who: found["facts"]["hits"] for who, found in count.items()}
    return Measured(
        {
            "index to text, a=32, b=64": median(sizes["32-64"]),
            "index to text, a=64, b=128": median(sizes["64-128"]),
            "build, one core": median(build),
            "build over sdsl's, one core": median(build) / median(build, RELEASED),
            "one count": median(count),
            "one count, in batches": median(batch),
            "counts over sdsl's": median(count, RELEASED) / median(count),
            "locate, a hit": median(locate),
            "locate over sdsl's": median(locate, RELEASED) / median(locate),
            "extract 512 bytes": median(extract),
            "open": median(opened),
            "anonymous memory after 1,000 counts, to the index": median(memory),
            "occurrences counted differently from sdsl": abs(hits[OURS] - hits[RELEASED]),
            "build rate of the paper, a core": 0.083,
        },
        facts={
            "table": {
                who: {
                    "size": build[who]["facts"]["size_ratio"],
                    "build_mb_s": median(build, who),
                    "count_us": median(count, who),
                    "locate_us": median(locate, who),
                    "extract_us": median(extract, who),
                }
                for who in (OURS, RELEASED, *OTHERS)
            },
            "shards": two[OURS]["facts"]["shards"],
            "count_us_by_length": {
                k.removeprefix("micros_"): v
                for k, v in count[OURS]["facts"].items()
                if k.startswith("micros_")
            },
        },
    )
