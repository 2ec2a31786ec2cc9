"""tokengrams: a memory-mapped suffix table over bytes widened to its 16-bit tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from common import counted, main
from tokengrams import MemmapIndex


def build(workload: Path, out: Path) -> dict[str, Any]:
    joined = np.frombuffer((workload / "joined.txt").read_bytes(), dtype=np.uint8)
    joined.astype("<u2").tofile(out / "tokens.bin")
    MemmapIndex.build(str(out / "tokens.bin"), str(out / "table.bin"), vocab=256)
    return {"bytes": sum((out / n).stat().st_size for n in ("tokens.bin", "table.bin"))}


def query(asked: dict[str, Any], out: Path, part: str) -> dict[str, Any]:
    index = MemmapIndex(str(out / "tokens.bin"), str(out / "table.bin"), vocab=256)
    return counted(index.count, [list(q.encode()) for q in asked[part]])


if __name__ == "__main__":
    main(build, query)
