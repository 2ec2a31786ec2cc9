"""Every route of the search API against counting by hand, and against what it must refuse."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import TEXTS, Client, fresh, write_index
from unspool.server.app import make_app
from unspool.server.settings import ServerSettings

DATA = {name: text.encode() for name, text in TEXTS.items()}


@cache
def occurrences(query: str) -> list[tuple[str, int]]:
    """Where a query stands, overlapping ones too, document by document."""
    needle, found = query.encode(), []
    for name, data in DATA.items():
        at = data.find(needle)
        while at >= 0:
            found.append((name, at))
            at = data.find(needle, at + 1)
    return found


@pytest.mark.parametrize("query", ["the", "quick brown", "長文本", "שלום", "🙂", "zebra", "\x1b"])
def test_counts(client: Client, query: str) -> None:
    expected = {"query": query, "count": len(occurrences(query))}
    assert client.post("/v1/indexes/main/count", {"query": query}).json() == expected
    assert client.get("/v1/indexes/main/count", params={"query": query}).json() == expected
    ids = list(query.encode())
    found = client.post("/v1/indexes/main/count", {"query": ids}).json()
    assert found == {"query": ids, "count": expected["count"]}


def test_batches_of_counts_in_order(client: Client) -> None:
    queries = ["the", "dog", "zebra", "長", "the"] * 30
    expected = [len(occurrences(q)) for q in queries]
    assert client.post("/v1/indexes/main/count/batch", {"queries": queries}).json() == {
        "counts": expected
    }
    assert client.post("/v1/indexes/main/count/batch", {"queries": queries[:3]}).json() == {
        "counts": expected[:3]
    }
    mixed = client.post("/v1/indexes/main/count/batch", {"queries": ["dog", [100, 111, 103]]})
    assert mixed.json() == {"counts": [expected[1]] * 2}


@pytest.mark.parametrize("order", ["index", "position", "random"])
def test_pages_of_hits_join_up(client: Client, order: str) -> None:
    body = {"query": "7 of", "limit": 130, "order": order, "seed": 5, "context": 3}
    seen: list[tuple[str, int]] = []
    while True:
        found = client.post("/v1/indexes/main/find", body).json()
        assert found["count"] == len(occurrences("7 of"))
        seen += [(hit["document"], hit["start"]) for hit in found["hits"]]
        for hit in found["hits"]:
            data = DATA[hit["document"]]
            assert data[hit["start"] : hit["end"]] == b"7 of" == hit["text"].encode()
            assert hit["context"].encode() in data
        if found["next_cursor"] is None:
            break
        body["cursor"] = found["next_cursor"]
        body["limit"] = 60  # a page may be of another size
    assert sorted(seen) == sorted(occurrences("7 of"))
    if order == "position":
        assert seen == sorted(seen, key=lambda s: (list(DATA).index(s[0]), s[1]))


def test_pages_of_documents_hold_each_document_once(client: Client) -> None:
    body: dict[str, Any] = {"query": "e", "limit": 2}
    seen: list[str] = []
    while True:
        found = client.post("/v1/indexes/main/documents", body).json()
        seen += [hit["document"] for hit in found["hits"]]
        if found["next_cursor"] is None:
            break
        body["cursor"] = found["next_cursor"]
    assert sorted(seen) == sorted({name for name, _ in occurrences("e")})


def test_a_cursor_is_bound_to_its_question(client: Client) -> None:
    found = client.post("/v1/indexes/main/find", {"query": "e", "limit": 2}).json()
    other = {"query": "dog", "cursor": found["next_cursor"]}
    refused = client.post("/v1/indexes/main/find", other)
    assert refused.status_code == 422
    assert refused.json()["error"]["code"] == "bad_cursor"
    for junk in ("", "x", "AAAA", "é", "." * 50):
        answer = client.post("/v1/indexes/main/find", {"query": "e", "cursor": junk})
        assert answer.status_code == 422, junk


def test_find_batches(client: Client) -> None:
    body = {"queries": ["dog", "zebra"], "limit": 2, "context": 5}
    first, second = client.post("/v1/indexes/main/find/batch", body).json()["results"]
    assert first["count"] == len(occurrences("dog"))
    assert len(first["hits"]) == 2
    assert second == {"count": 0, "hits": [], "next_cursor": None}
    page = {"query": "dog", "limit": 2, "context": 5, "cursor": first["next_cursor"]}
    assert len(client.post("/v1/indexes/main/find", page).json()["hits"]) == 2


def test_documents_batches_go_on_at_the_single_address(client: Client) -> None:
    body = {"queries": ["e", "zebra", "dog"], "limit": 2, "context": 5}
    first, none, third = client.post("/v1/indexes/main/documents/batch", body).json()["results"]
    assert none == {"count": 0, "hits": [], "next_cursor": None}
    assert third["count"] == len(occurrences("dog"))
    seen = [hit["document"] for hit in first["hits"]]
    assert len(seen) == 2
    page: dict[str, Any] = {"query": "e", "limit": 50, "cursor": first["next_cursor"]}
    seen += [h["document"] for h in client.post("/v1/indexes/main/documents", page).json()["hits"]]
    assert sorted(seen) == sorted({name for name, _ in occurrences("e")})
    assert third["next_cursor"] is None or len({n for n, _ in occurrences("dog")}) > 2


def test_next_and_prob(client: Client) -> None:
    found = client.post("/v1/indexes/main/next", {"query": "lazy dog"}).json()
    after: dict[str, int] = {}
    for name, at in occurrences("lazy dog"):
        following = DATA[name][at + 8 : at + 9].decode()
        after[following] = after.get(following, 0) + 1
    assert {s["text"]: s["count"] for s in found["symbols"]} == after
    total = len(occurrences("lazy dog"))
    asked = {"query": "lazy dog", "continuation": " sleeps"}
    prob = client.post("/v1/indexes/main/prob", asked).json()
    assert prob == {
        "prompt_count": total,
        "count": 2,
        "prob": 2 / total,
        "suffix_length": 8,
    }
    backed_off = client.post("/v1/indexes/main/prob", {**asked, "query": "Zlazy dog"}).json()
    assert backed_off["prob"] is None
    backed_off = client.post(
        "/v1/indexes/main/prob", {**asked, "query": "Zlazy dog", "infgram": True}
    ).json()
    assert backed_off == prob
    end = {"query": "sleeps.", "continuation": None}
    assert client.post("/v1/indexes/main/prob", end).json()["count"] == 1
    pairs = [("lazy dog", " sleeps"), ("sleeps.", None)]
    batch: dict[str, Any] = {"pairs": [{"query": q, "continuation": c} for q, c in pairs]}
    results = client.post("/v1/indexes/main/prob/batch", batch).json()["results"]
    assert [r["count"] for r in results] == [2, 1]
    batch = {"queries": ["lazy dog", "zebra"], "infgram": False}
    results = client.post("/v1/indexes/main/next/batch", batch).json()["results"]
    assert [r["prompt_count"] for r in results] == [total, 0]


def test_cnf(client: Client) -> None:
    question = {"clauses": [["quick", "quickly"], ["dog"]], "window": 60, "limit": 5}
    found = client.post("/v1/indexes/main/cnf", question).json()
    assert found["exact"]
    assert found["count"] >= 2
    for hit in found["hits"]:
        assert "quick" in hit["text"]
        assert "dog" in hit["text"]
    batch = client.post("/v1/indexes/main/cnf/batch", {"questions": [question] * 2}).json()
    assert batch["results"] == [found, found]


def test_trace(client: Client) -> None:
    body = {"text": "I saw the quick brown fox jump", "min_length": 8}
    (span,) = client.post("/v1/indexes/main/trace", body).json()["spans"]
    assert span["text"] in "I saw the quick brown fox jump"
    assert span["count"] == len(occurrences(span["text"])) >= 1
    for source in span["sources"]:
        assert DATA[source["document"]][source["start"] : source["end"]] == span["text"].encode()
    many = {"texts": [body["text"], "xyzzy"], "min_length": 8}
    first, second = client.post("/v1/indexes/main/trace/batch", many).json()["results"]
    assert first["spans"] == [span]
    assert second["spans"] == []


def test_documents_by_id_and_number(client: Client) -> None:
    body = {"document": "chinese.txt", "start": 3, "end": 9}
    found = client.post("/v1/indexes/main/document", body).json()
    assert found["text"].encode() == DATA["chinese.txt"][3:9]
    assert found["length"] == len(DATA["chinese.txt"])
    assert found["meta"] == {"kind": "test"}
    same = client.post("/v1/indexes/main/document", {**body, "document": found["number"]}).json()
    assert same == found
    whole = client.post("/v1/indexes/main/document", {"document": "long.txt"}).json()
    assert whole["text"] == TEXTS["long.txt"]
    ranges = {"ranges": [body, {"document": 0}]}
    results = client.post("/v1/indexes/main/document/batch", ranges).json()["results"]
    assert results[0] == found
    missing = client.post("/v1/indexes/main/document", {"document": "nope"})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "no_such_document")
    outside = client.post("/v1/indexes/main/document", {"document": 0, "end": 10**9})
    assert outside.status_code == 422


def test_what_is_served_is_listed(client: Client, index_dir: Path) -> None:
    (only,) = client.get("/v1/indexes").json()["indexes"]
    assert only["name"] == "main"
    assert only["info"]["documents"] == len(TEXTS)
    assert client.get("/v1/indexes/main").json() == only
    assert str(index_dir) not in json.dumps(only)  # places on this machine are nobody's business
    unknown = client.get("/v1/indexes/other")
    assert unknown.status_code == 404
    assert "There are: main" in unknown.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("count", {}, "query"),
        ("count", {"query": 5}, "query"),
        ("count", {"query": "x", "extra": 1}, "extra"),
        ("count", {"query": "x" * 100_001}, "query"),
        ("count", {"query": [1, 300]}, "255"),
        ("count", {"query": [-1]}, "query"),
        ("count", {"query": [1.5]}, "query"),
        ("count", {"query": [True]}, "query"),
        ("count", [], "body"),
        ("count/batch", {"queries": []}, "queries"),
        ("count/batch", {"queries": ["x"] * 10_001}, "queries"),
        ("count/batch", {"queries": "the"}, "queries"),
        ("find", {"query": ""}, "query"),
        ("find", {"query": "x", "limit": 0}, "limit"),
        ("find", {"query": "x", "limit": 1001}, "limit"),
        ("find", {"query": "x", "order": "best"}, "order"),
        ("find", {"query": "x", "limit": 1000, "context": 10_000, "seed": -1}, "seed"),
        ("find/batch", {"queries": ["x"] * 100, "limit": 1000, "context": 1000}, "quote"),
        ("next", {"query": "x", "top": 0}, "top"),
        ("prob", {"query": "x", "continuation": ""}, "continuation"),
        ("prob/batch", {"pairs": [{"query": None, "continuation": "x"}]}, "query"),
        ("prob/batch", {"pairs": [["x"]]}, "pairs"),
        ("cnf", {"clauses": []}, "clauses"),
        ("cnf", {"clauses": [[""]]}, "clauses"),
        ("trace", {"text": "x", "min_length": 0}, "min_length"),
        ("trace", {"text": "x", "density": 0}, "density"),
        ("trace", {"text": "x", "delimiters": ["ab"]}, "delimiter"),
        ("document", {"document": -1}, "document"),
        ("document", {"document": 10**12}, "no number"),
    ],
)
def test_wrong_requests_are_told_what_is_wrong(
    client: Client, path: str, body: Any, said: str
) -> None:
    answer = client.post(f"/v1/indexes/main/{path}", body)
    assert answer.status_code in (400, 404, 422), answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert said in f"{error['param']} {error['message']}".lower()


def test_bodies_that_are_no_json(client: Client) -> None:
    sent = {"content": b'{"query": ', "headers": {"Content-Type": "application/json"}}
    assert client.post("/v1/indexes/main/count", **sent).status_code == 400
    sent = {"content": b'{"query":"\xff"}', "headers": {"Content-Type": "application/json"}}
    assert client.post("/v1/indexes/main/count", **sent).status_code == 400
    sent = {"content": b'{"query":"\\ud800"}', "headers": {"Content-Type": "application/json"}}
    assert client.post("/v1/indexes/main/count", **sent).status_code == 400


def test_long_answers_are_packed_for_who_can_unpack(client: Client) -> None:
    body = {"document": "long.txt"}
    packed = client.post("/v1/indexes/main/document", body, headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    plain = client.post("/v1/indexes/main/document", body, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert packed.json() == plain.json()
    assert len(gzip.compress(plain.content)) < len(plain.content) / 4


def test_several_directories_of_one_name_add_up(tmp_path: Path, index_dir: Path) -> None:
    more = write_index(tmp_path, {"more.txt": "the dog and the fox"}, "more")
    client = Client(make_app(ServerSettings(), {"both": (index_dir, more)}))
    expected = len(occurrences("the")) + 2
    assert client.post("/v1/indexes/both/count", {"query": "the"}).json()["count"] == expected


def test_figures_name_routes_and_never_queries(index_dir: Path) -> None:
    client = Client(fresh(index_dir))
    client.post("/v1/indexes/main/count", {"query": "secretphrase"})
    client.get("/v1/indexes/main/count", params={"query": "secretphrase"})
    client.get("/secretphrase")
    figures = client.get("/metrics").text
    assert 'unspool_requests_total{route="/v1/indexes/{index}/count",status="200"} 2.0' in figures
    assert 'unspool_index_up{index="main"} 1.0' in figures
    assert "secretphrase" not in figures


def test_health(client: Client) -> None:
    assert client.get("/healthz").json() == {
        "status": "ok",
        "indexes": 1,
        "damaged": 0,
        "model": "scripted@1",
    }


@pytest.mark.parametrize(
    "path", ["/v1/indexes/main/count", "/v1/indexes/main/trace", "/", "/v1/chat/completions"]
)
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"query": 1e999}',
        b'{"query": NaN}',
        b"",
        b"null",
        b'{"index":"main","query_type":"count","query":"\\ud800"}',
        b'{"model":"scripted","messages":[{"role":"user","content":"\\ud800"}]}',
    ],
    ids=range(8),
)
def test_hostile_bodies_are_refused_in_json(client: Client, path: str, body: bytes) -> None:
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500
    assert "error" in answer.json()


def test_a_fault_is_told_in_json_without_its_insides(
    index_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(fresh(index_dir))

    def fail(*_: object) -> None:
        raise RuntimeError("secret inside")

    monkeypatch.setattr("unspool.server.search.cost.of_trace", fail)
    answer = client.post("/v1/indexes/main/trace", {"text": "x"})
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "fault"
    assert "secret" not in answer.text
