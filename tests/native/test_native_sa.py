"""Suffix arrays against sorting, against another library, and on the shapes that break SA-IS."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles.corpora import CORPORA, de_bruijn, fibonacci, random_text, thue_morse
from tests.oracles.sa import sorted_suffixes
from unspool import _native

ORDERED = [
    fibonacci(1597),
    thue_morse(2000),
    de_bruijn(2, 10),
    de_bruijn(12, 3),
    [9] * 2000,
    list(range(2000)),
    list(range(2000, 0, -1)),
    [1, 0] * 900,
    [0, 1] * 900,
    [2, 1, 0] * 500,
]
SIZES = [0, 1, 2, 3, 5, 17, 255, 256, 257, 1009, 2000]


def array(text: list[int], wide: bool) -> list[int]:
    return _native.suffix_array(np.array(text, dtype=np.uint32), wide).tolist()


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("alphabet", [1, 2, 3, 255, 256, 65535])
@pytest.mark.parametrize("size", SIZES)
def test_equals_sorted_suffixes(size, alphabet, wide):
    text = random_text(size, alphabet, 31 * size + alphabet)
    assert array(text, wide) == sorted_suffixes(text)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("name", sorted(CORPORA))
def test_equals_sorted_suffixes_on_hard_texts(name, wide):
    text = [s for d in CORPORA[name]() for s in [*d, 300]][:2000]
    assert array(text, wide) == sorted_suffixes(text)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("text", ORDERED, ids=lambda t: f"{len(t)}-{t[:3]}")
def test_equals_sorted_suffixes_on_ordered_texts(text, wide):
    assert array(text, wide) == sorted_suffixes(text)


@given(st.lists(st.integers(0, 3), max_size=80), st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_small_text(text, wide):
    assert array(text, wide) == sorted_suffixes(text)


@pytest.mark.parametrize("alphabet", [1, 2, 4, 26, 255, 256])
def test_equals_pydivsufsort(alphabet):
    other = pytest.importorskip("pydivsufsort")
    text = np.array(random_text(60_000, alphabet, alphabet), dtype=np.uint8)
    expected = other.divsufsort(text)
    assert _native.suffix_array(text.astype(np.uint32)).tolist() == expected.tolist()


def test_large_symbols_are_allowed():
    text = [0xFFFFFFFF, 0, 0x80000000, 0xFFFFFFFF, 0]
    assert array(text, False) == sorted_suffixes(text)


@pytest.mark.slow
@pytest.mark.parametrize("wide", [False, True])
def test_equals_pydivsufsort_on_a_long_repetitive_text(wide):
    other = pytest.importorskip("pydivsufsort")
    piece = random_text(400_000, 26, 1, 97)
    text = np.array((piece + piece[1000:]) * 3, dtype=np.uint8)
    expected = other.divsufsort(text)
    assert (_native.suffix_array(text.astype(np.uint32), wide) == expected).all()
