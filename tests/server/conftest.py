"""A small index, a service over it, and two ways to ask: in the process, and over a socket."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from unspool.backends.scripted import ScriptedModel  # noqa: E402  # after the skips
from unspool.index.build import build_index  # noqa: E402
from unspool.server.app import make_app  # noqa: E402
from unspool.server.settings import ServerSettings  # noqa: E402

TEXTS = {
    "fox.txt": "The quick brown fox jumps over the lazy dog. The quick brown fox sleeps.",
    "dogs.txt": "A lazy dog sleeps. The lazy dog sleeps long. quickly, the dog ran.",
    "hebrew.txt": "שלום עולם, שלום לך. טקסט ארוך מאוד.",
    "chinese.txt": "這是一個很長的文本。長文本需要被完整地閱讀。長文本很重要。",
    "hostile.txt": "<script>alert('x')</script> \"quoted\" & 'text' \x1b[31m \u202eabc",
    "emoji.txt": "🙂🙃 naïve café — “quotes” 🙂🙃 again",
    "long.txt": "".join(f"line {n} of a long text, number {n * n}.\n" for n in range(3000)),
}


def write_index(folder: Path, texts: Mapping[str, str] = TEXTS, name: str = "idx") -> Path:
    """Build an index of some texts."""
    source = folder / f"{name}.jsonl"
    records = [{"id": i, "text": t, "kind": "test"} for i, t in texts.items()]
    source.write_text("".join(json.dumps(r) + "\n" for r in records))
    build_index([source], folder / name)
    return folder / name


@pytest.fixture(scope="session")
def index_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_index(tmp_path_factory.mktemp("served"))


def echo(prompt: str) -> str:
    """Answers with the last words of a prompt."""
    return " you said" + prompt.replace("\nassistant:", "")[-40:]


def fresh(index_dir: Path) -> Any:
    """An app with one index and a scripted model of a window of 200 words."""
    return make_app(ServerSettings(), {"main": (index_dir,)}, ScriptedModel(echo, window=200))


@pytest.fixture(scope="session")
def service(index_dir: Path) -> Any:
    """Such an app, for every test that does not change it."""
    return fresh(index_dir)


class Client:
    """Asks an app in this process, one request at a time."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, method: str, path: str, **options: Any) -> Any:
        async def ask() -> Any:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            base = "http://localhost:8080"
            async with httpx.AsyncClient(transport=transport, base_url=base) as client:
                return await client.request(method, path, **options)

        return asyncio.run(ask())

    def get(self, path: str, **options: Any) -> Any:
        return self("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> Any:
        return self("POST", path, **({"json": body} if body is not None else {}), **options)


@pytest.fixture(scope="session")
def client(service: Any) -> Client:
    return Client(service)


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """Serve an app on a free port of loopback; gives its address."""
    import uvicorn

    from unspool.server.run import listen

    (sock,) = listen(ServerSettings(port=0))
    config = uvicorn.Config(app, log_config=None, ws="none", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: server.run(sockets=[sock]), daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the server did not start")
            threading.Event().wait(0.01)
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        sock.close()
