"""`unspool audit contamination` and `trace` as their users meet them."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

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


def test_standard_input_is_a_benchmark(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("b.jsonl", "rb") as file:
        keep = os.dup(0)
        os.dup2(file.fileno(), 0)
        try:
            assert cli.run(["audit", "contamination", "-", "--index", "i.idx", "--json"]) == 0
        finally:
            os.dup2(keep, 0)
            os.close(keep)
    last = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert (last["benchmark"], last["dirty"]) == ("standard input", 1)


@pytest.mark.slow
def test_killed_and_run_again_gives_the_same_files(here: Path) -> None:
    words = TEXT.split()
    rng = random.Random(0)
    rows = [{"text": " ".join(rng.choices(words, k=300))} for _ in range(6000)]
    Path("big.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    line = [sys.executable, "-m", "unspool", "audit", "contamination", "big.jsonl"]
    line += ["--index", "i.idx", "--out"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([*line, "whole"], check=True, **quiet)
    started = subprocess.Popen([*line, "killed"], **quiet)
    deadline = time.monotonic() + 60
    while not list(Path("killed").glob("parts/0*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.01)
    started.kill()
    started.wait()
    assert not Path("killed/entries.jsonl").exists()
    subprocess.run([*line, "killed"], check=True, **quiet)
    assert json.loads(Path("killed/run.json").read_text())["entries_checked_before"] > 0
    for path in Path("whole").iterdir():
        if path.name != "run.json":
            assert (Path("killed") / path.name).read_bytes() == path.read_bytes()
    assert not Path("killed/parts").exists()
