"""One model, many who ask: questions wait in line, fairly, and end when nobody waits for them.

What: answers are written one at a time in a thread of their own. Whoever asks has a line of
their own; the lines are served in turn, so that one client with a hundred questions delays another
by one question. A question is given up when its client leaves, when it waited too long or was
written for too long.
Cost: a hop between threads for each piece of an answer, about 50 µs.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from unspool.backends.stream import Cancelled
from unspool.server.failures import ServiceError, too_busy
from unspool.server.settings import ServerSettings

Produce = Callable[[Callable[[], bool]], Generator[Any, None, None]]
"""Called in the thread with a function that says whether to stop; yields the pieces."""


@dataclass(eq=False)
class _Job:
    produce: Produce
    pieces: asyncio.Queue[tuple[str, Any]] = field(default_factory=asyncio.Queue)
    left: threading.Event = field(default_factory=threading.Event)
    end: float = float("inf")

    def over(self) -> bool:
        return self.left.is_set() or time.monotonic() > self.end


class Writer:
    """The line in front of the model of one process."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._lines: OrderedDict[str, deque[_Job]] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, "model")
        self._running: asyncio.Task[None] | None = None
        self.waiting = 0
        """Questions that wait or are being answered."""

    async def pieces(self, client: str, produce: Produce) -> AsyncIterator[Any]:
        """What `produce` yields, once it is this client's turn.

        Raises:
            ServiceError: 503 if the line is full or did not move in time, 504 if writing took too
                long; and whatever `produce` raises.
        """
        if self.waiting >= self._settings.max_waiting:
            raise too_busy(f"{self.waiting} questions are waiting for the model. Try again later.")
        job = _Job(produce)
        self._lines.setdefault(client, deque()).append(job)
        self.waiting += 1
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._serve())
        try:
            try:
                async with asyncio.timeout(self._settings.wait_seconds):
                    kind, value = await job.pieces.get()
            except TimeoutError:
                raise ServiceError(
                    503,
                    "waited_too_long",
                    f"The model was busy for {self._settings.wait_seconds:g} s. Try again later.",
                    retry_after=10,
                ) from None
            while kind != "done":
                if kind == "error":
                    raise value
                if kind == "piece":
                    yield value
                kind, value = await job.pieces.get()
        finally:
            job.left.set()
            self.waiting -= 1
            line = self._lines.get(client)
            if line is not None and job in line:
                line.remove(job)
                if not line:
                    del self._lines[client]

    def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _serve(self) -> None:
        while self._lines:
            client, line = next(iter(self._lines.items()))
            job = line.popleft()
            if line:
                self._lines.move_to_end(client)
            else:
                del self._lines[client]
            if not job.left.is_set():
                loop = asyncio.get_running_loop()
                job.pieces.put_nowait(("begun", None))
                await loop.run_in_executor(self._thread, self._write, job, loop)

    def _write(self, job: _Job, loop: asyncio.AbstractEventLoop) -> None:
        """Runs in the thread of the model."""

        def put(kind: str, value: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
                loop.call_soon_threadsafe(job.pieces.put_nowait, (kind, value))

        job.end = time.monotonic() + self._settings.generate_seconds
        try:
            with contextlib.closing(job.produce(job.over)) as pieces:
                for piece in pieces:
                    put("piece", piece)
                    if job.over():
                        break
            if time.monotonic() > job.end:
                raise Cancelled("late")
        except Cancelled:
            seconds = self._settings.generate_seconds
            message = f"The answer was not complete after {seconds:g} s. Ask for fewer tokens."
            put("error", ServiceError(504, "deadline_exceeded", message))
        except Exception as error:  # told to whoever asked, in the task that waits for it
            put("error", error)
        put("done", None)
