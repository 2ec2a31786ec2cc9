"""Units join to the text, end at sentences and know their heading."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from unspool.reading.units import Unit, units

BOOK = """Title of the Book
*****************

A first sentence.  A second one that is a little longer.

1. Part
=======

Words under part one.

# Markdown

More words.

CAPITALS HERE

The end.
"""


@given(st.text(alphabet=st.sampled_from("ab .!?\n#=*Aé日。 \t"), max_size=300), st.integers(8, 60))
def test_units_follow_one_another_without_a_gap(text: str, size: int) -> None:
    found = list(units(text, size))
    data = text.encode()
    assert b"".join(data[u.start : u.end] for u in found) == data
    for unit in found:
        assert unit.end > unit.start
        data[unit.start : unit.end].decode()  # no character is cut
        assert unit.end - unit.start <= 2 * size


def test_headings_open_units_and_stay_in_force() -> None:
    found = {u.heading: BOOK.encode()[u.start : u.end].decode() for u in units(BOOK, 60)}
    assert list(found) == ["Title of the Book", "1. Part", "Markdown", "CAPITALS HERE"]
    assert found["1. Part"].startswith("1. Part\n=======")
    assert "Words under part one." in found["1. Part"]
    assert found["CAPITALS HERE"].rstrip().endswith("The end.")


def test_sentences_stay_whole_where_they_fit() -> None:
    text = "One two three four. Five six seven eight. Nine ten."
    assert list(units(text, 42)) == [Unit(0, 42, ""), Unit(42, 51, "")]
    assert list(units("")) == []
