"""Terms: the same word in another form is the same term, and identifiers are found by part."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspool.reading.terms import STOP_WORDS, stem, terms


@pytest.mark.parametrize(
    "forms",
    [
        ["raise", "raises", "raised", "raising"],
        ["stop", "stops", "stopped", "stopping"],
        ["entry", "entries"],
        ["delete", "deletes", "deleted", "deleting"],
        ["class", "classes"],
        ["status"],
        ["operate", "operation", "operations"],
    ],
)
def test_forms_of_a_word_share_a_stem(forms: list[str]) -> None:
    assert len({stem(form) for form in forms}) == 1


def test_words_that_differ_stay_apart() -> None:
    words = ["string", "strong", "pass", "past", "user", "unit", "this", "thing", "bytes", "bits"]
    assert len({stem(w) for w in words}) == len(words)


def test_identifiers_are_terms_whole_and_in_parts() -> None:
    assert terms("Set tcp_keepalive_time, /etc/passwd") == [
        "set",
        "tcp_keepalive_time",
        "tcp",
        "keepaliv",
        "time",
        "etc/passwd",
        "etc",
        "passwd",
    ]


def test_scripts_without_spaces_are_read_in_pairs() -> None:
    assert terms("全文検索") == ["全文", "文検", "検索"]
    assert terms("字") == ["字"]


@given(st.text())
def test_no_stop_word_and_no_space_is_a_term(text: str) -> None:
    for term in terms(text):
        assert term
        assert term not in STOP_WORDS
        assert not term.isspace()
