"""Start the service: one process, or several that share a port.

What: every process listens on a socket of its own, all on one port (SO_REUSEPORT), so that the
kernel spreads connections evenly; a parent starts them, starts one again that dies, on the same
socket, and ends them all. Processes share nothing but the page cache, in which the indexes lie.
Cost: one more process, which sleeps.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from unspool._optional import require
from unspool.errors import BackendError, ConfigError
from unspool.index.open import open_index
from unspool.server.settings import ServerSettings, opening_of

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from unspool.types import LanguageModel

_SHARED = "PROMETHEUS_MULTIPROC_DIR"
_CLUSTER = "RAY_ADDRESS"
_GRACE = 10
"""Seconds that running requests are given when the service ends."""
_QUICK_DEATH = 5.0
"""A process that lives less than this is not started again more than a few times."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """What is served: indexes by name, and a model by the name that `load_model` takes."""

    indexes: Mapping[str, tuple[Path, ...]]
    model: str | None = None
    """None: no model; "": the embedded one."""
    endpoint: str | None = None
    """An OpenAI-compatible server that `model` is asked from."""
    method: str | None = None
    """How the model reads past its window."""


def serve(settings: ServerSettings, served: Served) -> None:
    """Serve until interrupted.

    Raises:
        ConfigError: Nothing is to be served.
        BackendError: The address cannot be listened on, or a process dies again and again.
        MissingExtra: The packages of `unspool[server]` are not installed.
    """
    for package in ("fastapi", "uvicorn", "jinja2", "prometheus_client", "python_multipart"):
        require(package, extra="server", purpose="unspool serve")
    if not served.indexes and served.model is None and served.endpoint is None:
        raise ConfigError(
            "There is nothing to serve. Give --index NAME=DIR, --model NAME, or both; --model '' "
            "is the small model that comes with the package."
        )
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("unspool.server").setLevel(logging.INFO)
    for quiet in ("httpx", "urllib3", "filelock", "bm25s", "ray", "ray.serve"):
        logging.getLogger(quiet).setLevel(logging.WARNING)
    sockets = listen(settings)
    try:
        if settings.workers == 1:
            _work(settings, served, sockets[0], announce=True)
        else:
            _Parent(settings, served, sockets).run()
    finally:
        for each in sockets:
            each.close()


def listen(settings: ServerSettings) -> list[socket.socket]:
    """A socket for each process, all on one port; port 0 takes any that is free."""
    host = settings.host.strip("[]")
    port, found = settings.port, []
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        for _ in range(settings.workers):
            each = socket.socket(family, socket.SOCK_STREAM)
            found.append(each)
            if settings.workers > 1:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            else:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind((host, port))
            port = each.getsockname()[1]
            each.listen(2048)
            each.set_inheritable(True)
    except OSError as error:
        for each in found:
            each.close()
        raise BackendError(
            f"Cannot listen on {settings.host} port {settings.port}: {error.strerror}. Choose "
            "another with --port; --port 0 takes any that is free."
        ) from None
    return found


def address(settings: ServerSettings, listening: socket.socket) -> str:
    host = settings.host if ":" not in settings.host else f"[{settings.host.strip('[]')}]"
    return f"http://{host}:{listening.getsockname()[1]}"


def _work(
    settings: ServerSettings, served: Served, listening: socket.socket, *, announce: bool
) -> None:
    """Serve in this process until it is told to end."""
    import uvicorn

    from unspool.server.app import make_app

    app = make_app(settings, served.indexes, _load(served))
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: F401  # its presence is all that matters: uvicorn picks it itself
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_GRACE,
        backlog=2048,
        ws="none",
        log_level="warning",
    )
    server = uvicorn.Server(config)
    if announce:
        _announce(settings, served, listening)
    with contextlib.suppress(KeyboardInterrupt):  # raised again after an orderly end
        server.run(sockets=[listening])


def _load(served: Served) -> LanguageModel | None:
    if served.model is None and served.endpoint is None:
        return None
    from unspool.backends.load import load_model

    return load_model(served.model or None, endpoint=served.endpoint, method=served.method)


def _announce(settings: ServerSettings, served: Served, listening: socket.socket) -> None:
    log = logging.getLogger("unspool.server")
    for name, folders in served.indexes.items():
        log.info("Index %s: %s", name, ", ".join(map(str, folders)))
    needs = "" if settings.token is None else " A token is needed: UNSPOOL_SERVER_TOKEN."
    log.info("Serving at %s%s", address(settings, listening), needs)


class _Parent:
    """Starts the processes, keeps their number, ends them."""

    def __init__(
        self, settings: ServerSettings, served: Served, sockets: Sequence[socket.socket]
    ) -> None:
        self._settings, self._served, self._sockets = settings, served, sockets
        self._context = multiprocessing.get_context("spawn")
        self._ending = False
        self._deaths = 0

    def run(self) -> None:
        with _shared_metrics(), _deployed(self._settings, self._served), self._signals():
            running = [self._start(each) for each in self._sockets]
            _announce(self._settings, self._served, self._sockets[0])
            try:
                while not self._ending:
                    time.sleep(0.2)
                    for number, process in enumerate(running):
                        if not process[0].is_alive():
                            running[number] = self._again(number, process)
            finally:
                self._end([process for process, _ in running])

    def _start(self, listening: socket.socket) -> tuple[SpawnProcess, float]:
        process = self._context.Process(
            target=_child, args=(self._settings, self._served, listening), daemon=False
        )
        process.start()
        return process, time.monotonic()

    def _again(self, number: int, dead: tuple[SpawnProcess, float]) -> tuple[SpawnProcess, float]:
        process, born = dead
        self._deaths = self._deaths + 1 if time.monotonic() - born < _QUICK_DEATH else 1
        if self._deaths > 3:
            self._ending = True
            raise BackendError(
                f"A process of the service ended {self._deaths} times as it began (exit code "
                f"{process.exitcode}). What it said stands above."
            )
        logging.getLogger("unspool.server").warning(
            "A process of the service ended (exit code %s); it is started again.", process.exitcode
        )
        return self._start(self._sockets[number])

    def _end(self, processes: Sequence[SpawnProcess]) -> None:
        for process in processes:
            process.terminate()
        end = time.monotonic() + _GRACE + 5
        for process in processes:
            process.join(max(0.1, end - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def end(number: int, frame: FrameType | None) -> None:
            self._ending = True

        kept = {s: signal.signal(s, end) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)


def _child(settings: ServerSettings, served: Served, listening: socket.socket) -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _work(settings, served, listening, announce=False)


def _end_with_parent() -> None:
    """End in order when the parent is gone without having said so, as when it was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def _deployed(settings: ServerSettings, served: Served) -> Iterator[None]:
    """Indexes on a cluster, begun once for all processes and ended with them."""
    if settings.engine == "local":
        yield
        return
    from unspool.index.ray_groups import connect

    before = os.environ.get(_CLUSTER)
    with contextlib.ExitStack() as held:
        os.environ[_CLUSTER] = connect().get_runtime_context().gcs_address
        try:
            for folders in served.indexes.values():
                held.enter_context(open_index(list(folders), **opening_of(settings)))
            yield
        finally:
            os.environ.pop(_CLUSTER)
            if before is not None:
                os.environ[_CLUSTER] = before


