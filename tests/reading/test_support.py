"""Which words of an answer were read, and which passages come first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from unspool.reading.support import rank_by_support, unsupported_words
from unspool.types import Passage, Span


def test_only_content_words_that_were_not_read_are_marked() -> None:
    read = ["The key raises a KeyError when it is missing."]
    assert unsupported_words("It is raising the KeyError.", read) == ()
    assert unsupported_words("A ValueError raises, a ValueError.", read) == ("ValueError",)
    assert unsupported_words("42 keys", read) == ("42",)
    assert unsupported_words("Anything", []) == ("Anything",)
    assert unsupported_words("", read) == ()


@given(st.text(), st.text())
def test_what_was_read_supports_itself(text: str, more: str) -> None:
    assert unsupported_words(text, [more, text]) == ()


def passage(text: str, score: float) -> Passage:
    return Passage(Span("d", 0, len(text.encode()), text), score)


def test_passages_that_hold_the_answer_come_before_better_scores() -> None:
    best = passage("What is the lookup of a key?", 9.0)
    holds = passage("It raises KeyError.", 1.0)
    other = passage("Nothing here.", 2.0)
    assert rank_by_support("KeyError", "What does lookup raise?", [other, best, holds]) == (
        holds,
        best,
        other,
    )
