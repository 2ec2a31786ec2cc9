"""The endpoint of api.infini-gram.io: keys as its page lists them, values counted by hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.server.conftest import TEXTS, Client
from unspool.index.build import build_index
from unspool.server.app import make_app
from unspool.server.settings import ServerSettings

ALL = "\0".join(TEXTS.values())
BASE = {"token_ids", "tokens", "latency"}


def ask(client: Client, kind: str, query: Any = None, **options: Any) -> Any:
    asked = {"index": "main", "query_type": kind, **options}
    asked |= {} if query is None else {"query": query}
    return client.post("/", asked).json()


def test_the_names_of_the_indexes(client: Client) -> None:
    assert client.get("/").json() == ["main"]


def test_count(client: Client) -> None:
    found = ask(client, "count", "the dog")
    assert set(found) == BASE | {"count", "approx"}
    assert found["count"] == ALL.count("the dog")
    assert found["approx"] is False
    assert found["token_ids"] == list(b"the dog")
    assert found["tokens"] == list("the dog")
    assert found["latency"] >= 0
    same = ask(client, "count", query_ids=list(b"the dog"))
    assert same["count"] == found["count"]
    old = client.post("/", {"corpus": "main", "query_type": "count", "query": "the dog"}).json()
    assert old["count"] == found["count"]


def test_count_of_clauses(client: Client) -> None:
    found = ask(client, "count", "quick OR quickly AND dog")
    assert set(found) == BASE | {"count", "approx"}
    assert found["count"] > 0
    assert found["tokens"] == [[list("quick"), list("quickly")], [list("dog")]]
    ids = [[list(b"quick"), list(b"quickly")], [list(b"dog")]]
    assert ask(client, "count", query_ids=ids)["count"] == found["count"]


def test_probabilities(client: Client) -> None:
    found = ask(client, "prob", "lazy dog.")
    assert set(found) == BASE | {"prompt_cnt", "cont_cnt", "prob"}
    assert (found["prompt_cnt"], found["cont_cnt"]) == (
        ALL.count("lazy dog"),
        ALL.count("lazy dog."),
    )
    assert found["prob"] == found["cont_cnt"] / found["prompt_cnt"]
    assert ask(client, "prob", "zebra!")["prob"] == -1.0
    found = ask(client, "infgram_prob", "Zlazy dog.")
    assert set(found) == BASE | {"prompt_cnt", "cont_cnt", "prob", "suffix_len", "longest_suffix"}
    assert (found["suffix_len"], found["longest_suffix"]) == (8, "lazy dog")
    assert "non-empty" in ask(client, "prob", "")["error"]


@pytest.mark.parametrize("kind", ["ntd", "infgram_ntd"])
def test_distributions(client: Client, kind: str) -> None:
    found = ask(client, kind, "lazy dog")
    extra = {"suffix_len", "longest_suffix"} if kind == "infgram_ntd" else set()
    assert set(found) == BASE | {"prompt_cnt", "result_by_token_id", "approx"} | extra
    after = Counter(
        text[at + 8]
        for text in TEXTS.values()
        for at in range(len(text) - 8)
        if text.startswith("lazy dog", at)
    )
    results = found["result_by_token_id"]
    assert {each["token"]: each["cont_cnt"] for each in results.values()} == dict(after)
    assert all(set(each) == {"cont_cnt", "prob", "token"} for each in results.values())
    assert sum(each["prob"] for each in results.values()) == pytest.approx(1)
    if kind == "infgram_ntd":
        assert found["longest_suffix"] == "lazy dog"


def test_documents(client: Client) -> None:
    found = ask(client, "search_docs", "lazy", maxnum=3, max_disp_len=30)
    assert set(found) == BASE | {"cnt", "approx", "idxs", "documents", "message"}
    assert found["cnt"] == ALL.count("lazy")
    assert len(found["documents"]) == 3
    for document in found["documents"]:
        assert {"doc_ix", "doc_len", "disp_len", "token_ids", "spans", "metadata"} <= set(document)
        assert ["lazy", "0"] in document["spans"]
        text = "".join(text for text, _ in document["spans"])
        assert text.encode() == bytes(document["token_ids"])
        assert text in ALL
        assert document["disp_len"] == len(document["token_ids"]) <= 30
    both = ask(client, "search_docs", "quick AND lazy", maxnum=1, max_disp_len=100)
    labels = {label for _, label in both["documents"][0]["spans"]}
    assert labels >= {"0", "1"}
    none = ask(client, "search_docs", "zebra")
    assert (none["cnt"], none["documents"], none["message"]) == (0, [], "0 occurrences found")


def test_find_and_a_document_by_its_place(client: Client) -> None:
    found = ask(client, "find", "lazy")
    assert found["cnt"] == sum(high - low for low, high in found["segment_by_shard"])
    found = ask(client, "find", "quick AND dog")
    assert found["cnt"] == sum(map(len, found["ptrs_by_shard"]))
    pointer = found["ptrs_by_shard"][0][0]
    document = ask(client, "get_doc_by_ptr", query_ids=[], s=0, ptr=pointer, max_disp_len=20)
    assert "".join(text for text, _ in document["spans"]) in ALL


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ({"query_type": "count", "query": "x"}, 400, "index"),
        ({"index": "main", "query": "x"}, 400, "query_type"),
        ({"index": "other", "query_type": "count", "query": "x"}, 400, "other"),
        ({"index": "main", "query_type": "sum", "query": "x"}, 400, "sum"),
        ({"index": "main", "query_type": "count"}, 400, "Exactly one"),
        ({"index": "main", "query_type": "count", "query": "x", "query_ids": [1]}, 400, "Exactly"),
        ({"index": "main", "query_type": "count", "query": 5}, 200, "string"),
        ({"index": "main", "query_type": "count", "query": "x" * 1001}, 200, "1000"),
        ({"index": "main", "query_type": "count", "query_ids": [1] * 501}, 200, "500"),
        ({"index": "main", "query_type": "count", "query_ids": [[1]]}, 200, "nested"),
        ({"index": "main", "query_type": "count", "query_ids": [300]}, 200, "255"),
        ({"index": "main", "query_type": "count", "query_ids": [[[300]]]}, 200, "255"),
        ({"index": "main", "query_type": "count", "query_ids": [[[]]]}, 200, "empty"),
        ({"index": "main", "query_type": "count", "query": " AND ".join("abcde")}, 200, "4"),
        ({"index": "main", "query_type": "prob", "query": "a AND b"}, 200, "AND"),
        ({"index": "main", "query_type": "search_docs", "query": "a", "maxnum": 11}, 200, "10"),
        (
            {"index": "main", "query_type": "search_docs", "query": "a", "maxnum": "1"},
            200,
            "maxnum",
        ),
        ({"index": "main", "query_type": "count", "query": "a", "colour": 1}, 200, "colour"),
        ({"index": "main", "query_type": "get_doc_by_ptr", "query_ids": []}, 200, "s"),
        ([], 400, "object"),
    ],
)
def test_errors_come_as_error(client: Client, asked: Any, status: int, said: str) -> None:
    answer = client.post("/", asked)
    assert answer.status_code == status
    assert set(answer.json()) >= {"error"}
    assert said in answer.json()["error"]


def test_a_token_index_is_asked_in_its_tokens(tmp_path: Path) -> None:
    words = {w: n for n, w in enumerate(["<unk>", "</s>", "the", "dog", "cat", "ran"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "a.txt").write_text("the dog ran the cat ran the dog")
    build_index(
        [tmp_path / "a.txt"],
        tmp_path / "idx",
        alphabet=f"tokenizer:{tmp_path / 'tokenizer.json'}",
        allow_lossy=True,
    )
    client = Client(make_app(ServerSettings(), {"main": (tmp_path / "idx",)}))
    found = ask(client, "ntd", "the dog")
    assert found["token_ids"] == [2, 3]
    # The document ends once after "the dog"; the end stands under the tokenizer's own end token.
    assert {k: v["cont_cnt"] for k, v in found["result_by_token_id"].items()} == {"5": 1, "1": 1}
    assert ask(client, "count", "the")["count"] == 3
    assert client.post("/v1/indexes/main/count", {"query": "the dog"}).json()["count"] == 2
    page = client.get("/", params={"q": "the"}, headers={"Accept": "text/html"}).text
    assert "dog" in page
