"""`run.json`: the only file of an index that may say when, where and by whom it was built."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import orjson

from unspool.index._files import canonical, write_atomic
from unspool.index.manifest import RUN


def processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def digest(raw: bytes | None) -> str | None:
    return None if raw is None else hashlib.blake2b(raw, digest_size=16).hexdigest()


@dataclass(slots=True)
class Run:
    """Times, machine and versions, and how each input file looked when its digest was taken."""

    stats: dict[str, str] = field(default_factory=dict)
    """For each file its size, times of change in ns, and inode: while they stay, so does the
    content."""
    runs: list[dict[str, Any]] = field(default_factory=list)

    def begin(self, settings: Mapping[str, Any]) -> None:
        self.runs.append(
            {
                "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "host": platform.node(),
                "machine": platform.machine(),
                "versions": _versions(),
                **settings,
            }
        )

    def end(self, seconds: float, peak_bytes: int) -> None:
        self.runs[-1] |= {"seconds": round(seconds, 3), "peak_bytes": peak_bytes}

    def write(self, folder: Path) -> None:
        write_atomic(folder / RUN, [canonical({"stats": self.stats, "runs": self.runs})])


def read_run(folder: Path) -> Run:
    """The earlier runs of a build. A file that cannot be read is as good as none: all it saves is
    reading the input once more."""
    try:
        value = orjson.loads((folder / RUN).read_bytes())
        return Run(dict(value["stats"]), list(value["runs"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Run()


def notes(heads: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What was not taken as it stood, added up over all pieces."""
    totals: dict[str, int] = {}
    lossy = sum(head["lossy"] for head in heads)
    for head in heads:
        for what, count in head["notes"].items():
            totals[what] = totals.get(what, 0) + count
    if lossy:
        totals["documents that their tokens do not spell"] = lossy
    return tuple(f"{count:,} {what}" for what, count in totals.items() if count)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("unspool", "numpy", "zstandard", "orjson", "tokenizers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
