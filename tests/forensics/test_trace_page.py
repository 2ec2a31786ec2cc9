"""Tracing a text over several indexes, and the page that shows it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import unspool
from unspool.errors import ConfigError, InputError
from unspool.forensics.trace_page import TraceSettings, page_of, segments, trace_report

RANGES = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9)), max_size=6)


@given(RANGES)
def test_each_byte_belongs_to_the_first_range_that_holds_it(given_ranges: Any) -> None:
    ranges = [(low, low + size) for low, size in given_ranges]
    length = 30
    wanted = [
        next((n for n, (a, b) in enumerate(ranges) if a <= i < b), None) for i in range(length)
    ]
    found: list[int | None] = []
    for start, end, owner in segments(ranges, length):
        assert start < end
        found += [owner] * (end - start)
    assert found == wanted


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("trace")
    texts = [
        {"same": "before ** the quick brown fox – jumps over it ** after", "only": "nothing here"},
        {"same": "before ** the quick brown fox – jumps over it ** behind"},
        {"same": "x the quick brown fox"},
    ]
    for number, each in enumerate(texts):
        unspool.build_index(
            documents=list(each.items()), out=folder / f"{number}", memory="256MiB", workers=1
        )
    return [folder / str(number) for number in range(len(texts))]


def test_sources_of_several_indexes_are_told_apart(indexes: list[Path]) -> None:
    text = "He said: the quick brown fox – jumps over it <script>alert(1)</script>"
    found = trace_report(indexes, text, TraceSettings(min_length=12))
    piece = found.pieces[0]
    data = text.encode()
    assert data[piece.start : piece.end].decode() == piece.text
    assert piece.count == 2
    assert [(s.span.document, s.index) for s in piece.sources] == [("same", "0"), ("same", "1")]
    afters = [source.after for source in piece.sources]
    assert afters[0].endswith("after")
    assert afters[1].endswith("behind")
    assert found.covered_bytes == piece.end - piece.start
    page = page_of(found).decode()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    links = set(re.findall(r'href="#(p\d+)"', page))
    assert links == set(re.findall(r'id="(p\d+)"', page)) == {"p1"}
    assert "default-src 'none'" in page


def test_nothing_found_makes_a_page_without_pieces(indexes: list[Path]) -> None:
    found = trace_report(indexes[0], "zzzz yyyy")
    assert found.pieces == ()
    assert found.covered == 0
    assert "0 pieces of this text stand word for word" in page_of(found).decode()


def test_bad_input(indexes: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="empty"):
        trace_report(indexes, " \n")
    with pytest.raises(ConfigError):
        trace_report(indexes, "x", TraceSettings(min_length=0))
    with pytest.raises(ConfigError):
        TraceSettings(context=-1)
    unspool.build_index(
        documents=[("a", "b")], out=tmp_path / "n", memory="256MiB", workers=1, normalise="lower"
    )
    with pytest.raises(InputError, match="normalise"):
        trace_report(tmp_path / "n", "x")
