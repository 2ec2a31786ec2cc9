"""Questions to an index against brute force over the documents, one shard or many, any tier."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from unspool.errors import ConfigError, IndexIncomplete, IndexVersion, PathNotFound, QueryError
from unspool.index.build import build_index
from unspool.index.engine import Index
from unspool.index.open import open_index

TEXTS = [
    "the cat sat on the mat. the cat ate.",
    "",
    "naïve café 漢字かな 🙂🙂 the naïve cat",
    "aaaaaaaaaaaaaaaa",
    "the the the the",
    "abracadabra abracadabra",
]
DOCUMENTS = [(f"doc/{i}", text, {"n": i}) for i, text in enumerate(TEXTS * 3)]
DOCUMENTS = [(f"{id}-{i}", text, meta) for i, (id, text, meta) in enumerate(DOCUMENTS)]
DATA = {id: text.encode() for id, text, _ in DOCUMENTS}


def occurrences(query: bytes) -> list[tuple[str, int]]:
    found = []
    for id, data in DATA.items():
        at = data.find(query)
        while at >= 0:
            found.append((id, at))
            at = data.find(query, at + 1)
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("indexes")
    common = {"documents": DOCUMENTS, "piece_size": 60}
    build_index(out=root / "one", **common)
    build_index(out=root / "sa", tier="sa", **common)
    build_index(out=root / "many", shard_size=150, tier="both", **common)
    build_index(out=root / "stored", shard_size=150, store_text="zstd", **common)
    build_index(
        documents=DOCUMENTS,
        out=root / "tokens",
        alphabet=f"tokenizer:{byte_level(root)}",
        shard_size=200,
        piece_size=60,
    )
    return {path.name: path for path in root.iterdir() if path.is_dir()}


def byte_level(folder: Path) -> Path:
    """A small byte-level BPE tokenizer, trained on the documents."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 4, trainer)
    path = folder / "tok.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture(params=["one", "sa", "many", "many-fm", "stored"])
def ix(request, built) -> Index:
    name, _, tier = request.param.partition("-")
    with open_index(built[name], tier=tier or None) as index:
        yield index


QUERIES = ["the", "the cat", "a", "aa", "é", "漢", "🙂", "\U0001f642 the", "zzz", " ", "abra", "t"]


@pytest.mark.parametrize("query", [*QUERIES, b"\xc3", b"\x99\x82", b"\xff"])
def test_count_and_find(ix, query):
    raw = query.encode() if isinstance(query, str) else query
    expected = occurrences(raw)
    assert ix.count(query) == len(expected)
    hits = ix.find(query, limit=None, order="position")
    assert [(h.span.document, h.span.start) for h in hits] == expected
    for order in ("index", "random"):
        some = ix.find(query, limit=None, order=order, seed=3)
        assert sorted((h.span.document, h.span.start) for h in some) == sorted(expected)
    for hit in hits:
        data = DATA[hit.span.document]
        assert data[hit.span.start : hit.span.end] == raw
        assert hit.span.text == raw.decode("utf-8", "replace")
        assert ix.document_number(hit.span.document) == hit.number


@pytest.mark.parametrize("around", [0, 1, 2, 3, 7, 1000])
def test_context_is_whole_characters_around_the_hit(ix, around):
    for query in ("é", "漢", "cat", "🙂"):
        for hit in ix.find(query, limit=None, context=around):
            data, span = DATA[hit.span.document], hit.span
            low, high = max(0, span.start - around), min(len(data), span.end + around)
            while low < span.start and data[low] & 0xC0 == 0x80:
                low += 1
            while high > span.end and high < len(data) and data[high] & 0xC0 == 0x80:
                high -= 1
            assert hit.context == data[low:high].decode()


def test_orders(ix):
    every = ix.find("the", limit=None)
    assert ix.find("the", limit=5) == every[:5]
    drawn = ix.find("the", limit=5, order="random", seed=1)
    assert drawn == ix.find("the", limit=5, order="random", seed=1)
    assert len({(h.span.document, h.span.start) for h in drawn}) == 5
    assert drawn != ix.find("the", limit=5, order="random", seed=2)
    # Drawn evenly: over many seeds every occurrence comes first about as often.
    firsts = Counter(
        (h.span.document, h.span.start)
        for seed in range(300)
        for h in ix.find("漢", limit=1, order="random", seed=seed, context=0)
    )
    assert len(firsts) == 3
    assert min(firsts.values()) > 60


