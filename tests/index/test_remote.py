"""An index asked in groups answers as one opened whole; what is missing is said, never left out."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.index.test_search import DOCUMENTS, TEXTS, byte_level
from unspool.errors import ConfigError, IndexCorrupt, QueryError, ShardsMissing
from unspool.index import ray_groups
from unspool.index.build import build_index
from unspool.index.open import open_index
from unspool.index.ray_groups import split
from unspool.index.results import Matches
from unspool.index.shard_group import ShardGroup


class InProcess:
    """Groups in this process; those in `dead` give no answer."""

    wanted = 2

    def __init__(self, groups: Sequence[ShardGroup], names: Sequence[Sequence[str]]) -> None:
        self.groups, self.names = groups, names
        self.dead: set[int] = set()

    @classmethod
    def start(cls, folders: Any, manifests: Any, tier: str, load: str, replicas: Any) -> InProcess:
        names = [
            f"{folder.name}/{shard.files[tier]['name']}"
            for folder, manifest in zip(folders, manifests, strict=True)
            for shard in manifest.shards
        ]
        bounds = split(len(names), min(cls.wanted, len(names)))
        places = [str(folder) for folder in folders]
        groups = [ShardGroup(places, first, last, tier, load) for first, last in bounds]
        return cls(groups, [names[first:last] for first, last in bounds])

    def ask(self, group: int, name: str, args: Sequence[Any]) -> Any:
        if group in self.dead:
            raise ShardsMissing(self.names[group])
        return self.groups[group].answer(name, args)

    def ask_all(self, name: str, args: Sequence[Any]) -> list[Any]:
        return [
            ShardsMissing(self.names[g]) if g in self.dead else self.ask(g, name, args)
            for g in range(len(self.groups))
        ]

    def close(self) -> None:
        self.end()

    def end(self) -> None:
        self.dead = set(range(len(self.groups)))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("remote")
    common: dict[str, Any] = {"documents": DOCUMENTS, "piece_size": 60}
    build_index(out=root / "both", shard_size=90, tier="both", **common)
    build_index(out=root / "stored", shard_size=150, store_text="zstd", **common)
    build_index(out=root / "one", **common)
    alphabet = f"tokenizer:{byte_level(root)}"
    build_index(out=root / "tokens", alphabet=alphabet, shard_size=60, **common)
    return {path.name: path for path in root.iterdir() if path.is_dir()}


@pytest.fixture(params=["both-sa", "both-fm", "stored", "one", "tokens"])
def pair(request: Any, built: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same index opened whole, and in groups."""
    name, _, tier = request.param.partition("-")
    monkeypatch.setattr(ray_groups, "RayGroups", InProcess)
    monkeypatch.setattr(InProcess, "wanted", 3)
    options: Any = {"tier": tier or None}
    with (
        open_index(built[name], **options) as whole,
        open_index(built[name], engine="ray", **options) as parts,
    ):
        yield whole, parts


QUERIES = ["the", "t", "cat", "naïve", "🙂", "aaaa", "zz", "abra", " ", "the the", "字かな 🙂"]
RANDOM = random.Random(0)


def same(a: Any, b: Any) -> None:
    """Equal, arrays compared by element and type."""
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, (list, tuple)):
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif isinstance(a, Matches):
        same((a.lengths, a.counts), (b.lengths, b.counts))
    else:
        assert a == b


