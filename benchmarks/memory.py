"""Memory of a process and all its children, sampled while they run (Linux; elsewhere zero)."""

from __future__ import annotations

import threading
from pathlib import Path


class MemoryWatch:
    """Samples the memory of a process and all its children, ten times a second.

    `peak` is the largest sum of proportional set sizes (a shared page counts once in all),
    `peak_private` of memory that no file backs. Both are 0 where the kernel does not say.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.peak = self.peak_private = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.1):
            total = private = 0
            for pid in _tree(self.pid):
                try:
                    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
                except OSError:  # gone, or not Linux
                    continue
                for line in text.splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
                    elif line.startswith("Pss_Anon:"):
                        private += int(line.split()[1]) * 1024
            self.peak, self.peak_private = max(self.peak, total), max(self.peak_private, private)


def _tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        try:
            for children in Path(f"/proc/{parent}/task").glob("*/children"):
                found += [int(child) for child in children.read_text(encoding="ascii").split()]
        except OSError:  # a task that ended while it was looked at
            continue
    return found
