"""`python -m benchmarks.scale`: what an index of 1 TB, 46 TB or 1 PB takes, from measured rates.

Every rate, size and time comes from the newest rows of this folder's benchmarks; what is assumed of
machines and prices is in `Node` and printed with the tables. Nothing here was run at such a size.
`docs/scale.md` is filled by the same functions (marker `<!-- scale:begin TABLE -->`).
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claims.tables import markdown
from unspool.cli._output import emit_text, human_bytes, human_seconds
from unspool.errors import InputError

RESULTS = Path(__file__).parent / "results"
TEXTS = (("1 TB", 10**12), ("46 TB", 46 * 10**12), ("1 PB", 10**15))
BYTES_PER_BUILD_BYTE = 6
"""Memory that building a shard takes, for each byte of its text."""
LARGEST_SHARD = 2**31 - 1
MAPS_PER_PROCESS = 65_530
"""Linux: memory areas that one process may map by default; a shard takes two."""
PUBLISHED_RATE = 0.083
"""MB/s a core that the paper's build reached (46 TB in 50 days on 128 cores)."""


@dataclass(frozen=True, slots=True)
class Node:
    """The machine that the tables assume."""

    cores: int = 128
    memory: int = 1 << 40
    reads_per_second: float = 500_000
    """Random 4 KiB reads of its disk."""
    price_core_hour: float = 0.04
    """US dollars."""
    efficiency: float = 0.5
    """Rate of a core while all of them build, to its rate alone: they share caches and memory."""
    price_gb_month: float = 0.02
    """US dollars, for the index on object or block storage."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the rows say of the fm tier on one core."""

    build_mb_s: float
    ratio: float
    pair_mb_s: float
    """Two workers at once, on two cores."""
    count_us: float
    """One count, over `count_shards` shards."""
    count_shards: float
    open_ms: float
    machine: str
    commit: str


def newest(name: str, **point: Any) -> dict[str, Any]:
    """The newest row of a benchmark at a point."""
    path = RESULTS / f"{name}.jsonl"
    rows = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for line in reversed(rows):
        row: dict[str, Any] = json.loads(line)
        if all(row["point"].get(key) == value for key, value in point.items()):
            return row
    raise InputError(f"{name} has not been measured at {point}: python -m benchmarks.run {name}")


def measured() -> Measured:
    common = {"corpus": "docs", "megabytes": 200}
    core = newest("index-build-core", tier="fm", **common)
    build = newest("index-build", **common)
    count = newest("index-count", tier="fm", **common)["results"]["unspool"]
    opened = newest("index-open", tier="fm", **common)["results"]["unspool"]
    return Measured(
        build_mb_s=core["results"]["unspool"]["median"],
        ratio=build["results"]["unspool"]["facts"]["size_ratio"],
        pair_mb_s=build["results"]["unspool"]["median"],
        count_us=count["median"],
        count_shards=build["results"]["unspool"]["facts"]["shards"],
        open_ms=opened["median"],
        machine=f"{core['machine']['cpu']}, {core['machine']['cores']} cores",
        commit=core["commit"],
    )


def shard_bytes(node: Node) -> float:
    return min(node.memory / (node.cores * BYTES_PER_BUILD_BYTE), LARGEST_SHARD)


def build_table(found: Measured, node: Node) -> str:
    rows = []
    for name, size in TEXTS:
        seconds = size / (found.build_mb_s * node.efficiency * 1e6)
        node_seconds = seconds / node.cores
        dollars = seconds / 3600 * node.price_core_hour
        index = size * found.ratio
        rows.append(
            [
                name,
                f"{math.ceil(size / shard_bytes(node)):,}",
                _size(index),
                f"{seconds / 3600:,.0f}",
                _days(node_seconds),
                _days(node_seconds / 75),
                f"${dollars:,.0f}",
                f"${index / 1e9 * node.price_gb_month:,.0f}",
            ]
        )
    heads = ["text", "shards", "index", "core hours", "one node", "75 nodes", "build"]
    return markdown([*heads, "index, a month"], rows)


def query_table(found: Measured, node: Node) -> str:
    """A count of 32 bytes, warm and cold, on as many nodes as hold 20 TB of index each."""
    per_shard = found.count_us / found.count_shards * 1e-6
    rows = []
    for name, size in TEXTS:
        shards = math.ceil(size / shard_bytes(node))
        nodes = max(1, math.ceil(size * found.ratio / 20e12))
        here = math.ceil(shards / nodes)
        reads = here * 32 * 2  # two pages a step where nothing is cached
        rows.append(
            [
                name,
                f"{nodes:,}",
                f"{here:,}",
                human_seconds(here * per_shard),
                human_seconds(reads / node.reads_per_second),
                human_seconds(here * found.open_ms / found.count_shards / 1000),
                f"{2 * here / MAPS_PER_PROCESS:.0%}",
            ]
        )
    heads = ["text", "nodes", "shards a node", "count, cached", "count, from disk", "open"]
    return markdown([*heads, "of the maps that a process may have"], rows)


def basis(found: Measured, node: Node) -> str:
    gain = found.build_mb_s / PUBLISHED_RATE
    lines = [
        f"- Measured ({found.machine}, commit {found.commit}): {found.build_mb_s:.1f} MB/s on one "
        f"core, {found.pair_mb_s:.1f} on two ({found.pair_mb_s / found.build_mb_s / 2:.0%} each), "
        f"an index of {found.ratio:.2f} of the text, {found.count_us:.1f} µs a count over "
        f"{found.count_shards:.0f} shards, {found.open_ms:.1f} ms to open them.",
        f"- Assumed: nodes of {node.cores} cores, {human_bytes(node.memory)} of memory and "
        f"{node.reads_per_second:,.0f} random reads a second; {node.efficiency:.0%} of that rate "
        f"from a core while all are at work; ${node.price_core_hour} a core hour; "
        f"${node.price_gb_month} a gigabyte and month; {BYTES_PER_BUILD_BYTE} bytes of memory for "
        f"each byte of a shard, so shards of {human_bytes(shard_bytes(node))}.",
        f"- The paper reports {PUBLISHED_RATE} MB/s a core for its builds: {gain:.0f} times less "
        "than one core does here, on other machines and another text.",
    ]
    return "\n".join(lines)


def _size(value: float) -> str:
    for unit, scale in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value / 1e6:.3g} MB"


def _days(seconds: float) -> str:
    if seconds < 3600:
        return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


def generator(argument: str) -> str:
    """Fill `<!-- scale:begin basis|build|query -->`."""
    made = {"basis": basis, "build": build_table, "query": query_table}
    if argument not in made:
        raise InputError(f"There is no table {argument!r} of scale: {', '.join(made)}.")
    try:
        return made[argument](measured(), Node())
    except InputError as error:
        return f"Not measured yet ({error})."


def main(argv: Sequence[str] | None = None) -> int:
    for name in ("basis", "build", "query"):
        emit_text(generator(name) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
