"""Indexes that are replaced, copied over, damaged, or gone, under a running service."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.conftest import Client, listening, write_index
from unspool.errors import ConfigError, IndexIncomplete, PathNotFound
from unspool.server.app import make_app
from unspool.server.settings import ServerSettings
from unspool.server.shelf import Served, Shelf


def damage(folder: Path) -> None:
    """Overwrite the middle of the index file, in place, without changing its size."""
    (file,) = folder.glob("*.fm")
    size = file.stat().st_size
    with open(file, "r+b") as out:
        out.seek(4096)
        out.write(os.urandom(size - 4096))


def replace(folder: Path, other: Path) -> None:
    """Put another directory in the place of one."""
    folder.rename(folder.with_suffix(".old"))
    other.rename(folder)


def test_a_replaced_index_is_opened_again(tmp_path: Path) -> None:
    first = write_index(tmp_path, {"a": "one fish"}, "a")
    second = write_index(tmp_path, {"a": "one fish two fish", "b": "red fish"}, "b")
    served = Served("x", [first])
    before = served.current
    assert not served.refresh()
    replace(first, second)
    assert served.refresh()
    assert served.current.index.count("fish") == 3
    assert served.current.fingerprint != before.fingerprint
    assert before.index.count("fish") == 1  # who began on the old one ends on it
    assert not served.refresh()


def test_a_copy_under_way_leaves_the_old_one_in_service(tmp_path: Path) -> None:
    first = write_index(tmp_path, {"a": "one fish"}, "a")
    second = write_index(tmp_path, {"a": "one fish two fish"}, "b")
    served = Served("x", [first])
    shutil.rmtree(first)
    first.mkdir()
    (shard,) = second.glob("*.fm")
    shutil.copy(shard, first)
    assert not served.refresh()  # no manifest yet
    assert served.current.index.count("fish") == 1
    for file in second.iterdir():
        shutil.copy(file, first)
    assert served.refresh()
    assert served.current.index.count("fish") == 2


def test_a_cursor_of_a_replaced_index_is_refused(tmp_path: Path) -> None:
    first = write_index(tmp_path, {"a": "one fish two fish"}, "a")
    second = write_index(tmp_path, {"a": "one fish two fish red fish"}, "b")
    app: Any = make_app(ServerSettings(), {"x": (first,)})
    client = Client(app)
    page = client.post("/v1/indexes/x/find", {"query": "fish", "limit": 1}).json()
    replace(first, second)
    app._app._service.shelf.refresh()
    again = {"query": "fish", "limit": 1, "cursor": page["next_cursor"]}
    answer = client.post("/v1/indexes/x/find", again)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "index_replaced")


def test_a_damaged_index_is_503_and_the_rest_is_served(tmp_path: Path, index_dir: Path) -> None:
    bad = write_index(tmp_path, {"a": "a fish " * 5000}, "bad")
    good_copy = tmp_path / "copy"
    shutil.copytree(bad, good_copy)
    app: Any = make_app(ServerSettings(), {"bad": (bad,), "main": (index_dir,)})
    client = Client(app)
    damage(bad)
    for path, body in (
        ("count", {"query": "fish"}),
        ("count/batch", {"queries": ["fish"]}),
        ("find", {"query": "fish"}),
    ):
        answer = client.post(f"/v1/indexes/bad/{path}", body)
        assert answer.status_code == 503, answer.text
        assert answer.json()["error"]["code"] == "index_unavailable"
        assert answer.headers["retry-after"]
        assert str(tmp_path) not in answer.text
    assert client.post("/v1/indexes/main/count", {"query": "dog"}).status_code == 200
    health = client.get("/healthz").json()
    assert (health["status"], health["damaged"]) == ("degraded", 1)
    assert client.get("/v1/indexes/bad").json()["state"] == "damaged"
    assert 'unspool_index_up{index="bad"} 0.0' in client.get("/metrics").text
    asked = {"index": "bad", "query_type": "count", "query": "fish"}
    assert client.post("/", asked).status_code == 503
    page = client.get("/", params={"q": "dog"}, headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert "out of service" in page.text
    shutil.rmtree(bad)
    good_copy.rename(bad)
    assert app._app._service.shelf.refresh() == ["bad"]
    assert client.post("/v1/indexes/bad/count", {"query": "fish"}).json()["count"] == 5000


def test_an_index_that_is_damaged_at_the_start_does_not_stop_the_rest(
    tmp_path: Path, index_dir: Path
) -> None:
    bad = write_index(tmp_path, {"a": "fish"}, "bad")
    (shard,) = bad.glob("*.fm")
    shard.write_bytes(shard.read_bytes()[:-1])
    client = Client(make_app(ServerSettings(), {"bad": (bad,), "main": (index_dir,)}))
    assert client.post("/v1/indexes/bad/count", {"query": "x"}).status_code == 503
    assert client.post("/v1/indexes/main/count", {"query": "x"}).status_code == 200


def test_what_cannot_be_served(tmp_path: Path, index_dir: Path) -> None:
    with pytest.raises(PathNotFound):
        Shelf({"x": (tmp_path / "nothing",)})
    with pytest.raises(IndexIncomplete):
        Shelf({"x": (tmp_path,)})
    for name in ("", "a/b", "a b", "x" * 101):
        with pytest.raises(ConfigError, match="named by"):
            Shelf({name: (index_dir,)})


def test_no_request_is_lost_while_an_index_is_replaced(tmp_path: Path) -> None:
    first = write_index(tmp_path, {"a": "fish " * 200}, "a")
    others = [write_index(tmp_path, {"a": "fish " * (201 + n)}, f"b{n}") for n in range(3)]
    app = make_app(ServerSettings(reload_seconds=0.05), {"x": (first,)})
    counts: list[int] = []
    problems: list[str] = []
    done = threading.Event()

    def ask(address: str) -> None:
        with httpx.Client(base_url=address) as client:
            while not done.is_set():
                answer = client.post("/v1/indexes/x/find", json={"query": "fish", "limit": 3})
                if answer.status_code == 200:
                    counts.append(answer.json()["count"])
                else:
                    problems.append(answer.text)

    with listening(app) as address:
        threads = [threading.Thread(target=ask, args=(address,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        while len(counts) < 5:
            time.sleep(0.01)
        for number, other in enumerate(others):
            first.rename(tmp_path / f"old{number}")
            other.rename(first)
            end = time.monotonic() + 5
            while (not counts or counts[-1] != 201 + number) and time.monotonic() < end:
                time.sleep(0.02)
        done.set()
        for thread in threads:
            thread.join()
    assert problems == []
    assert set(counts) == {200, 201, 202, 203}
