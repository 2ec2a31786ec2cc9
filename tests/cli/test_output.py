"""What every verb prints with: numbers, safe text, tables, JSON and progress."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspool.cli import _output
from unspool.types import Passage, Span


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1 << 30, "1.0 GiB"),
        (3 << 60, "3072.0 PiB"),
    ],
)
def test_human_bytes(value: int, said: str) -> None:
    assert _output.human_bytes(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (3.2e-6, "3.2 µs"),
        (0.0123, "12.3 ms"),
        (9.94, "9.9 s"),
        (247, "4 min 07 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_human_seconds(value: float, said: str) -> None:
    assert _output.human_seconds(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(1234567, "1,234,567"), (2.0, "2"), (0.44231, "0.442"), (1234.5, "1,230"), (999.6, "1,000")],
)
def test_human_number(value: float, said: str) -> None:
    assert _output.human_number(value) == said


@given(st.text())
def test_printable_text_cannot_drive_a_terminal(text: str) -> None:
    shown = _output.printable(text)
    assert all(c.isprintable() or c in "\n\t" for c in shown)
    assert "\n" not in _output.printable(text, one_line=True)
    if all(c.isprintable() or c in "\n\t" for c in text):
        assert shown == text


def test_escapes_show_what_was_there() -> None:
    assert _output.printable("\x1b[2J\u202eevil\r") == "\\x1b[2J\\u202eevil\\x0d"
    assert _output.printable("a\r\nb\tc", one_line=True) == "a⏎b c"


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    hit = Passage(Span("a.txt", 0, 4, "é\n\x1b"), 1.5)
    _output.emit_json({"evidence": [hit], "path": Path("x/y")})
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert "\x1b" not in line
    assert json.loads(line) == {
        "evidence": [{"document": "a.txt", "start": 0, "end": 4, "text": "é\n\x1b", "score": 1.5}],
        "path": "x/y",
    }


def test_a_file_name_that_is_not_utf8_has_a_json_form(capsys: pytest.CaptureFixture[str]) -> None:
    _output.emit_json({"document": "a\udcff.txt"})
    assert capsys.readouterr().out == '{"document": "a\\udcff.txt"}\n'
    with pytest.raises(TypeError):
        _output.emit_json({"what": object()})


def test_a_table_in_a_pipe_is_aligned_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    _output.emit_table(["query", "count"], [["the", 12], ["x" * 300, 3]], right=("count",))
    lines = capsys.readouterr().out.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "x" * 300 in lines[2]
    assert lines[1].endswith("   12")


class _Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_progress_into_a_log_is_a_line_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = _Clock()
    monkeypatch.setattr(_output, "time", clock)
    with _output.progress("Building", total=400, unit="documents") as progress:
        for second in range(40):
            clock.now = float(second)
            progress.update(second * 10, stage="sorting")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0] == (
        "Building (sorting): 100 documents of 400 documents (25%) at 10 documents/s "
        "about 30.0 s left"
    )


def test_progress_of_short_work_and_under_json_is_silent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with _output.progress("Short", unit="B") as progress:
        progress.update(5, total=10)
    with _output.progress("Quiet", quiet=True) as progress:
        progress.update(0.5)
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal_shows_rate_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with _output.progress("Indexing", total=2048, unit="B") as progress:
        progress.update(1024, stage="sorting")
        progress.update(2048)
    said = capsys.readouterr()
    assert said.out == ""
    assert "Indexing" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.err)