def questions(ix: Any) -> list[Any]:
    """One of every kind, as functions of an index."""
    after: Any = [int(ix.encode(q)[0]) for q in QUERIES]
    return [
        lambda x: [x.count(q) for q in ["", *QUERIES]],
        lambda x: x.count_batch(QUERIES),
        lambda x: [x.next(q) for q in ["", *QUERIES]],
        lambda x: x.next_batch(QUERIES, top=2),
        lambda x: [x.prob(q, a) for q, a in zip(QUERIES, [*after[1:], -1], strict=True)],
        lambda x: x.prob_batch(QUERIES, after),
        lambda x: [x.prob("the", "the"), x.prob("a", -1), x.infgram("zzthe", " cat")],
        lambda x: [x.infgram("xx" + q, a) for q, a in zip(QUERIES, after, strict=True)],
        lambda x: x.infgram_batch(["zz" + q for q in QUERIES]),
        lambda x: x.infgram_batch(["zz" + q for q in QUERIES], after),
        lambda x: x.infgram_counts(QUERIES)[0],
        lambda x: [x.find(q, limit=None, order=o) for q in QUERIES for o in ("index", "position")],
        lambda x: [x.find(q, limit=7, order="random", seed=3, start=2) for q in QUERIES],
        lambda x: [x.find(q, limit=4, context=0, start=1) for q in QUERIES],
        lambda x: [x.documents(q, limit=5, order=o) for q in QUERIES for o in ("index", "random")],
        lambda x: [x.cnf([["cat", "the"], ["naïve"]], window=w, limit=None) for w in (3, 40)],
        lambda x: x.cnf([["the"], ["cat"]], sample=2, seed=1),
        lambda x: [x.longest_match(text) for text in ["", *TEXTS, "zz".join(TEXTS)]],
        lambda x: x.trace("a naïve cat ate the the mat. zzz", rank="rarity", max_sources=3),
        lambda x: x.trace("the cat sat on 漢字 mats", min_length=2),
        lambda x: [x.extract(n) for n in range(len(x))],
        lambda x: [x.document(id) for id, _, _ in DOCUMENTS],
        lambda x: [x.document_number(id) for id, _, _ in DOCUMENTS],
        lambda x: [x.quote(n, 0, x.document_length(n) // 2) for n in (0, 2, 17)],
        lambda x: [x.symbols(n) for n in (0, 2)],
        lambda x: [x.shards(), x.info(), len(x), x.verify(), x.take_missing()],
        lambda x: x.warm(),
    ]


def test_every_question_has_the_same_answer(pair: Any) -> None:
    whole, parts = pair
    for question in questions(whole):
        same(question(parts), question(whole))


@pytest.mark.parametrize(
    "pair",
    [
        "both-sa",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("both-fm", "stored", "tokens")),
    ],
    indirect=True,
)
def test_ten_thousand_random_queries(pair: Any) -> None:
    whole, parts = pair
    texts = [
        text[(at := RANDOM.randrange(len(text) or 1)) : at + RANDOM.randrange(1, 9)]
        + RANDOM.choice(["", "", "x"])
        for text in RANDOM.choices(TEXTS, k=10_000)
    ]
    same(parts.count_batch(texts), whole.count_batch(texts))
    asked = [text for text in texts if text][:300]
    same(parts.infgram_batch(asked), whole.infgram_batch(asked))
    symbols: Any = [int(whole.encode(text)[-1]) for text in asked]
    same(parts.infgram_batch(asked, symbols), whole.infgram_batch(asked, symbols))
    same(parts.prob_batch(asked, symbols), whole.prob_batch(asked, symbols))
    same([parts.find(t, limit=3) for t in asked[:30]], [whole.find(t, limit=3) for t in asked[:30]])


@settings(max_examples=40, deadline=None)
@given(st.text("the cat約aéz", max_size=30))
def test_matches_of_any_text(built_pair: Any, text: str) -> None:
    whole, parts = built_pair
    same(parts.longest_match(text), whole.longest_match(text))
    if text:
        same(parts.infgram(text), whole.infgram(text))
        same(parts.next(text), whole.next(text))


@pytest.fixture(scope="module")
def built_pair(built: dict[str, Path]) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_groups, "RayGroups", InProcess)
        patch.setattr(InProcess, "wanted", 4)
        yield open_index(built["both"]), open_index(built["both"], engine="ray")


