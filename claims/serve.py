"""The search service under load, from the same machine, for a minute at a time.

Source: this project's own promise; there is no paper.
Differs from a service in use: the client takes processor time from the two cores that answer, and
all queries are counts.
"""

from __future__ import annotations

from typing import Any

from benchmarks.registry import OURS, discover
from benchmarks.run import compare
from claims import Claim, Context, Figure, Measured

CLAIM = Claim(
    system="serve",
    title="Thousands of counts a second over HTTP, also while slow clients hold on",
    required=(
        Figure("single counts", ">=", 5000, "a second", aim=8000),
        Figure("99th percentile of a single count", "<=", 20, "ms"),
        Figure("counts in batches of 1,000", ">=", 150_000, "a second"),
        Figure("failed requests", "==", 0),
        Figure("rate beside 200 slow clients, to the rate alone", ">=", 0.8),
        Figure("99th percentile beside 200 slow clients", "<=", 20, "ms"),
        Figure("growth of anonymous memory in a minute of load", "<=", 8, "MiB"),
        Figure("single counts, tier sa", "report", None, "a second"),
        Figure("slowest single count", "report", None, "ms"),
    ),
    setup=(
        "200 MB of documentation, tier fm, two processes of the service and wrk (1 thread, 32 "
        "connections) on the same two cores; 60 seconds a figure after 10 to warm up; queries cut "
        "from the text at lengths 4 to 64; slow clients hold half a request each."
    ),
    packages=("fastapi", "uvicorn", "uvloop", "httptools", "orjson"),
    code=("server", "index"),
)
POINT = {"workers": 2, "corpus": "docs", "megabytes": 200}


def run(ctx: Context) -> Measured:
    def row(name: str, **point: Any) -> Any:
        return ctx.step(
            "-".join([name, *(str(v) for v in point.values())]),
            lambda: compare(discover()[name], {**point, **POINT}, (), 1),
            inputs={"point": {**point, **POINT}},
        )["results"][OURS]

    single = row("serve-count", tier="fm", slow=0)
    beside = row("serve-count", tier="fm", slow=200)
    batch = row("serve-count-batch", tier="fm")
    fast = row("serve-count", tier="sa", slow=0)
    runs = (single, beside, batch, fast)
    grown = max(r["facts"]["anonymous_growth_bytes"] for r in runs)
    return Measured(
        {
            "single counts": single["median"],
            "99th percentile of a single count": single["facts"]["p99_ms"],
            "counts in batches of 1,000": batch["median"],
            "failed requests": sum(r["facts"]["errors"] for r in runs),
            "rate beside 200 slow clients, to the rate alone": beside["median"] / single["median"],
            "99th percentile beside 200 slow clients": beside["facts"]["p99_ms"],
            "growth of anonymous memory in a minute of load": grown / (1 << 20),
            "single counts, tier sa": fast["median"],
            "slowest single count": single["facts"]["max_ms"],
        },
        facts={"runs": list(runs)},
    )
