"""Answers over k shards are the answers over one, in both tiers, and the tiers agree."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from tests.native.patterns import patterns, prompts
from tests.native.shards import build, contents, following, hits, query
from tests.oracles.corpora import CORPORA, prose, random_text, recode

NAMES = ["prose-twice", "identical-documents", "one-byte-documents", "prefixes", "alphabet-256"]


@pytest.mark.parametrize("tier", ["fm", "sa"])
@pytest.mark.parametrize(("name", "width"), [*((n, 1) for n in NAMES), ("prose-twice", 4)])
def test_sharded_equals_unsharded(tmp_path: Path, name, tier, width):
    documents = recode(CORPORA[name](), width)
    one = build(tmp_path, documents, tier, width)
    made = [p for p in patterns(documents, 30, 21) if max(p, default=0) < 1 << (8 * width)]
    texts = [p for p in prompts(documents, 10, 22) if max(p, default=0) < 1 << (8 * width)]
    for shards in range(2, 8):
        folder = tmp_path / str(shards)
        folder.mkdir()
        many = build(folder, documents, tier, width, shards=shards)
        assert many.num_shards == shards
        assert contents(many, width) == documents
        for pattern in made:
            q = query(pattern, width)
            assert many.count(q) == one.count(q), (shards, pattern)
            assert hits(many, pattern, width) == hits(one, pattern, width)
            assert following(many.next(q)) == following(one.next(q))
            assert many.prob(q, -1) == one.prob(q, -1)
        for text in texts:
            q = query(text, width)
            assert many.longest_suffix(q) == one.longest_suffix(q), (shards, text)
            a, b = many.infgram(q), one.infgram(q)
            assert (a[0], following(a[1:])) == (b[0], following(b[1:]))
            assert many.infgram_prob(q, 97) == one.infgram_prob(q, 97)
            for x, y in zip(many.longest_matches(q), one.longest_matches(q), strict=True):
                assert x.tolist() == y.tolist(), (shards, text)


def test_a_longer_match_in_one_shard_wins_over_more_shorter_ones(tmp_path: Path):
    documents = [list(b"abcabcabc"), list(b"xxabcd")]
    ix = build(tmp_path, documents, "fm", shards=2)
    assert ix.longest_suffix(b"zabcd") == (4, 1)
    assert ix.longest_suffix(b"zabc") == (3, 4)
    assert ix.infgram_prob(b"zabc", ord("d")) == (3, 4, 1)
    lengths, counts = ix.longest_matches(b"abcdabcab")
    assert lengths.tolist() == [4, 3, 2, 1, 5, 4, 3, 2, 1]
    assert counts.tolist() == [1, -1, -1, -1, 2, -1, -1, -1, -1]


def test_no_match_crosses_two_documents_or_two_shards(tmp_path: Path):
    documents = [list(b"hello"), list(b"world")] * 4
    for shards in (1, 2, 4):
        folder = tmp_path / str(shards)
        folder.mkdir()
        for tier in ("fm", "sa"):
            ix = build(folder, documents, tier, shards=shards)
            assert ix.count(b"oworld") == ix.count(b"ow") == 0
            assert ix.prob(b"hello", ord("w")) == (4, 0)
            assert ix.prob(b"hello", -1) == (4, 4)


@pytest.mark.parametrize("shards", [1, 3])
def test_the_tiers_agree_on_many_random_patterns(tmp_path: Path, shards):
    number = 20_000
    rng = random.Random(3)
    text = prose(60_000, 5) + random_text(20_000, 256, 6)
    documents = [text[i : i + 2500] for i in range(0, len(text), 2500)]
    fm, sa = (build(tmp_path, documents, tier, shards=shards) for tier in ("fm", "sa"))
    queries = []
    for _ in range(number):
        at = rng.randrange(len(text) - 40)
        piece = bytearray(text[at : at + rng.randint(1, 24)])
        if rng.random() < 0.3:
            piece[rng.randrange(len(piece))] = rng.randrange(256)
        queries.append(bytes(piece))
    counts = fm.count_batch(queries)
    assert counts.tolist() == sa.count_batch(queries).tolist()
    assert (counts > 0).sum() > number // 2
    for q in queries[:500]:
        assert hits(fm, q) == hits(sa, q)
        assert following(fm.next(q)) == following(sa.next(q))
        assert fm.infgram_prob(q, 101) == sa.infgram_prob(q, 101)


@pytest.mark.parametrize("tier", ["fm", "sa"])
def test_ten_thousand_identical_documents(tmp_path: Path, tier):
    documents = [list(b"to be or not to be\n")] * 10_000
    ix = build(tmp_path, documents, tier)
    assert ix.count(b"to be") == 20_000
    assert ix.count(b"to be\n") == 10_000
    assert following(ix.next(b"to be")) == (20_000, {10: 10_000, 32: 10_000})
    assert ix.prob(b"be\n", -1) == (10_000, 10_000)
    found = hits(ix, b"not")
    assert found == [(d, 9) for d in range(10_000)]
    assert ix.extract(0, 9_999, 0, 19) == b"to be or not to be\n"


@pytest.mark.parametrize("tier", ["fm", "sa"])
@pytest.mark.parametrize("copied", ["prose", "periodic"])
def test_longest_matches_of_a_wholly_copied_text_stay_near_linear(tmp_path: Path, tier, copied):
    """100 kB copied word for word: one maximal span. Restarting at each start would take 5e9
    steps, so the deadline fails anything quadratic; a linear answer takes well under a second."""
    from unspool import _native

    text = prose(100_000, 9) if copied == "prose" else list(b"abcab" * 20_000)
    ix = build(tmp_path, [text, prose(5_000, 10)], tier)
    _native.set_deadline(20.0)
    try:
        lengths, counts = ix.longest_matches(bytes(text))
    finally:
        _native.set_deadline(None)
    assert (lengths == np.arange(len(text), 0, -1)).all()
    assert counts[0] == 1
    assert (counts[1:] == -1).all()
    quoted = b"\x01" + bytes(text[:50_000]) + b"\x01" + bytes(text[50_000:])
    lengths, counts = ix.longest_matches(quoted)
    assert lengths[0] == lengths[50_001] == 0
    assert lengths[1] == lengths[50_002] == 50_000
    assert lengths[2] == 49_999
