"""The settings of the service. What a request may hold is in `schemas`, where its form is."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any, Literal

from unspool.errors import ConfigError

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerSettings:
    """Where the service listens, who may ask, and how long anything may take."""

    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback needs a token."""
    port: int = 8080
    token: str | None = None
    """What clients send as `Authorization: Bearer`; None: no token is asked for."""
    allow_hosts: tuple[str, ...] = ()
    """Further names under which the service is reached, as browsers send them in `Host`."""
    workers: int = 1
    """Processes that answer. Each opens the indexes by mmap, and loads a model of its own."""
    search_seconds: int | float = 5.0
    """Most time of one search, waiting included."""
    generate_seconds: int | float = 600.0
    """Most time that a model writes one answer."""
    wait_seconds: int | float = 120.0
    """Most time that a request waits for the model."""
    body_seconds: int | float = 30.0
    """Most time that a client may take to send a request."""
    max_body: int = 16 * MIB
    """Most bytes of a request to the API."""
    max_upload: int = 256 * MIB
    """Most bytes of a text given to the reading page."""
    max_waiting: int = 256
    """Most searches, and most questions to the model, that wait; more are put off with 503."""
    reload_seconds: int | float = 1.0
    """How often the directories of the indexes are looked at."""
    engine: Literal["local", "ray"] = "local"
    """Where indexes are searched: in the processes that answer, or on a Ray cluster."""
    replicas: int | None = None
    """On a cluster: nodes that hold each shard; None: two where there are two."""
    partial: bool = False
    """On a cluster: answer without shards that no node answers for, and name them in the answer."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port must be between 0 and 65535, got {self.port}.")
        if self.workers < 1:
            raise ConfigError(f"workers must be at least 1, got {self.workers}.")
        for name in ("search_seconds", "generate_seconds", "wait_seconds", "body_seconds"):
            value = getattr(self, name)
            if not value > 0:
                raise ConfigError(f"{name} must be above 0, got {value}.")
        if self.engine == "local" and (self.replicas is not None or self.partial):
            raise ConfigError("replicas and partial answers are for engine ray.")
        if self.token is None and not is_loopback(self.host):
            raise ConfigError(
                f"{self.host} can be reached from other machines, so a token is needed: put one of "
                "at least 16 characters into the environment variable UNSPOOL_SERVER_TOKEN."
            )
        if self.token is not None and not re.fullmatch(r"[!-~]{16,512}", self.token):
            raise ConfigError(
                "A token is 16 to 512 printable ASCII characters without spaces. Make one with: "
                "python -c 'import secrets; print(secrets.token_urlsafe())'"
            )


def opening_of(settings: ServerSettings) -> dict[str, Any]:
    """How the indexes are opened, as `open_index` takes it."""
    if settings.engine == "local":
        return {}
    return {"engine": "ray", "replicas": settings.replicas, "partial": settings.partial}


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
