"""The words after a prompt, against a regular expression over the text."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unspool.errors import QueryError
from unspool.index.build import build_index
from unspool.index.engine import Index
from unspool.index.open import open_index
from unspool.index.words import next_words

TEXT = (
    "the cat sat on the mat. The cat ran; the cats run, the catalogue of cats is long. "
    "the end\nthe\nthe cat_2 and the naïve café, the naïve one. the 不錯 the 不好。 the cat"
) * 3


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder: Path = tmp_path_factory.mktemp("words")
    (folder / "a.txt").write_text(TEXT, encoding="utf-8")
    build_index([folder / "a.txt"], folder / "idx")
    return open_index(folder / "idx")


def by_hand(prompt: str) -> Counter[str]:
    """Each word after each occurrence: a space, then letters, one ideogram, or anything else."""
    word = re.compile(r" ?(?:[\u2e80-\u9fff]|[^\W\u2e80-\u9fff]+|[^\w ])|  | $", re.DOTALL)
    found: Counter[str] = Counter()
    at = TEXT.find(prompt)
    while at >= 0:
        match = word.match(TEXT, at + len(prompt))
        found[match.group() if match else ""] += 1
        at = TEXT.find(prompt, at + 1)
    return found


@pytest.mark.parametrize("prompt", ["the", "the ", "The", "cat", "na", "the 不", "end", "sat on"])
def test_words_are_those_of_the_text(index: Index, prompt: str) -> None:
    found = next_words(index, prompt, 100)
    assert found.prompt_count == TEXT.count(prompt)
    assert {s.text: s.count for s in found.symbols} == dict(by_hand(prompt))
    assert sum(s.count for s in found.symbols) == found.prompt_count


def test_the_most_frequent_come_first_and_top_cuts_the_rest(index: Index) -> None:
    whole = next_words(index, "the", 100).symbols
    assert [s.count for s in whole] == sorted((s.count for s in whole), reverse=True)
    few = next_words(index, "the", 3).symbols
    assert [s.count for s in few] == [s.count for s in whole[:3]]


def test_the_end_of_a_document_is_told_apart(index: Index) -> None:
    found = next_words(index, "one. the 不錯 the 不好。 the cat", 100)
    assert [s.symbol for s in found.symbols if not s.text] == [-1]


def test_what_does_not_occur_has_no_words(index: Index) -> None:
    assert next_words(index, "zebra").symbols == ()
    with pytest.raises(QueryError, match="top must be at least 1"):
        next_words(index, "the", 0)


@settings(max_examples=60, deadline=None)
@given(start=st.integers(0, len(TEXT) // 3), length=st.integers(1, 6))
def test_counts_never_exceed_those_of_the_text(index: Index, start: int, length: int) -> None:
    prompt = TEXT[start : start + length]
    for symbol in next_words(index, prompt, 20).symbols:
        if symbol.text:
            assert symbol.count <= index.count(prompt + symbol.text)
