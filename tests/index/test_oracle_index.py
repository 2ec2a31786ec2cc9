"""The open index against brute force on corpora that break indexes, whole and in k shards."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from tests.native.patterns import patterns, prompts
from tests.oracles.corpora import CORPORA
from tests.oracles.text import END, Brute
from unspool.errors import IndexCorrupt, IndexFileError
from unspool.index.build import build_index
from unspool.index.engine import Index
from unspool.index.open import open_index

NAMES = [
    "alphabet-256",
    "all-equal-lowest",
    "fibonacci",
    "prose-twice",
    "nul-and-ff",
    "empty-documents",
]
NAMES += ["identical-documents", "one-byte-documents", "only-spaces-lowest", "lone-separators"]


def build(out: Path, documents: list[list[int]], shards: int = 1, **settings) -> Index:
    """An index over these documents in about so many shards."""
    size = max(1, sum(map(len, documents)) // shards)
    named = [(f"d{i}", bytes(d)) for i, d in enumerate(documents)]
    pieces = {"piece_size": max(1, size // 4), "shard_size": size} if shards > 1 else {}
    build_index(documents=named, out=out, workers=1, **pieces, **settings)
    return open_index(out)


@pytest.fixture(params=[(n, k) for n in NAMES for k in (1, 3)], ids=str, scope="module")
def case(request, tmp_path_factory):
    name, shards = request.param
    documents = CORPORA[name]()
    with build(tmp_path_factory.mktemp("ix") / "a", documents, shards, tier="both") as ix:
        yield ix, documents, Brute(documents)


def places(ix: Index, query: bytes) -> list[tuple[int, int]]:
    return [(h.number, h.span.start) for h in ix.find(query, limit=None, order="position")]


def test_find_next_and_probability(case):
    ix, documents, brute = case
    for pattern in patterns(documents, 25, 31):
        q = bytes(pattern)
        assert ix.count(q) == brute.count(pattern)
        if pattern:
            assert places(ix, q) == brute.positions(pattern)
        found = ix.next(q)
        assert {s.symbol: s.count for s in found.symbols} == brute.next(pattern)
        assert found.prompt_count == sum(s.count for s in found.symbols)
        for symbol in found.symbols[:3]:
            asked = ix.prob(q, symbol.symbol)
            assert (asked.prompt_count, asked.count) == (found.prompt_count, symbol.count)
            assert asked.prob == symbol.prob == symbol.count / found.prompt_count
        end = ix.prob(q, END)
        assert end.count == brute.next(pattern).get(END, 0)
        assert (end.prob is None) == (brute.count(pattern) == 0)


def test_infgram_traces_and_longest_matches(case):
    ix, documents, brute = case
    for prompt in prompts(documents, 8, 32):
        q = bytes(prompt)
        length = brute.longest_suffix(prompt)
        suffix = prompt[len(prompt) - length :]
        found = ix.infgram(q)
        assert found.suffix_length == length
        assert {s.symbol: s.count for s in found.symbols} == brute.next(suffix)
        assert ix.infgram(q, 97).count == brute.prob(suffix, 97)[1]
        assert ix.longest_match(q).lengths.tolist() == brute.longest_matches(prompt)
        spans = ix.trace(q)
        assert [(s.start, s.end) for s in spans] == brute.maximal_spans(prompt)
        for span in spans:
            assert span.count == brute.count(prompt[span.start : span.end])
            assert len(span.sources) == min(10, span.count)
            for source in span.sources:
                number = ix.document_number(source.document)
                assert (
                    documents[number][source.start : source.end] == (prompt[span.start : span.end])
                )


def test_cnf_counts_the_minimal_intervals_whatever_the_order_of_clauses(case):
    ix, documents, brute = case
    rng = random.Random(33)
    terms = [p for p in patterns(documents, 40, 33) if 1 <= len(p) <= 4]
    for _ in range(12):
        clauses = [rng.sample(terms, rng.randint(1, 2)) for _ in range(rng.randint(1, 3))]
        window = rng.choice([0, 1, 5, 30])
        if sum(brute.count(t) for c in clauses for t in c) > 1000:
            continue
        expected = brute.cnf(clauses, window)
        asked = [[bytes(t) for t in clause] for clause in clauses]
        found = ix.cnf(asked, window=window, limit=None)
        assert found.exact
        assert found.count == found.low == found.high == len(expected), (clauses, window)
        assert sorted((h.number, h.span.start) for h in found.hits) == sorted(
            (d, l) for d, l, _ in expected
        )
        assert ix.cnf(asked[::-1], window=window, limit=None).count == found.count


@pytest.mark.parametrize("tier", ["fm", "sa"])
def test_the_index_gives_every_byte_back(tmp_path, tier):
    for name in ("alphabet-256", "prose-twice", "empty-documents", "nul-and-ff", "utf-8"):
        documents = CORPORA[name]()
        with build(tmp_path / name, documents, 2, tier=tier) as ix:
            ix.to_text(tmp_path / f"{name}-out")
            written = {p.name: p.read_bytes() for p in (tmp_path / f"{name}-out").iterdir()}
            assert written == {f"d{i}": bytes(d) for i, d in enumerate(documents)}
            assert ix.verify().ok


def test_every_answer_is_the_same_over_one_to_seven_shards(tmp_path):
    documents = CORPORA["prose-twice"]()
    brute = Brute(documents)
    clauses = [[[116], [101, 116]], [[32]]]
    spans = brute.cnf(clauses, 4)
    for shards in range(1, 8):
        with build(tmp_path / str(shards), documents, shards) as ix:
            assert shards == 1 or ix.info().shards > 1
            assert places(ix, b"th") == brute.positions(list(b"th"))
            asked = [[bytes(t) for t in clause] for clause in clauses]
            assert ix.cnf(asked, window=4, limit=None).count == len(spans)
            text = bytes([*documents[0][:60], 1, *documents[2][5:50]])
            assert [(s.start, s.end) for s in ix.trace(text)] == brute.maximal_spans(list(text))


def test_probabilities_equal_those_of_nltk(tmp_path):
    """Maximum-likelihood n-grams of a toy corpus, token by token."""
    lm = pytest.importorskip("nltk.lm")
    text = ["a", "man", "a", "plan", "a", "canal", "panama", "a", "man", "a", "plot"]
    words = sorted(set(text))
    ids = [words.index(w) for w in text]
    with build(tmp_path / "ix", [ids]) as ix:
        for order in (1, 2, 3, 4):
            model = lm.MLE(order)
            grams = [tuple(text[i : i + order]) for i in range(len(text) - order + 1)]
            model.fit([grams], vocabulary_text=words)
            for start in range(len(text) - order):
                context = text[start : start + order - 1]
                q = bytes(ids[start : start + order - 1])
                # NLTK counts contexts inside n-grams only; the index also sees the last one end.
                followed = ix.count(q) - ix.prob(q, END).count
                for word in words:
                    got = ix.prob(q, words.index(word)).count / followed
                    assert got == pytest.approx(model.score(word, context or None))


def damaged(folder: Path, name: str, change) -> Path:
    """A copy of an index with one file changed."""
    import shutil

    other = folder.with_name(f"{folder.name}-damaged")
    shutil.rmtree(other, ignore_errors=True)
    shutil.copytree(folder, other)
    path = other / name
    path.write_bytes(change(path.read_bytes()))
    return other


def test_no_damage_to_any_file_of_a_directory_changes_an_answer(tmp_path):
    documents = CORPORA["prose"]()
    folder = tmp_path / "ix"
    with build(folder, documents, 2, tier="both") as ix:
        assert ix.verify().ok
        sound = ix.count(b"th"), places(ix, b"the"), ix.extract(1)
    rng = random.Random(4)
    names = sorted(p.name for p in folder.iterdir() if p.name not in ("run.json", "lock"))
    assert len(names) > 4
    for name in names:
        size = (folder / name).stat().st_size
        for _ in range(12):
            at = rng.randrange(size)
            flip = 1 << rng.randrange(8)
            other = damaged(
                folder,
                name,
                lambda b, at=at, flip=flip: b[:at] + bytes([b[at] ^ flip]) + b[at + 1 :],
            )
            try:
                with open_index(other) as ix:
                    found = ix.count(b"th"), places(ix, b"the"), ix.extract(1)
                    assert found == sound, (name, at, flip)
                    assert not ix.verify().ok, (name, at, flip)
            except IndexFileError:
                pass
        for length in (0, 1, size // 2, size - 1):
            other = damaged(folder, name, lambda b, length=length: b[:length])
            try:
                with open_index(other) as ix:
                    assert not ix.verify().ok, (name, length)
            except IndexFileError:
                pass


def test_shards_that_were_swapped_are_found(tmp_path):
    documents = [list(b"first document of all"), list(b"and the second of them")] * 20
    folder = tmp_path / "ix"
    build(folder, documents, 2).close()
    one, two = sorted(folder.glob("shard-*"))[:2]
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)
    with pytest.raises(IndexCorrupt, match="shard-00000"):
        open_index(folder)


def test_hits_are_found_again_after_every_order(case):
    ix, documents, brute = case
    for pattern in patterns(documents, 12, 34):
        if not 1 <= len(pattern) <= 6 or brute.count(pattern) > 500:
            continue
        q = bytes(pattern)
        expected = brute.positions(pattern)
        for order in ("index", "position", "random"):
            hits = ix.find(q, limit=None, order=order, seed=5)
            assert sorted((h.number, h.span.start) for h in hits) == expected
        some = ix.find(q, limit=3, order="random", seed=6)
        assert len({(h.number, h.span.start) for h in some}) == min(3, len(expected))
        distinct = ix.documents(q, limit=None)
        assert sorted(h.number for h in distinct) == sorted({d for d, _ in expected})
        assert np.all([bytes(documents[h.number])[h.span.start :].startswith(q) for h in distinct])
