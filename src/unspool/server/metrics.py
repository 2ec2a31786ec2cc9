"""Figures of the service in the form that Prometheus reads.

Routes are counted by their pattern, never by what was asked, so the figures hold no query and
their number stays bounded. With several processes each writes its figures into files of one
folder (`PROMETHEUS_MULTIPROC_DIR`), and any of them adds them up.
"""

from __future__ import annotations

import os
from typing import Any

from unspool._optional import require

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0, 60.0, 600.0)


class Metrics:
    """The counters of one process."""

    def __init__(self) -> None:
        self._client = require("prometheus_client", extra="server", purpose="unspool serve")
        self._shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        client = self._client
        self.registry = client.CollectorRegistry()
        given: dict[str, Any] = {"registry": self.registry}
        self._requests = client.Counter(
            "unspool_requests", "Requests by route and status.", ("route", "status"), **given
        )
        self._seconds = client.Histogram(
            "unspool_request_seconds",
            "Time from the first byte asked to the last byte answered.",
            ("route",),
            buckets=_BUCKETS,
            **given,
        )
        self.tokens = client.Counter(
            "unspool_tokens", "Tokens of prompts and answers.", ("kind",), **given
        )
        self.reloads = client.Counter(
            "unspool_index_reloads", "Indexes opened again after a change.", ("index",), **given
        )
        gauge = dict(given, multiprocess_mode="livesum")
        self.waiting = client.Gauge(
            "unspool_waiting", "Requests that wait or run, by kind.", ("kind",), **gauge
        )
        self.up = client.Gauge(
            "unspool_index_up",
            "1 while an index is in service.",
            ("index",),
            registry=self.registry,
            multiprocess_mode="livemin",
        )
        self._children: dict[tuple[str, int], tuple[Any, Any]] = {}

    def observe(self, route: str, status: int, seconds: float) -> None:
        """One answered request."""
        found = self._children.get((route, status))
        if found is None:
            found = self._requests.labels(route, str(status)), self._seconds.labels(route)
            self._children[route, status] = found
        found[0].inc()
        found[1].observe(seconds)

    def text(self) -> bytes:
        """All figures, of all processes, as text."""
        registry = self.registry
        if self._shared:
            shared = require("prometheus_client.multiprocess", extra="server", purpose="Figures")
            registry = self._client.CollectorRegistry()
            shared.MultiProcessCollector(registry)
        return bytes(self._client.generate_latest(registry))
