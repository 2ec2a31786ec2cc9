"""Properties that hold for any documents and any queries, drawn by hypothesis."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.native.shards import build, contents, following, hits
from tests.oracles.text import Brute

SYMBOLS = st.sampled_from([0, 1, 32, 97, 98, 254, 255])
DOCUMENTS = st.lists(st.lists(SYMBOLS, max_size=25), min_size=1, max_size=6)
QUERY = st.lists(SYMBOLS, max_size=8)
TIER = st.sampled_from(["fm", "sa"])


@given(documents=DOCUMENTS, texts=st.lists(QUERY, min_size=1, max_size=6), tier=TIER)
@settings(max_examples=80, deadline=None)
def test_every_answer_equals_its_definition(documents, texts, tier):
    brute = Brute(documents)
    with tempfile.TemporaryDirectory() as folder:
        ix = build(Path(folder), documents, tier, shards=1 + len(documents) % 3)
        assert contents(ix) == documents
        for text in texts:
            q = bytes(text)
            assert hits(ix, q) == brute.positions(text)
            assert following(ix.next(q)) == (brute.count(text), brute.next(text))
            length = brute.longest_suffix(text)
            assert ix.longest_suffix(q) == (length, brute.count(text[len(text) - length :]))
            assert ix.longest_matches(q)[0].tolist() == brute.longest_matches(text)
        ix.close()


@given(documents=DOCUMENTS, query=QUERY, tier=TIER)
@settings(max_examples=60, deadline=None)
def test_counts_of_continuations_add_up(documents, query, tier):
    with tempfile.TemporaryDirectory() as folder:
        ix = build(Path(folder), documents, tier)
        total, symbols, counts = ix.next(bytes(query))
        assert int(counts.sum()) == total == ix.count(bytes(query))
        for symbol, count in zip(symbols.tolist(), counts.tolist(), strict=True):
            assert ix.prob(bytes(query), symbol) == (total, count)
            if symbol >= 0:
                assert ix.count(bytes([*query, symbol])) == count
        longer = sum(ix.count(bytes([s, *query])) for s in {s for d in documents for s in d})
        starts = sum(1 for d in documents if d[: len(query)] == query)
        assert longer + starts == total
        ix.close()
