"""What the routes of one process share: settings, indexes, the model, threads and figures."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from unspool.index.engine import Index
from unspool.server.metrics import Metrics
from unspool.server.settings import ServerSettings, opening_of
from unspool.server.shelf import Opened, Served, Shelf
from unspool.server.work import Lane, Work
from unspool.server.writer import Writer
from unspool.types import LanguageModel

if TYPE_CHECKING:
    from starlette.requests import Request

T = TypeVar("T")

MISSING: ContextVar[tuple[str, ...]] = ContextVar("missing", default=())
"""Shards that gave no answer in the searches of this request."""


class Service:
    """Everything that answers requests, except the routes."""

    def __init__(
        self,
        settings: ServerSettings,
        indexes: Mapping[str, Sequence[Path]],
        model: LanguageModel | None = None,
    ) -> None:
        self.settings = settings
        self.metrics = Metrics()
        # A request that began on an index may take so long after it was replaced.
        linger = 2 * settings.search_seconds + 2 * settings.reload_seconds
        self.shelf = Shelf(indexes, opening_of(settings), linger)
        self.work = Work(settings.search_seconds, settings.max_waiting)
        self.model = model
        self.writer = Writer(settings)
        for served in self.shelf:
            self.metrics.up.labels(served.name).set(served.damage is None)

    async def search(
        self,
        served: Served,
        call: Callable[[Index], T],
        *,
        lane: Lane = "quick",
        estimate: Callable[[Index], float] | None = None,
        hint: str = "",
    ) -> T:
        """The result of a search of one index, in a thread, if it can end in time."""
        return await self.search_opened(
            served, lambda opened: call(opened.index), lane=lane, estimate=estimate, hint=hint
        )

    async def search_opened(
        self,
        served: Served,
        call: Callable[[Opened], T],
        *,
        lane: Lane = "quick",
        estimate: Callable[[Index], float] | None = None,
        hint: str = "",
    ) -> T:
        """The same, for what must know which opening of the index it asks."""

        def job() -> tuple[T, tuple[str, ...]]:
            with served.asked() as opened:
                opened.index.take_missing()  # what a search before left in this thread
                if estimate is not None:
                    self.work.check(estimate(opened.index), hint)
                return call(opened), opened.index.take_missing()

        try:
            found, missing = await self.work.run(job, lane)
            if missing:
                MISSING.set((*MISSING.get(), *missing))
            return found
        finally:
            self._note_state(served)

    def at_once(self, served: Served, call: Callable[[Opened], T]) -> T | None:
        """The result of a short search made here and now; None if it turns out long."""

        def job() -> T:
            with served.asked() as opened:
                return call(opened)

        try:
            return self.work.at_once(job)
        finally:
            if served.damage is not None:
                self._note_state(served)

    async def watch(self) -> None:
        """Look after the indexes until cancelled."""
        while True:
            await asyncio.sleep(self.settings.reload_seconds)
            with contextlib.suppress(OSError):
                for name in await asyncio.to_thread(self.shelf.refresh):
                    self.metrics.reloads.labels(name).inc()
            for served in self.shelf:
                self._note_state(served)

    def gauges(self) -> None:
        """Bring the gauges up to date, before they are read."""
        self.metrics.waiting.labels("search").set(self.work.waiting)
        self.metrics.waiting.labels("model").set(self.writer.waiting)

    def close(self) -> None:
        self.work.close()
        self.shelf.close()
        self.writer.close()

    def _note_state(self, served: Served) -> None:
        self.metrics.up.labels(served.name).set(served.damage is None)


def service_of(request: Request) -> Service:
    """The service that a request came to."""
    found: Service = request.app.state.service
    return found
