"""UTF-8 checked and repaired in pieces gives what CPython gives for the whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspool.corpus import utf8

# Bytes near the edges of the encoding's tables, and valid text.
ODD = st.lists(
    st.sampled_from([b"a", b"\x80", b"\xc0", b"\xc3", b"\xa9", b"\xe2\x82\xac", b"\xed\xa0\x80"])
    | st.sampled_from([b"\xf0\x9f\x98\x80", b"\xf0\x9f", b"\xf4\x90\x80\x80", b"\xef\xbf\xbd"])
    | st.text(max_size=3).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.binary(max_size=3),
    max_size=30,
).map(b"".join)


@pytest.fixture(autouse=True, params=[4, 5, 7, 1 << 20], ids="piece{}".format)
def piece(request, monkeypatch):
    monkeypatch.setattr(utf8, "_PIECE", request.param)


@given(ODD)
def test_first_invalid(data):
    try:
        data.decode()
        expected = None
    except UnicodeDecodeError as error:
        expected = error.start
    assert utf8.first_invalid(data) == expected


@given(ODD)
def test_repair(data):
    expected = data.decode("utf-8", "replace")
    repaired = utf8.repair(data)
    assert repaired.data.decode() == expected
    assert repaired.sequences == expected.count("\ufffd") - data.count("\ufffd".encode())
    kept = len(expected.encode()) - 3 * repaired.sequences
    assert repaired.replaced_bytes == len(data) - kept


def test_valid_data_is_not_copied():
    data = "é".encode() * 10
    assert utf8.repair(data).data is data
