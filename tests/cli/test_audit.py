"""`unspool audit contamination` and `trace` as their users meet them."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

import unspool
from unspool.cli import main as cli

TEXT = "In the far north lies a lake that nobody from the village has ever crossed in winter."


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    unspool.build_index(
        documents=[("lake", TEXT), ("=x", "\x1b[31mred")], out="i.idx", memory="256MiB", workers=1
    )
    rows = [{"id": "seen", "text": TEXT[7:]}, {"id": "new", "text": "Q" * 60}, {"text": ""}]
    Path("b.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    return tmp_path


def test_contamination_prints_a_table(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["audit", "contamination", "b.jsonl", "--index", "i.idx"]) == 0
    out, err = capfd.readouterr()
    assert out.splitlines()[1].split() == ["b.jsonl", "3", "1", "0", "1", "1", "50.0%"]
    assert "dirty" in out
    assert "lake" in out
    assert "seen" in out
    assert "3 entries checked" in err


def test_contamination_json(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    line = ["audit", "contamination", "b.jsonl", "--index", "i.idx", "--json", "--out", "rep"]
    assert cli.run(line) == 0
    out, err = capfd.readouterr()
    rows = [json.loads(each) for each in out.splitlines()]
    assert err == ""
    assert len(rows) == 4
    assert {"id", "eta", "label", "windows", "hits", "fields", "examples"} <= set(rows[0])
    assert {"benchmark", "entries", "dirty", "suspicious"} <= set(rows[3])
    assert rows[0]["examples"][0]["document"] == "lake"
    assert (here / "rep" / "entries.jsonl").read_text() + (
        here / "rep" / "benchmarks.jsonl"
    ).read_text() == out


def test_trace_writes_a_page(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(f"So: {TEXT[:50]}?".encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert cli.run(["audit", "trace", "-", "--index", "i.idx", "--out", "p.html"]) == 0
    out, _ = capfd.readouterr()
    assert "lake, bytes 0-" in out
    assert "<mark>In the far north" in Path("p.html").read_text()
    assert cli.run(["audit", "trace", TEXT, "--index", "i.idx", "--json"]) == 0
    row = json.loads(capfd.readouterr().out)
    assert {"start", "end", "text", "count", "sources"} <= set(row)
    assert (row["start"], row["end"], row["count"]) == (0, len(TEXT), 1)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("contamination", "Say which benchmarks"),
        ("contamination b.jsonl", "Say in which index"),
        ("contamination c.jsonl --index i.idx", "Did you mean 'b.jsonl'"),
        ("contamination b.jsonl --index j.idx", "no index at j.idx"),
        ("contamination b.jsonl --index i.idx --fields q", "there is no field 'q'"),
        ("contamination b.jsonl --index i.idx --stride x", "--stride must be word"),
        ("contamination b.jsonl --index i.idx --dirty 2", "dirty=2"),
        ("contamination b.jsonl --index i.idx --out b.jsonl", "is a file"),
        ("trace --index i.idx", "Give either a text"),
        ("trace a --file b.jsonl --index i.idx", "Give either a text"),
        ("trace --file none --index i.idx", "no file 'none'"),
        ("trace text --index i.idx --out no/p.html", "folder that exists"),
        ("trace text --index i.idx --min-length 0", "min_length"),
    ],
)
def test_wrong_input_is_told(
    here: Path, line: str, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["audit", *line.split()]) == 2
    out, err = capfd.readouterr()
    assert says in err
    assert out == ""
    assert "Traceback" not in err
