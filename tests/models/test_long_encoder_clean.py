"""Placeholders of de-identified records go, everything else stays."""

from hypothesis import given
from hypothesis import strategies as st

from unspool.models.long_encoder.clean import clean_record


def test_placeholders_of_each_collection_go():
    assert clean_record("Seen by Dr. [**Last Name (un) 12**] on [**2151-7-16**].") == (
        "Seen by Dr. on ."
    )
    assert clean_record("Name: ___ Unit No: ___") == "Name: Unit No: "
    assert clean_record('<PHI TYPE="DOCTOR">Smith</PHI> saw her') == " Smith saw her"
    assert clean_record("PLAN\n======\nrest\x00", lower=True) == "plan\n \nrest "


def test_an_open_placeholder_does_not_swallow_a_record():
    text = "[** never closed " + "a" * 300 + " **]"
    assert clean_record(text) == text


@given(st.lists(st.sampled_from(["pain", "a_b", "--", "x < y", "**", "é", "\n"]), max_size=12))
def test_other_words_stay(words):
    text = " ".join(words)
    assert clean_record(text).split() == text.split()
