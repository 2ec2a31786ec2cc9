"""The service over an index in groups: the same answers, and none smaller without a word."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.index.test_remote import InProcess
from tests.server.conftest import Client, write_index
from unspool.errors import ConfigError
from unspool.index import ray_groups
from unspool.index.build import build_index
from unspool.server.app import make_app
from unspool.server.settings import ServerSettings

WORDS = ("lazy dog", "red fish", "a cat", "the moon")
ASKED: list[tuple[str, Any]] = [
    ("count", {"query": "fish"}),
    ("count/batch", {"queries": ["fish", "dog", "zebra"]}),
    ("find", {"query": "fish", "limit": 5}),
    ("find/batch", {"queries": ["dog", "moon"], "limit": 2}),
    ("documents", {"query": "cat", "limit": 3}),
    ("next", {"query": "red "}),
    ("next/batch", {"queries": ["red ", "zz"], "infgram": True}),
    ("prob", {"query": "red", "continuation": " "}),
    ("prob/batch", {"pairs": [{"query": "re", "continuation": "d"}]}),
    ("cnf", {"clauses": [["red"], ["moon", "cat"]], "window": 200}),
    ("trace", {"text": "a red fish and a lazy dog", "min_length": 4}),
    ("document", {"document": "d3"}),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("grouped")
    documents = [(f"d{n}", f"{' and '.join(WORDS)} {n} " * 8, {}) for n in range(8)]
    build_index(documents=documents, out=out / "ix", piece_size=300, shard_size=700)
    return out / "ix"


def served(folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> tuple[Client, Any]:
    """A client of a service over three groups, and the groups."""
    monkeypatch.setattr(ray_groups, "RayGroups", InProcess)
    monkeypatch.setattr(InProcess, "wanted", 3)
    app: Any = make_app(ServerSettings(engine="ray", **settings), {"main": (folder,)})
    shelf = app._app._service.shelf
    return Client(app), shelf.get("main").current.index._native._groups


def test_answers_are_those_of_one_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client, _ = served(folder, monkeypatch)
    alone = Client(make_app(ServerSettings(), {"main": (folder,)}))
    for path, body in ASKED:
        found = client.post(f"/v1/indexes/main/{path}", body)
        assert found.status_code == 200, found.text
        assert found.json() == alone.post(f"/v1/indexes/main/{path}", body).json()
    asked = {"index": "main", "query_type": "count", "query": "fish"}
    assert client.post("/", asked).json()["count"] == alone.post("/", asked).json()["count"] > 0


def test_missing_shards_are_an_error_that_names_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, groups = served(folder, monkeypatch)
    groups.dead = {2}
    for path, body in ASKED[:-1]:
        answer = client.post(f"/v1/indexes/main/{path}", body)
        assert answer.status_code == 503, (path, answer.text)
        assert answer.json()["error"]["code"] == "shards_missing"
        assert groups.names[2][0] in answer.json()["error"]["message"]
    assert client.get("/v1/indexes/main").json()["state"] == "serving"  # the files are sound
    groups.dead = set()
    assert client.post("/v1/indexes/main/count", {"query": "fish"}).json()["count"] == 64


def test_partial_answers_are_marked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client, groups = served(folder, monkeypatch, partial=True)
    groups.dead = {0}
    names = sorted(groups.names[0])
    for path, body in ASKED[:-1]:
        answer = client.post(f"/v1/indexes/main/{path}", body)
        assert answer.status_code == 200, (path, answer.text)
        assert answer.json()["partial"] is True
        assert answer.json()["missing"] == names
    count = client.post("/v1/indexes/main/count", {"query": "fish"}).json()["count"]
    assert 0 < count < 64
    by_address = client.get("/v1/indexes/main/count?query=fish").json()
    assert (by_address["count"], by_address["missing"]) == (count, names)
    old = client.post("/", {"index": "main", "query_type": "count", "query": "fish"}).json()
    assert (old["count"], old["missing"]) == (count, names)
    page = client.get("/", params={"q": "fish"}, headers={"Accept": "text/html"}).text
    assert "Some shards do not answer" in page
    assert names[0] in page
    groups.dead = {0, 1, 2}
    assert client.post("/v1/indexes/main/count", {"query": "fish"}).status_code == 503
    groups.dead = set()
    whole = client.post("/v1/indexes/main/count", {"query": "fish"}).json()
    assert whole == {"query": "fish", "count": 64}
    page = client.get("/", params={"q": "fish"}, headers={"Accept": "text/html"}).text
    assert "Some shards" not in page


def test_partial_answers_stand_in_the_schema(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client, _ = served(folder, monkeypatch)
    forms = client.get("/openapi.json").json()["components"]["schemas"]
    for name in ("Count", "Found", "ProbBatch", "Traced"):
        assert {"partial", "missing"} <= set(forms[name]["properties"])
        assert not {"partial", "missing"} & set(forms[name].get("required", []))


def test_a_replaced_index_ends_on_the_cluster_after_its_last_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write_index(tmp_path, {"a": "one fish"}, "a")
    second = write_index(tmp_path, {"a": "one fish two fish"}, "b")
    monkeypatch.setattr(ray_groups, "RayGroups", InProcess)
    settings = ServerSettings(engine="ray", search_seconds=0.2, reload_seconds=0.1)
    app: Any = make_app(settings, {"x": (first,)})
    shelf = app._app._service.shelf
    before = shelf.get("x").current.index
    first.rename(tmp_path / "old")
    second.rename(first)
    assert shelf.refresh() == ["x"]
    assert before.count("fish") == 1
    assert shelf.get("x").current.index.count("fish") == 2
    end = time.monotonic() + 20
    while not before._native._groups.dead and time.monotonic() < end:
        time.sleep(0.05)
    assert before._native._groups.dead
    assert not shelf.get("x").current.index._native._groups.dead
    shelf.close()
    assert shelf.get("x").current.index._native._groups.dead


def test_what_settings_refuse() -> None:
    for wrong in ({"replicas": 2}, {"partial": True}):
        with pytest.raises(ConfigError, match="engine ray"):
            ServerSettings(**wrong)
