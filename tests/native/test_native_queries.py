"""Every query of the native engine against brute force, on corpora that break indexes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.native.patterns import patterns, prompts
from tests.native.shards import TIERS, WIDTHS, build, contents, following, hits, query
from tests.oracles.corpora import CORPORA, recode
from tests.oracles.text import Brute

CASES = [(name, tier, 1) for name in CORPORA for tier in TIERS] + [
    (name, tier, width)
    for name in ("alphabet-1", "alphabet-256", "prose", "empty-documents", "nul-and-ff")
    for tier in TIERS
    for width in WIDTHS[1:]
]


@pytest.fixture(params=CASES, ids=lambda c: f"{c[0]}-{c[1]}-{c[2]}", scope="module")
def case(request, tmp_path_factory):
    name, tier, width = request.param
    documents = recode(CORPORA[name](), width)
    ix = build(tmp_path_factory.mktemp("shard"), documents, tier, width)
    yield ix, documents, Brute(documents), width
    ix.close()


def spread(made: list[list[int]], width: int) -> list[list[int]]:
    """Patterns are made of recoded symbols already, but for the strange ones put in raw."""
    limit = (1 << (8 * width)) - 1
    return [p for p in made if all(0 <= s <= limit for s in p)]


def test_the_index_is_the_corpus(case):
    ix, documents, _, width = case
    assert contents(ix, width) == documents
    assert ix.document_lengths(0).tolist() == [len(d) for d in documents]


def test_info_states_the_size(case):
    ix, documents, brute, width = case
    info = ix.info(0)
    assert info["symbols"] == sum(len(d) for d in documents)
    assert info["documents"] == len(documents)
    assert info["width"] == width
    assert info["alphabet"] == len({s for d in documents for s in d})
    assert ix.count(query([], width)) == brute.size


def test_count_and_locate_agree_with_find(case):
    ix, documents, brute, width = case
    for pattern in spread(patterns(documents, 60, 11), width):
        expected = brute.positions(pattern)
        assert ix.count(query(pattern, width)) == len(expected), pattern
        assert hits(ix, pattern, width) == expected, pattern


def test_pieces_of_documents_come_back(case):
    ix, documents, _, width = case
    rng = np.random.default_rng(5)
    for _ in range(40):
        d = int(rng.integers(len(documents)))
        start, end = sorted(rng.integers(0, len(documents[d]) + 1, 2).tolist())
        data = ix.extract(0, d, start, end)
        assert list(np.frombuffer(data, f"<u{width}")) == documents[d][start:end]


def test_next_symbols_and_their_sum(case):
    ix, documents, brute, width = case
    for pattern in spread(patterns(documents, 40, 12), width):
        expected = brute.next(pattern)
        total, found = following(ix.next(query(pattern, width)))
        assert found == expected, pattern
        assert total == sum(found.values()) == brute.count(pattern)


def test_prob_agrees_with_next_also_at_the_end_of_documents(case):
    ix, documents, brute, width = case
    for pattern in spread(patterns(documents, 25, 13), width):
        following_it = brute.next(pattern)
        for symbol in [-1, *list(following_it)[:5], documents[0][0] if documents[0] else 0, 1]:
            expected = (brute.count(pattern), following_it.get(symbol, 0))
            assert tuple(ix.prob(query(pattern, width), symbol)) == expected, (pattern, symbol)


def test_back_off_to_the_longest_suffix(case):
    ix, documents, brute, width = case
    for prompt in spread(prompts(documents, 20, 14), width):
        length = brute.longest_suffix(prompt)
        suffix = prompt[len(prompt) - length :]
        q = query(prompt, width)
        assert tuple(ix.longest_suffix(q)) == (length, brute.count(suffix)), prompt
        found = ix.infgram(q)
        assert found[0] == length
        assert following(found[1:]) == (brute.count(suffix), brute.next(suffix)), prompt
        for symbol in (-1, *list(brute.next(suffix))[:3]):
            expected = (length, *brute.prob(suffix, symbol))
            assert tuple(ix.infgram_prob(q, symbol)) == expected, (prompt, symbol)


def test_longest_match_of_every_start(case):
    ix, documents, brute, width = case
    for prompt in spread(prompts(documents, 12, 15), width):
        lengths, counts = ix.longest_matches(query(prompt, width))
        assert lengths.tolist() == brute.longest_matches(prompt), prompt
        spans = dict(brute.maximal_spans(prompt))
        for start, (length, count) in enumerate(zip(lengths, counts, strict=True)):
            if length == 0:
                continue
            if start in spans:
                assert count == brute.count(prompt[start : start + int(length)]), (prompt, start)
            else:
                assert count == -1, (prompt, start)


def test_batches_answer_as_single_queries_do(case):
    ix, documents, _, width = case
    queries = [query(p, width) for p in spread(patterns(documents, 45, 16), width)]
    assert ix.count_batch(queries).tolist() == [ix.count(q) for q in queries]
    expected = [[list(r) for r in ix.ranges(q)] for q in queries]
    assert ix.ranges_batch(queries).tolist() == expected
    for one, many in zip(map(ix.next, queries), ix.next_batch(queries), strict=True):
        assert following(one) == following(many)
    symbols = np.array([(-1, 97, 0, 255)[i % 4] for i in range(len(queries))], dtype=np.int64)
    pairs = list(zip(queries, symbols.tolist(), strict=True))
    assert ix.prob_batch(queries, symbols).tolist() == [list(ix.prob(q, s)) for q, s in pairs]
    infgrams = [list(ix.infgram_prob(q, s)) for q, s in pairs]
    assert ix.infgram_prob_batch(queries, symbols).tolist() == infgrams
    for one, many in zip(map(ix.infgram, queries), ix.infgram_batch(queries), strict=True):
        assert one[0] == many[0]
        assert following(one[1:]) == following(many[1:])


def test_every_byte_is_sound(case):
    ix, *_ = case
    ix.warm()
    assert ix.verify(0) == []


def test_read_into_memory_answers_alike(tmp_path: Path):
    documents = CORPORA["prose"]()
    mapped = build(tmp_path, documents, "fm")
    loaded = build(tmp_path, documents, "fm", ram=True)
    for pattern in patterns(documents, 60, 17):
        assert mapped.count(bytes(pattern)) == loaded.count(bytes(pattern))