@contextlib.contextmanager
def _shared_metrics() -> Iterator[None]:
    """A folder in which the figures of all processes meet."""
    folder = tempfile.mkdtemp(prefix="unspool-metrics-")
    before = os.environ.get(_SHARED)
    os.environ[_SHARED] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SHARED]
        else:
            os.environ[_SHARED] = before
        shutil.rmtree(folder, ignore_errors=True)


def parse_indexes(given: Sequence[str]) -> dict[str, tuple[Path, ...]]:
    """Names and directories from `NAME=DIR`, or `DIR` alone, which is named after itself."""
    found: dict[str, tuple[Path, ...]] = {}
    for each in given:
        name, separator, folder = each.partition("=")
        if not separator:
            name, folder = Path(each).resolve().name, each
        if not folder or not name:
            raise ConfigError(f"An index is given as NAME=DIR, got {each!r}.")
        path = Path(folder)
        if path in found.get(name, ()):
            raise ConfigError(f"The directory {folder} is given twice for the index {name}.")
        found[name] = (*found.get(name, ()), path)
    return found


def settings_from(environment: Mapping[str, str], **values: Any) -> ServerSettings:
    """Settings, with the token from the environment: command lines can be seen by others."""
    return ServerSettings(token=environment.get("UNSPOOL_SERVER_TOKEN") or None, **values)
