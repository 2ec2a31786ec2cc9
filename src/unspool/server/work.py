"""Searches run beside the event loop, with a deadline each, and short ones on it.

What: two lanes of threads, so that long searches cannot hold up short ones; a search that waits
and runs past its time ends by itself, since the native engine polls a deadline. A single count
takes less time than the way to a thread and back, so it is tried on the loop first, with a
deadline of milliseconds; while counts turn out slow (a cold disk), they go to the threads as well.
Cost: a hop to a thread, about 60 µs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar

from unspool._machine import usable_cores
from unspool.errors import DeadlineExceeded
from unspool.index._deadline import set_deadline
from unspool.server.failures import ServiceError, too_busy

T = TypeVar("T")
Lane = Literal["quick", "slow"]

_INLINE_SECONDS = 0.02
_TOO_SLOW = 0.002
_SMOOTHING = 0.02


class Work:
    """Runs searches of one process."""

    def __init__(self, seconds: int | float, most_waiting: int) -> None:
        self.seconds = seconds
        self.waiting = 0
        self._most = most_waiting
        cores = usable_cores()
        self._lanes: dict[Lane, ThreadPoolExecutor] = {
            "quick": ThreadPoolExecutor(max(2, cores), "quick"),
            "slow": ThreadPoolExecutor(max(2, cores), "slow"),
        }
        self._average = 0.0

    async def run(self, call: Callable[[], T], lane: Lane = "quick") -> T:
        """The result of a call made in a thread, before the deadline or not at all."""
        if self.waiting >= self._most:
            raise too_busy(f"{self.waiting} searches are waiting already. Try again in a moment.")
        end = time.monotonic() + self.seconds
        self.waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._lanes[lane], self._timed, call, end)
        except DeadlineExceeded:
            raise self._late() from None
        finally:
            self.waiting -= 1

    def at_once(self, call: Callable[[], T]) -> T | None:
        """The result of a short call made here and now; None if it is not short after all."""
        if self._average > _TOO_SLOW:
            self._average *= 1 - _SMOOTHING  # so that it is tried again before long
            return None
        started = time.perf_counter()
        set_deadline(_INLINE_SECONDS)
        try:
            return call()
        except DeadlineExceeded:
            return None
        finally:
            set_deadline(None)
            self._average += (time.perf_counter() - started - self._average) * _SMOOTHING

    def check(self, estimate: int | float, hint: str) -> float:
        """Refuse a search that has no chance to end in time; returns the estimate."""
        if estimate > self.seconds:
            raise ServiceError(
                422,
                "too_costly",
                f"This search would take about {estimate:,.0f} s, and at most {self.seconds:g} s "
                f"are given to one. {hint}",
            )
        return estimate

    def close(self) -> None:
        for lane in self._lanes.values():
            lane.shutdown(wait=False, cancel_futures=True)

    def _timed(self, call: Callable[[], Any], end: float) -> Any:
        left = end - time.monotonic()
        if left <= 0:
            raise self._late()
        set_deadline(left)
        try:
            return call()
        finally:
            set_deadline(None)

    def _late(self) -> ServiceError:
        return ServiceError(
            504,
            "deadline_exceeded",
            f"The search did not end within {self.seconds:g} s. Ask for less: a longer query, a "
            "smaller limit, or order=index.",
        )
