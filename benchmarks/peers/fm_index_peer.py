"""fm-index: one index over the joined text, held in memory, kept as its own pickle."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from common import main, timed
from fm_index import FMIndex


def build(workload: Path, out: Path) -> dict[str, Any]:
    index = FMIndex((workload / "joined.txt").read_bytes().decode())
    with open(out / "index.pickle", "wb") as file:
        pickle.dump(index, file)
    return {"bytes": (out / "index.pickle").stat().st_size}


def query(asked: dict[str, Any], out: Path) -> dict[str, Any]:
    with open(out / "index.pickle", "rb") as file:
        index = pickle.load(file)  # written by the build of this same benchmark
    micros, counts = timed(index.count, asked["counts"])
    locate, hits = timed(lambda q: len(index.locate(q)), asked["locate"])
    return {
        "count_micros": micros,
        "counts": counts,
        "locate_micros_per_hit": [t / max(n, 1) for t, n in zip(locate, hits, strict=True)],
    }


if __name__ == "__main__":
    main(build, query)
