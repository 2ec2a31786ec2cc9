"""The most memory that a build's processes held together.

On Linux the proportional set size of each process is read several times a second, so that pages
that processes share, and mapped files, count once; elsewhere each process's own peak is added up.
"""

from __future__ import annotations

import resource
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType


def proportional_bytes(pid: int | str) -> int:
    """Memory of one process, shared pages divided among those that share them; 0 if unknown."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return 0


class PeakMemory:
    """Watches this process and some others while a block runs."""

    def __init__(self, pids: Callable[[], list[int]], interval: float = 0.1) -> None:
        self._pids = pids
        self._interval = interval
        self._stop = threading.Event()
        self._peak = 0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    @property
    def bytes(self) -> int:
        """Peak so far, in bytes."""
        if self._peak:
            return self._peak
        unit = 1 if sys.platform == "darwin" else 1024
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return (own + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) * unit

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            self._sample()

    def _sample(self) -> None:
        others = sum(proportional_bytes(pid) for pid in self._pids())
        total = proportional_bytes("self") + others
        self._peak = max(self._peak, total)
