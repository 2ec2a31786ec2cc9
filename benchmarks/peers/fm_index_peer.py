"""fm-index: one index over the joined text, held in memory, kept as its own pickle."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from common import counted, located, main
from fm_index import FMIndex


def build(workload: Path, out: Path) -> dict[str, Any]:
    index = FMIndex((workload / "joined.txt").read_bytes().decode())
    with open(out / "index.pickle", "wb") as file:
        pickle.dump(index, file)
    return {"bytes": (out / "index.pickle").stat().st_size}


def query(asked: dict[str, Any], out: Path, part: str) -> dict[str, Any]:
    with open(out / "index.pickle", "rb") as file:
        index = pickle.load(file)  # its only format; written by this same benchmark
    if part == "counts":
        return counted(index.count, asked[part])
    return located(lambda q: len(index.locate(q)), asked[part])


if __name__ == "__main__":
    main(build, query)
