"""Offsets between characters and bytes, against encoding every prefix."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspool.corpus.encode import ByteOffsets, quote, snap_inward, span
from unspool.errors import ConfigError
from unspool.types import Span

UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(UNICODE | st.text("aé日😀", max_size=40).map(lambda text: text * 30))
def test_byte_offsets(text):
    offsets = ByteOffsets(text)
    expected = [len(text[:index].encode()) for index in range(len(text) + 1)]
    assert [offsets.byte(index) for index in range(len(text) + 1)] == expected
    owner = [i for i, char in enumerate(text) for _ in char.encode()] + [len(text)]
    assert [offsets.char(offset) for offset in range(len(owner))] == owner
    assert offsets.size == len(text.encode())


@pytest.mark.parametrize("text", ["", "abc", "é"])
def test_offsets_outside_are_refused(text):
    offsets = ByteOffsets(text)
    for call, value in [(offsets.byte, -1), (offsets.byte, len(text) + 1), (offsets.char, 9)]:
        with pytest.raises(ConfigError):
            call(value)


@given(UNICODE, st.data())
def test_snap_inward_is_the_largest_sound_part(text, data):
    whole = text.encode()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    first, last = snap_inward(whole, start, end)
    edges = [len(text[:index].encode()) for index in range(len(text) + 1)]
    inside = [edge for edge in edges if start <= edge <= end]
    assert whole[first:last].decode() == (whole[inside[0] : inside[-1]].decode() if inside else "")
    with pytest.raises(ConfigError):
        snap_inward(whole, 0, len(whole) + 1)


def test_quote_shows_where_a_character_was_cut():
    data = "aé日".encode()
    assert quote(data, 0, 2) == "a\ufffd"
    assert quote(data, 2, 6) == "\ufffd日"
    assert span("d", data, 1, 3) == Span("d", 1, 3, "é")