def test_errors_are_those_of_one_index(pair: Any, tmp_path: Path) -> None:
    whole, parts = pair
    for call in (
        lambda x: x.document("nothing"),
        lambda x: x.extract(0, 5, 2),
        lambda x: x.describe(10_000),
        lambda x: x.find(""),
        lambda x: x.count([1 << 30]),
    ):
        with pytest.raises(QueryError) as expected:
            call(whole)
        with pytest.raises(QueryError) as found:
            call(parts)
        assert str(found.value) == str(expected.value)


def open_parts(folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Any, Any]:
    monkeypatch.setattr(ray_groups, "RayGroups", InProcess)
    monkeypatch.setattr(InProcess, "wanted", 3)
    index = open_index(folder, engine="ray", **options)
    return index, index._native._groups


def test_a_missing_group_is_an_error_that_names_its_shards(
    built: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    index, groups = open_parts(built["both"], monkeypatch)
    groups.dead = {1}
    for call in (
        lambda: index.count("the"),
        lambda: index.infgram("the"),
        lambda: index.longest_match("the cat"),
        lambda: index.find("the"),
        lambda: index.document(DOCUMENTS[0][0]),
        lambda: index.trace("the cat sat"),
    ):
        with pytest.raises(ShardsMissing) as error:
            call()
        assert error.value.shards == tuple(groups.names[1])
        assert groups.names[1][0] in str(error.value)
    groups.dead = set()
    assert index.count("the") == open_index(built["both"]).count("the")


def test_partial_answers_name_what_they_lack(
    built: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    index, groups = open_parts(built["both"], monkeypatch, partial=True)
    whole = open_index(built["both"])
    assert index.count("the") == whole.count("the")
    assert index.take_missing() == ()
    groups.dead = {0, 2}
    alone = groups.groups[1].index
    for question in questions(whole)[:10]:
        same(question(index), question(alone))
    assert index.take_missing() == (*groups.names[0], *groups.names[2])
    assert index.take_missing() == ()
    hits = index.find("the", limit=None)
    assert len(hits) == alone.count("the") < whole.count("the")
    assert [h.span for h in hits] == [h.span for h in alone.find("the", limit=None)]
    assert index.take_missing()
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(index.take_missing()))
    index.count("the")
    thread.start()
    thread.join()
    assert seen == [()]  # noted for the thread that asked
    # A document is never said to be nowhere while it may be in what is missing.
    with pytest.raises(ShardsMissing):
        index.document("nothing")
    groups.dead = {0, 1, 2}
    with pytest.raises(ShardsMissing):
        index.count("the")


def test_damage_is_told_as_damage(
    built: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    group = ShardGroup([str(built["both"])], 0, 1, "fm")
    assert group.reply("count", ["the"])["result"] >= 0
    told = group.reply("extract", [0, 10_000, 0, 1])
    assert told["error"] == "QueryError"
    assert "10000" in told["message"]
    with pytest.raises(ValueError, match="no question"):
        group.reply("close", [])
    with pytest.raises(ValueError, match="no question"):
        group.reply("__class__", [])
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in built["one"].iterdir():
        (broken / file.name).write_bytes(file.read_bytes()[:-1])
    with pytest.raises(IndexCorrupt):
        ShardGroup([str(broken)], 0, 1, "fm")


@pytest.mark.parametrize(("items", "parts"), [(1, 1), (7, 3), (8, 8), (100, 7)])
def test_groups_are_consecutive_and_even(items: int, parts: int) -> None:
    bounds = split(items, parts)
    assert [n for first, last in bounds for n in range(first, last)] == list(range(items))
    sizes = [last - first for first, last in bounds]
    assert max(sizes) - min(sizes) <= 1


def test_what_goes_with_a_cluster_only(built: dict[str, Path]) -> None:
    for options in ({"replicas": 2}, {"partial": True}):
        with pytest.raises(ConfigError, match="engine='ray'"):
            open_index(built["one"], **options)