def test_documents_are_distinct(ix):
    expected = {id for id, _ in occurrences(b"the")}
    for order in ("index", "position", "random"):
        hits = ix.documents("the", limit=None, order=order)
        assert sorted(h.span.document for h in hits) == sorted(expected)
        assert len(ix.documents("the", limit=4, order=order)) == 4


def test_empty_and_odd_queries(ix):
    total = sum(map(len, DATA.values()))
    assert ix.count("") == ix.count(b"") == ix.count([]) == total + len(DATA)
    assert ix.count("x" * 10_000) == 0
    assert ix.count([116, 104, 101]) == ix.count("the")
    assert ix.count(np.array([116, 104, 101])) == ix.count("the")
    assert ix.count_batch(["the", b"the", [116]]).tolist() == [
        ix.count("the"), ix.count("the"), ix.count("t")
    ]  # fmt: skip
    assert ix.count_batch([]).tolist() == []
    for bad in ([256], [-1], np.array([1.5]), np.array([[1]]), np.array(["a"])):
        with pytest.raises(QueryError):
            ix.count(bad)
    with pytest.raises(QueryError, match="empty"):
        ix.find("")
    with pytest.raises(QueryError, match="limit"):
        ix.find("a", limit=0)
    with pytest.raises(QueryError, match="context"):
        ix.find("a", context=-1)


def following(prompt: bytes) -> Counter[int]:
    return Counter(
        DATA[id][at + len(prompt)] if at + len(prompt) < len(DATA[id]) else -1
        for id, at in occurrences(prompt)
    )


@pytest.mark.parametrize("prompt", ["the", "a", "the cat", "caf", "zzz"])
def test_next_and_prob(ix, prompt):
    expected = following(prompt.encode())
    found = ix.next(prompt)
    assert {s.symbol: s.count for s in found.symbols} == expected
    assert found.prompt_count == sum(expected.values())
    assert [s.count for s in found.symbols] == sorted(expected.values(), reverse=True)
    assert ix.next(prompt, top=1).symbols == found.symbols[:1]
    assert ix.next(prompt, top=1).distinct == len(expected)
    for symbol, count in expected.items():
        answer = ix.prob(prompt, symbol)
        assert (answer.count, answer.prob) == (count, count / sum(expected.values()))
    missing = ix.prob(prompt, 0)
    assert missing.count == 0
    assert missing.prob == (0.0 if expected else None)
    joined = ix.prob(prompt, " ca")
    assert joined.count == len(occurrences(prompt.encode() + b" ca"))


def test_infgram_uses_the_longest_suffix(ix):
    for prompt, suffix in (("zzz the cat", b" the cat"), ("qqq", b""), ("the cat", b"the cat")):
        expected = following(suffix) if suffix else None
        found = ix.infgram(prompt)
        assert found.suffix_length == len(suffix)
        if expected is not None:
            assert {s.symbol: s.count for s in found.symbols} == expected
        answer = ix.infgram(prompt, " ")
        assert (answer.suffix_length, answer.prompt_count) == (len(suffix), found.prompt_count)
    assert ix.infgram("zzz the", " cat").count == len(occurrences(b" the cat"))


def test_batches_are_the_singles(ix):
    prompts = ["the", "a", "zzz the cat", "zz"]
    assert ix.next_batch(prompts) == [ix.next(p) for p in prompts]
    assert ix.infgram_batch(prompts) == [ix.infgram(p) for p in prompts]
    after = [" ", "a", -1, "a"]
    assert ix.prob_batch(prompts, after) == [ix.prob(*p) for p in zip(prompts, after, strict=True)]
    after = [" c", "a", -1, "a"]
    assert ix.prob_batch(prompts, after) == [ix.prob(*p) for p in zip(prompts, after, strict=True)]
    assert ix.infgram_batch(prompts, after) == [
        ix.infgram(*p) for p in zip(prompts, after, strict=True)
    ]
    with pytest.raises(QueryError, match="4 prompts and 1"):
        ix.prob_batch(prompts, ["a"])
    assert ix.find_batch(["the"], limit=2) == [ix.find("the", limit=2)]
    assert ix.trace_batch(["the"]) == [ix.trace("the")]


