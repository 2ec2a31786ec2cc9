"""Repeats go, everything else stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspool.reading.repeats import without_repeats


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("It is 5. It is 6.", "It is 5. It is 6."),
        ("It is 5.\n\nIt is 5.\n\nIt is 5. No.", "It is 5.\n\nNo."),
        ("The key is lost. The door is shut. The key is", "The key is lost. The door is shut."),
        ("The key is lost. The key was", "The key is lost. The key was"),
        ("None", "None"),
        ("", ""),
        ("Use 3.5 and 3.5, not 3.6.", "Use 3.5 and 3.5, not 3.6."),
    ],
)
def test_a_sentence_is_said_once(answer: str, expected: str) -> None:
    assert without_repeats(answer) == expected


@given(st.text())
def test_doing_it_twice_changes_nothing(answer: str) -> None:
    once = without_repeats(answer)
    assert without_repeats(once) == once
    assert set(once.split()) <= set(answer.split())


@given(st.lists(st.text(alphabet="abcde ", min_size=1).map(str.strip).filter(bool), unique=True))
def test_different_sentences_all_stay(sentences: list[str]) -> None:
    sentences = [" ".join(s.split()) for s in sentences]
    answer = " ".join(f"{s}." for s in dict.fromkeys(sentences))
    assert without_repeats(answer) == answer
