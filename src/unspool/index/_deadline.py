"""The deadline of this thread, for the native engine and for shards that are asked elsewhere."""

from __future__ import annotations

import threading
import time

from unspool import _native

_local = threading.local()


def set_deadline(seconds: int | float | None) -> None:
    """Searches of this thread end after so many seconds from now; None: they may take any time."""
    _native.set_deadline(seconds)
    _local.end = None if seconds is None else time.monotonic() + seconds


def seconds_left() -> float | None:
    """Until the deadline of this thread; None without one."""
    end = getattr(_local, "end", None)
    return None if end is None else float(end) - time.monotonic()