def test_extract_and_documents(ix):
    for number, (id, text, meta) in enumerate(DOCUMENTS):
        data = text.encode()
        assert ix.extract(id) == ix.extract(number) == data
        assert ix.document(id).text == text
        assert ix.document(id).meta == meta
        for start in range(0, len(data), 5):
            assert ix.extract(id, start, min(len(data), start + 9)) == data[start : start + 9]
        assert ix.extract(id, len(data)) == b""
    assert ix.quote("doc/2-2", 0, 3).text == "na\ufffd"
    for bad in ((0, -1, 2), (0, 3, 2), (0, 0, 1000)):
        with pytest.raises(QueryError, match="bytes"):
            ix.extract(*bad)
    with pytest.raises(QueryError, match="no document with the id"):
        ix.extract("doc/99")
    with pytest.raises(QueryError, match="no number"):
        ix.extract(1000)


def test_to_text_gives_the_corpus_back(ix, tmp_path):
    import json

    report = ix.to_text(tmp_path / "all.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert [(r["id"], r["text"], r["meta"]) for r in lines] == [tuple(d) for d in DOCUMENTS]
    assert report.bytes_text == sum(map(len, DATA.values()))
    ix.to_text(tmp_path / "files")
    for id, data in DATA.items():
        assert (tmp_path / "files" / id).read_bytes() == data


def test_hostile_ids_stay_inside_the_folder(tmp_path):
    ids = ["../up", "/etc/passwd", "a/../../b", ".", "..", "", "a\x00b", "x" * 500, "A", "a", "a/b"]
    build_index(documents=[(id, f"text of {n}") for n, id in enumerate(ids)], out=tmp_path / "ix")
    ix = open_index(tmp_path / "ix")
    report = ix.to_text(tmp_path / "deep" / "out")
    assert {p.name for p in tmp_path.iterdir()} == {"ix", "deep"}
    assert {p.name for p in (tmp_path / "deep").iterdir()} == {"out"}
    written = [p.read_text() for p in (tmp_path / "deep").rglob("*") if p.is_file()]
    assert sorted(written) == sorted(f"text of {n}" for n in range(len(ids)))
    assert report.renamed >= 8
    for number, id in enumerate(ids):
        assert ix.document_number(id) == number


# --- tracing


def brute_maximal(text: bytes, data: list[bytes]) -> list[tuple[int, int]]:
    best, furthest = [], 0
    for start in range(len(text)):
        end = start
        while end < len(text) and any(text[start : end + 1] in d for d in data):
            end += 1
        if end > furthest and end > start:
            best.append((start, end))
            furthest = end
    return best


@pytest.mark.parametrize(
    "text",
    ["", "x", "the cat sat on a hat", "naïve 漢字 cats", "aaaaaaaaaaaaaaaaaaaa", "zz the zz"],
)
def test_trace_finds_the_maximal_spans(ix, text):
    raw, data = text.encode(), list(DATA.values())
    expected = brute_maximal(raw, data)
    found = ix.trace(text)
    assert [(s.start, s.end) for s in found] == expected
    for span in found:
        piece = raw[span.start : span.end]
        assert span.count == len(occurrences(piece))
        assert span.text == piece.decode("utf-8", "replace")
        assert len(span.sources) == min(10, span.count)
        assert len({(s.document, s.start) for s in span.sources}) == len(span.sources)
        for source in span.sources:
            assert DATA[source.document][source.start : source.end] == piece
    matches = ix.longest_match(text)
    for start, length in enumerate(matches.lengths.tolist()):
        assert length == 0 or any(raw[start : start + length] in d for d in data)
        assert start + length == len(raw) or not any(
            raw[start : start + length + 1] in d for d in data
        )
    assert ix.trace(text, min_length=5) == [s for s in found if s.end - s.start >= 5]
    assert all(s.count <= 3 for s in ix.trace(text, max_count=3))


def test_trace_options(one):
    text = "the cat sat. the cat ate the mats"
    assert all("." not in s.text[:-1] for s in one.trace(text, delimiters=(".",)))
    spans = one.trace(text, whole_words=True)
    assert spans
    for span in spans:
        assert span.start == 0 or not (
            text[span.start - 1].isalnum() and text[span.start].isalnum()
        )
        assert span.end == len(text) or not (
            text[span.end - 1].isalnum() and text[span.end].isalnum()
        )
    every = one.trace(text)
    longest = one.trace(text, rank="length")
    assert [s.end - s.start for s in longest] == sorted(
        (s.end - s.start for s in every), reverse=True
    )
    kept = one.trace(text, rank="length", density=0.05)
    assert kept == longest[: len(kept)]
    assert len(kept) == min(len(every), 2)
    assert sorted(map(repr, one.trace(text, rank="rarity"))) == sorted(map(repr, every))
    assert one.trace(text, max_sources=0)[0].sources == ()
    for bad in ({"min_length": 0}, {"density": 0.0}, {"delimiters": ("ab",)}, {"max_count": 0}):
        with pytest.raises(ConfigError):
            one.trace(text, **bad)


@pytest.fixture
def one(built):
    with open_index(built["one"]) as index:
        yield index


# --- CNF


def brute_cnf(clauses: list[list[bytes]], window: int) -> int:
    total = 0
    for data in DATA.values():
        starts = [
            {p for term in clause for p in range(len(data)) if data.startswith(term, p)}
            for clause in clauses
        ]
        covering = [
            (l, r)
            for l in range(len(data))
            for r in range(l, min(len(data), l + window + 1))
            if all(any(l <= p <= r for p in s) for s in starts)
        ]
        covering_set = set(covering)
        total += sum(
            (l + 1, r) not in covering_set and (l, r - 1) not in covering_set for l, r in covering
        )
    return total


CNFS = [
    [["the"], ["cat"]],
    [["the", "a"], ["cat", "mat"], ["t"]],
    [["aa"], ["aaa"]],
    [["abra"], ["cad"]],
    [["naïve"], ["cat"]],
    [["the"], ["zzz"]],
    [["the"]],
    [["the"], ["the"]],
]


@pytest.mark.parametrize("clauses", CNFS)
def test_cnf_counts_minimal_intervals(ix, clauses):
    for window in (0, 3, 20, 1000):
        with pytest.MonkeyPatch.context() as patch:
            check_cnf(ix, clauses, window, patch)


def check_cnf(ix: Index, clauses: list[list[str]], window: int, monkeypatch) -> None:
    from unspool.index import cnf

    expected = brute_cnf([[t.encode() for t in c] for c in clauses], window)
    found = ix.cnf(clauses, window=window, limit=None)
    assert found.count == expected == len(found.hits)
    assert found.exact
    assert ix.cnf(clauses[::-1], window=window).count == expected
    monkeypatch.setattr(cnf, "_LOCATE_COST", 1e9)  # force the other way of answering
    monkeypatch.setattr(cnf, "_cost_of_reading", lambda *a: 0.0)
    assert ix.cnf(clauses, window=window, limit=None) == found
    for hit in found.hits:
        assert all(any(t in hit.span.text for t in clause) for clause in clauses)


def test_cnf_estimates_bound_the_truth(one):
    clauses = [["a"], ["t"]]
    exact = one.cnf(clauses, window=5)
    inside = 0
    for seed in range(40):
        guess = one.cnf(clauses, window=5, sample=20, seed=seed)
        assert not guess.exact
        inside += guess.low <= exact.count <= guess.high
    assert inside >= 34
    assert one.cnf(clauses, window=5, sample=10**6).exact
    for bad in ([], [[]], "ab", [["a"], [""]]):
        with pytest.raises(QueryError):
            one.cnf(bad)


# --- several directories, tokens, versions


def test_several_directories_add_up(built, tmp_path):
    build_index(documents=[("doc/0-0", "the cat"), ("new", "the hat")], out=tmp_path / "more")
    ix = open_index([built["many"], tmp_path / "more"], tier="fm")
    assert ix.count("the") == len(occurrences(b"the")) + 2
    assert ix.extract("new") == b"the hat"
    assert len(ix) == len(DATA) + 2
    with pytest.raises(QueryError, match="2 documents with the id"):
        ix.extract("doc/0-0")
    assert ix.verify().ok
    with pytest.raises(ConfigError, match="was not built"):
        open_index([built["many"], tmp_path / "more"], tier="sa")
    with pytest.raises(ConfigError, match="different alphabets"):
        open_index([built["one"], built["tokens"]])


def test_a_token_index_speaks_in_bytes(built):
    ix = open_index(built["tokens"])
    tokenizer = Tokenizer.from_file(str(built["tokens"] / "tokenizer.json"))
    encoded = {id: tokenizer.encode(data.decode()).ids for id, data in DATA.items()}
    for query in ("the cat", " the", "漢", "abra"):
        ids = tokenizer.encode(query).ids
        assert ix.encode(query).tolist() == ids
        expected = sum(
            seq[i : i + len(ids)] == ids for seq in encoded.values() for i in range(len(seq))
        )
        assert ix.count(query) == ix.count(ids) == expected
        for hit in ix.find(query, limit=None):
            data, span = DATA[hit.span.document], hit.span
            assert data[span.start : span.end] == query.encode()
            assert span.text == query
    for id, data in DATA.items():
        assert ix.extract(id) == data
        for start in range(0, len(data), 3):
            assert ix.extract(id, start, min(len(data), start + 7)) == data[start : start + 7]
    with pytest.raises(QueryError, match="Token ids run from 0"):
        ix.count([10_000])
    spans = ix.trace("say the cat sat", min_length=2)
    assert spans
    assert all(b"say the cat sat"[s.start : s.end].decode() == s.text for s in spans)


def test_long_documents_of_tokens(tmp_path):
    text = " ".join(random.Random(0).choices(["the", "cat", "naïve", "漢字", "🙂"], k=3000))
    tok = byte_level(tmp_path)
    build_index(
        documents=[("x", "the"), ("long", text)], out=tmp_path / "ix", alphabet=f"tokenizer:{tok}"
    )
    ix, data = open_index(tmp_path / "ix"), text.encode()
    assert ix.document_length("long") == len(data)
    for start in range(0, len(data) - 50, 997):
        assert ix.extract("long", start, start + 41) == data[start : start + 41]
    for hit in ix.find(" naïve 漢字", limit=50):
        assert data[hit.span.start : hit.span.end].decode() == " naïve 漢字"


def test_tokens_that_do_not_spell_the_text(tmp_path):
    from tokenizers import normalizers

    tok = byte_level(tmp_path)
    tokenizer = Tokenizer.from_file(str(tok))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.save(str(tok))
    with pytest.raises(Exception, match="do not spell"):
        build_index(documents=[("a", "The Cat")], out=tmp_path / "ix", alphabet=f"tokenizer:{tok}")
    report = build_index(
        documents=[("a", "The Cat"), ("b", "the cat")],
        out=tmp_path / "ix",
        alphabet=f"tokenizer:{tok}",
        allow_lossy=True,
    )
    assert report.notes == ("1 documents that their tokens do not spell",)
    assert open_index(tmp_path / "ix").extract("a") == b"the cat"


def test_normalisation_is_done_to_texts_and_queries(tmp_path):
    documents = [("a", "Cafe\u0301  IS\n\nOpen"), ("b", "café")]
    build_index(documents=documents, out=tmp_path / "ix", normalise="nfc|lower|space")
    ix = open_index(tmp_path / "ix")
    assert ix.document("a").text == "café is open"
    assert ix.count("CAFE\u0301") == 2
    assert ix.count("is   open") == 1
    assert ix.count(b"IS") == 0


def test_what_does_not_open(built, tmp_path):
    with pytest.raises(PathNotFound):
        open_index(tmp_path / "absent")
    with pytest.raises(IndexIncomplete, match="holds no index"):
        open_index(tmp_path)
    (tmp_path / "newer").mkdir()
    manifest = (built["one"] / "index.json").read_text()
    (tmp_path / "newer" / "index.json").write_text(manifest.replace('"format": 1', '"format": 2'))
    with pytest.raises(IndexVersion, match="format 2"):
        open_index(tmp_path / "newer")


@settings(max_examples=15, deadline=None)
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=8), st.data())
def test_any_bytes_come_back(tmp_path_factory, documents, data):
    out = tmp_path_factory.mktemp("any") / "ix"
    build_index(
        documents=[(str(i), d) for i, d in enumerate(documents)],
        out=out,
        piece_size=50,
        shard_size=60,
    )
    ix = open_index(out)
    assert [ix.extract(i) for i in range(len(documents))] == documents
    query = data.draw(st.sampled_from(documents))[:3] or b"a"
    expected = sum(d[i:].startswith(query) for d in documents for i in range(len(d)))
    assert ix.count(query) == expected
    assert ix.verify().ok


def test_read_into_memory_and_asked_from_several_threads(built):
    from concurrent.futures import ThreadPoolExecutor

    with open_index(built["many"], load="ram") as ix, ThreadPoolExecutor(4) as threads:
        expected = [(ix.count(q), ix.find(q, limit=None)) for q in QUERIES]
        for _ in range(5):
            found = threads.map(lambda q: (ix.count(q), ix.find(q, limit=None)), QUERIES)
            assert list(found) == expected


def test_a_closed_index_is_an_error_not_a_crash(built):
    ix = open_index(built["one"])
    ix.close()
    for ask in (lambda: ix.count("a"), lambda: ix.find("a"), lambda: ix.extract(0)):
        with pytest.raises((QueryError, ValueError)):
            ask()
