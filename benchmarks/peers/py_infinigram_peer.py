"""py-infinigram: a suffix array over bytes kept on disk, searched in Python.

It calls its continuations with every occurrence counted (`limit=None`), so that they are exact too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import counted, folder_bytes, main, timed
from infinigram import Infinigram


def build(workload: Path, out: Path) -> dict[str, Any]:
    joined = (workload / "joined.txt").read_bytes()
    Infinigram.build(joined, out / "model", verbose=False).close()
    return {"bytes": folder_bytes(out / "model")}


def query(asked: dict[str, Any], out: Path, part: str) -> dict[str, Any]:
    model = Infinigram.load(out / "model")
    if part == "counts":
        return counted(model.count, [list(q.encode()) for q in asked[part]])
    prompts = [list(p.encode()) for p, _ in asked["prompts"][:300]]
    micros, _ = timed(lambda p: model.continuations(p, limit=None), prompts)
    return {"micros": micros}


if __name__ == "__main__":
    main(build, query)
