"""Pages of hits, put together, are the hits of one call."""

from __future__ import annotations

import pytest

from tests.index.small import make_corpus
from unspool.errors import QueryError
from unspool.index.build import build_index
from unspool.index.compat import InfiniGramEngine
from unspool.index.engine import Index
from unspool.index.find import Order
from unspool.index.open import open_index


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder = tmp_path_factory.mktemp("pages")
    make_corpus(folder / "texts")
    build_index([folder / "texts"], folder / "idx", shard_size=4000, piece_size=1000)
    found = open_index(folder / "idx")
    assert found.info().shards > 1  # a page may end in any of them
    return found


@pytest.mark.parametrize("order", ["index", "position", "random"])
@pytest.mark.parametrize("step", [1, 7, 64, 5000])
def test_pages_join_up(index: Index, order: Order, step: int) -> None:
    whole = index.find("text", limit=None, order=order, seed=3, context=0)
    assert len(whole) == index.count("text") > 64
    pages = []
    for start in range(0, len(whole) + step, step):
        pages += index.find("text", limit=step, order=order, seed=3, context=0, start=start)
    assert pages == whole


@pytest.mark.parametrize("order", ["index", "position", "random"])
def test_pages_of_documents_join_up(index: Index, order: Order) -> None:
    whole = index.documents("text", limit=None, order=order, seed=3, context=0)
    assert len({hit.number for hit in whole}) == len(whole) > 10
    pages = []
    for start in range(0, len(whole) + 4, 4):
        pages += index.documents("text", limit=4, order=order, seed=3, context=0, start=start)
    assert pages == whole


def test_a_start_past_the_end_finds_nothing(index: Index) -> None:
    assert index.find("text", start=10**9) == []


def test_a_negative_start_is_refused(index: Index) -> None:
    for search in (index.find, index.documents):
        with pytest.raises(QueryError, match="start must be 0 or more, got -1"):
            search("text", start=-1)


def test_the_compatible_engine_takes_an_open_index(index: Index) -> None:
    engine = InfiniGramEngine(index, eos_token_id=-1, token_dtype="u8")
    assert engine.count(list(b"text")) == {"count": index.count("text"), "approx": False}
