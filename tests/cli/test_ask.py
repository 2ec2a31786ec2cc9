"""`unspool ask` as its users meet it: what is printed where, exit codes, wrong use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unspool.backends import load
from unspool.backends.scripted import ScriptedModel
from unspool.cli import main as cli

QUESTION = "How deep is Lake Orm?"
TEXT = "Lake Orm lies far north.\n\nIts deepest point is 213 metres down – says the village.\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNSPOOL_DATA", str(tmp_path / "cache"))


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "lake.txt").write_text(TEXT, encoding="utf-8")
    return folder


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> ScriptedModel:
    model = ScriptedModel(lambda prompt: "It is 213 metres down, in \x1b[31mbasalt.")
    monkeypatch.setattr(load, "load_model", lambda *_, **__: model)
    return model


def test_answer_evidence_and_usage(
    lake: Path, scripted: ScriptedModel, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["ask", str(lake), QUESTION]) == 0
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert lines[0] == "It is 213 metres down, in \\x1b[31mbasalt."
    assert "Not in what was read: 31mbasalt" in out
    assert f"[1] lake.txt, bytes 0-{len(TEXT.encode())}" in out
    assert "    Its deepest point is 213 metres down – says the village." in out
    assert lines[-1].startswith("17 tokens in the text, 36 read, 0 of the text not read, 7 written")
    assert err == ""
    assert str(lake) not in out


def test_json_is_one_line_with_offsets_that_hold_in_the_file(
    lake: Path, scripted: ScriptedModel, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["ask", str(lake), QUESTION, "--json", "--read-tokens", "2_000"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    found = json.loads(out)
    assert set(found) == {"answer", "evidence", "usage", "unsupported"}
    (passage,) = found["evidence"]
    data = (lake / passage["document"]).read_bytes()
    assert data[passage["start"] : passage["end"]].decode() == passage["text"]
    assert found["usage"]["dropped_tokens"] == 0


def test_passages_that_are_not_shown_are_counted(
    tmp_path: Path, scripted: ScriptedModel, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text(f"Lake {number} is deep and Orm-like. " * 3)
    paths = [str(p) for p in sorted(tmp_path.glob("*.txt"))]
    assert cli.run(["ask", *paths, QUESTION, "--passages", "1"]) == 0
    out = capfd.readouterr().out
    assert "[1]" in out
    assert "[2]" not in out
    assert "5 more passages (--passages 6 quotes them)." in out


def test_an_answer_that_fills_max_tokens_says_so(
    lake: Path, scripted: ScriptedModel, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["ask", str(lake), QUESTION, "--max-tokens", "2"]) == 0
    assert "as long as --max-tokens allows (2)" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "Say what to read and what to ask"),
        (["LAKE"], 2, "The question is missing"),
        ([QUESTION], 2, "The path is missing"),
        (["LAKE", ""], 2, "The question is empty"),
        (["LAKE", "   "], 2, "The question is empty"),
        ([QUESTION, "LAKE"], 2, "the question comes last"),
        (["missing.txt", QUESTION], 2, "missing.txt"),
        (["EMPTY", QUESTION], 2, "There is no file in"),
        (["BINARY", QUESTION], 2, "no text to read"),
        (["IMAGE", QUESTION], 2, "image.bin"),
        (["LAKE", QUESTION, "--no-such-thing"], 2, "The options are --model"),
        (["LAKE", QUESTION, "--method", "bm52"], 2, "Did you mean bm25"),
        (["LAKE", QUESTION, "--read-tokens", "lots"], 2, "'window'"),
        (["LAKE", QUESTION, "--read-tokens", "window"], 2, "tells no window"),
        (["LAKE", QUESTION, "--read-tokens", "7"], 2, "the read budget is 7"),
        (["LAKE", QUESTION, "--top-k", "0"], 2, "top_k must be >= 1"),
        (["LAKE", QUESTION, "--top-k", "x"], 2, "top-k"),
        (["LAKE", QUESTION, "--max-tokens", "0"], 2, "max_tokens must be >= 1"),
        (["LAKE", QUESTION, "--passages", "-1"], 2, "--passages must be >= 0"),
        (["LAKE", QUESTION, "--modle", "x"], 2, "Did you mean --model?"),
    ],
)
def test_wrong_use(
    lake: Path,
    tmp_path: Path,
    scripted: ScriptedModel,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "binary").mkdir()
    (tmp_path / "binary" / "image.bin").write_bytes(bytes(range(256)) * 8)
    places = {
        "LAKE": str(lake),
        "EMPTY": str(tmp_path / "none"),
        "BINARY": str(tmp_path / "binary"),
        "IMAGE": str(tmp_path / "binary" / "image.bin"),
    }
    assert cli.run(["ask", *(places.get(a, a) for a in arguments)]) == code
    out, err = capfd.readouterr()
    assert out == ""
    assert says in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--endpoint", "http://127.0.0.1:9"], 1, "cannot be reached"),
        (["--endpoint", "localhost"], 2, "http://localhost:8000/v1"),
        (["--model", "./missing"], 2, "no model folder"),
    ],
)
def test_models_that_cannot_be_had(
    lake: Path, capfd: pytest.CaptureFixture[str], options: list[str], code: int, says: str
) -> None:
    assert cli.run(["ask", str(lake), QUESTION, *options]) == code
    out, err = capfd.readouterr()
    assert (out, says in err, "Traceback" in err) == ("", True, False)


def test_help_shows_examples_and_every_option(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["ask", "--help"]) == 0
    out = capfd.readouterr().out
    assert 'unspool ask handbook.txt "Who may open the archive?"' in out
    for option in ("--model", "--endpoint", "--method", "--top-k", "--read-tokens", "--json"):
        assert option in out


def test_standard_input_is_read(scripted: ScriptedModel, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPTED_CLI, "ask", "-", QUESTION, "--json"],
        input=TEXT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(done.stdout)["evidence"][0]["text"] == TEXT


_SCRIPTED_CLI = """
import sys, time
from unspool.backends import load
from unspool.backends.scripted import ScriptedModel
def answer(prompt):
    if "--slow" in sys.argv:
        sys.stderr.write("reading\\n"); sys.stderr.flush(); time.sleep(30)
    return "213"
load.load_model = lambda *_, **__: ScriptedModel(answer)
from unspool.cli.main import main
main([a for a in sys.argv[1:] if a != "--slow"])
"""


def test_ctrl_c_ends_it_with_130(lake: Path) -> None:
    running = subprocess.Popen(
        [sys.executable, "-c", _SCRIPTED_CLI, "ask", str(lake), QUESTION, "--slow"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
    )
    assert running.stderr is not None
    assert running.stderr.readline() == "reading\n"
    time.sleep(0.2)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=20)
    assert running.returncode == 130
    assert out == ""
    assert "Interrupted" in err
    assert "Traceback" not in err
