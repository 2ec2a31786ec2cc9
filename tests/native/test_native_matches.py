"""Longest matches of texts in which short, long and copied matches stand side by side."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from tests.native.shards import TIERS, build, query
from tests.oracles.corpora import cut, prose, random_text
from tests.oracles.text import Brute

LENGTHS = [1, 2, 3, 7, 20, 62, 63, 64, 65, 66, 127, 128, 129, 200, 300]
"""Of copied pieces: about where a match is followed by itself, and where a group of starts ends."""


def mixed(documents: list[list[int]], seed: int) -> list[int]:
    """Pieces of the documents, one symbol that is in none of them, and random symbols."""
    rng = random.Random(seed)
    whole = [d for d in documents if d]
    text: list[int] = []
    while len(text) < 400:
        document = rng.choice(whole)
        start = rng.randrange(len(document))
        text += document[start : start + rng.choice(LENGTHS)]
        text += rng.choice([[], [250], [rng.choice(document)], [rng.choice(document), 250]])
    return text


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("alphabet", [2, 0], ids=["two-symbols", "prose"])
def test_matches_of_all_lengths_in_one_text(tmp_path: Path, tier, shards, width, alphabet):
    text = random_text(1200, alphabet, 5, first=7) if alphabet else prose(1500, 5)
    documents = cut(text, 7, 6)
    brute = Brute(documents)
    ix = build(tmp_path, documents, tier, width, shards)
    asked = mixed(documents, shards)
    lengths, counts = ix.longest_matches(query(asked, width))
    assert lengths.tolist() == brute.longest_matches(asked)
    spans = dict(brute.maximal_spans(asked))
    for start, count in enumerate(counts.tolist()):
        end = spans.get(start)
        assert count == (-1 if end is None else brute.count(asked[start:end])), start


@pytest.mark.parametrize("tier", TIERS)
def test_batches_larger_than_what_is_asked_at_a_time(tmp_path: Path, tier):
    documents = cut(prose(4000, 8), 5, 9)
    ix = build(tmp_path, documents, tier, shards=2)
    rng = random.Random(10)
    whole = bytes(s for d in documents for s in d)
    asked = []
    for _ in range(4200):
        start = rng.randrange(len(whole))
        asked.append(whole[start : start + rng.choice([0, 1, 3, 8, 40])] + rng.choice([b"", b"q"]))
    symbols = np.array([rng.choice([-1, 32, 101]) for _ in asked], dtype=np.int64)
    singly = {q: (ix.count(q), ix.ranges(q), ix.longest_suffix(q)) for q in set(asked)}
    assert ix.count_batch(asked).tolist() == [singly[q][0] for q in asked]
    rows = [[list(r) for r in singly[q][1]] for q in asked]
    assert ix.ranges_batch(asked).tolist() == rows
    assert ix.longest_suffix_batch(asked).tolist() == [list(singly[q][2]) for q in asked]
    some = range(0, len(asked), 9)
    both, infgram = ix.prob_batch(asked, symbols), ix.infgram_prob_batch(asked, symbols)
    for i in some:
        assert tuple(both[i]) == ix.prob(asked[i], int(symbols[i]))
        assert tuple(infgram[i]) == ix.infgram_prob(asked[i], int(symbols[i]))


@pytest.mark.parametrize("tier", TIERS)
def test_empty_batches(tmp_path: Path, tier):
    ix = build(tmp_path, [list(b"a text")], tier)
    none = np.zeros(0, dtype=np.int64)
    assert ix.count_batch([]).shape == (0,)
    assert ix.ranges_batch([]).shape == (0, 1, 2)
    assert ix.prob_batch([], none).shape == (0, 2)
    assert ix.longest_suffix_batch([]).shape == (0, 2)
    assert ix.infgram_prob_batch([], none).shape == (0, 3)
    assert ix.next_batch([]) == ix.infgram_batch([]) == []
