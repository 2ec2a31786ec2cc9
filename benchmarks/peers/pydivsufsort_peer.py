"""pydivsufsort: a suffix array in memory and counts by its own binary search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydivsufsort
from common import counted, main


def build(workload: Path, out: Path) -> dict[str, Any]:
    text = np.frombuffer((workload / "joined.txt").read_bytes(), dtype=np.uint8).copy()
    array = pydivsufsort.divsufsort(text)
    array.tofile(out / "array.bin")
    text.tofile(out / "text.bin")
    return {"bytes": array.nbytes + text.nbytes}


def query(asked: dict[str, Any], out: Path, part: str) -> dict[str, Any]:
    text = (out / "text.bin").read_bytes()
    array = np.fromfile(out / "array.bin", dtype=np.int32)
    queries = [q.encode() for q in asked[part]]
    return counted(lambda q: pydivsufsort.sa_search(text, array, q)[0], queries)


if __name__ == "__main__":
    main(build, query)
