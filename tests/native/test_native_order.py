"""The rows of an index: a permutation of all places, in the order that its tier promises."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from tests.native.shards import build
from tests.oracles.corpora import CORPORA, recode
from tests.oracles.sa import backward_key, forward_key

NAMES = ["alphabet-1", "alphabet-2", "alphabet-256", "prose-twice", "empty-documents", "prefixes"]
NAMES += ["suffixes", "fibonacci", "nul-and-ff", "one-byte-documents", "lone-separators"]


def all_places(ix) -> list[tuple[int, int]]:
    """(document, place) of every row of the empty query."""
    ((lo, hi),) = ix.ranges(np.zeros(0, np.uint32))
    documents, places = ix.locate(0, np.arange(lo, hi, dtype=np.uint64), 0)
    return list(zip(documents.tolist(), places.tolist(), strict=True))


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("tier", ["fm", "sa"])
@pytest.mark.parametrize("name", NAMES)
def test_rows_are_a_sorted_permutation_of_all_places(tmp_path: Path, name, tier, width):
    documents = recode(CORPORA[name](), width)
    ix = build(tmp_path, documents, tier, width)
    places = all_places(ix)
    assert sorted(places) == [(d, p) for d, t in enumerate(documents) for p in range(len(t) + 1)]
    key = backward_key if tier == "fm" else forward_key
    keys = [key(documents[d], p) for d, p in places]
    # What ends sorts below what goes on: a separator is below every symbol.
    assert all(a <= b for a, b in itertools.pairwise(keys))


@pytest.mark.parametrize("sample", [1, 2, 31, 32, 64, 1000])
def test_sample_distance_changes_no_answer(tmp_path: Path, sample):
    documents = CORPORA["prose"]()
    a = build(tmp_path, documents, "fm", sa_sample=sample, isa_sample=sample)
    places = sorted(all_places(a))
    assert places == [(d, p) for d, t in enumerate(documents) for p in range(len(t) + 1)]
    for d, text in enumerate(documents):
        assert a.extract(0, d, 0, len(text)) == bytes(text)
        assert a.extract(0, d, len(text) // 3, len(text) // 2) == bytes(
            text[len(text) // 3 : len(text) // 2]
        )
