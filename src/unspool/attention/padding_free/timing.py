"""Count what a padding-free model computes, and how long it takes, without waiting for a GPU.

What: counters over forward passes; on a GPU pairs of events that are read when a report is asked
for.
Source: none.
Differs from timing with synchronisation: the passes stay asynchronous.
Cost: two events a pass.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from unspool.attention.padding_free.report import PaddingReport

if TYPE_CHECKING:
    from unspool.attention.padding_free.layout import Layout

_MANY = 256
"""Pairs of events that may wait to be read."""


class Counter:
    """The counts behind a `PaddingReport`; safe under threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Count from zero."""
        with self._lock:
            self._counts = dict.fromkeys(("batches", "sequences", "tokens", "padded", "filled"), 0)
            self._seconds = 0.0
            self._events: list[tuple[Any, Any]] = []

    @contextlib.contextmanager
    def counting(self, layout: Layout, is_flat: bool) -> Iterator[None]:
        """Around one forward pass."""
        rows, columns = layout.batch_shape
        began, before = time.perf_counter(), _event(layout)
        yield
        after = _event(layout)
        with self._lock:
            counts = self._counts
            counts["batches"] += 1
            counts["sequences"] += len(layout.lengths) if is_flat else rows
            counts["tokens"] += layout.tokens
            counts["padded"] += rows * columns
            counts["filled"] += layout.tail
            if before is None:
                self._seconds += time.perf_counter() - began
            else:
                self._events.append((before, after))
                if len(self._events) > _MANY:
                    self._read(len(self._events) - _MANY)

    def _read(self, count: int) -> None:
        for before, after in self._events[:count]:
            after.synchronize()
            self._seconds += before.elapsed_time(after) / 1e3
        del self._events[:count]

    def report(self) -> PaddingReport:
        """The counts so far; waits for the passes that run."""
        with self._lock:
            self._read(len(self._events))
            counts = self._counts
            return PaddingReport(
                batches=counts["batches"],
                sequences=counts["sequences"],
                tokens=counts["tokens"],
                padded_tokens=counts["padded"],
                filled_tokens=counts["filled"],
                seconds=self._seconds,
            )


def _event(layout: Layout) -> Any:
    import torch

    if layout.indices.device.type != "cuda":
        return None
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
