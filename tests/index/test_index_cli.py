"""`unspool index` and `unspool search` through their entry point: exit codes, output, files."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from unspool.cli.main import run

TEXTS = {"a.txt": "hello long world\n", "b.txt": "hello again, long text\nnaïve \x1b[31m red"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("cli")
    (root / "notes").mkdir()
    for name, text in TEXTS.items():
        (root / "notes" / name).write_text(text)
    (root / "notes" / "skipped.bin").write_bytes(b"\0")
    assert run(["index", "build", str(root / "notes"), "--out", str(root / "ix")]) == 0
    return root


def ask(capfdbinary, *tokens: object) -> tuple[int, str, str]:
    code = run([str(token) for token in tokens])
    out, err = capfdbinary.readouterr()
    return code, out.decode(), err.decode()


def rows(capfdbinary, *tokens: object) -> list[dict]:
    code, out, err = ask(capfdbinary, *tokens, "--json")
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()]


def test_build_says_what_it_did_and_left_out(folder, tmp_path, capfdbinary):
    (found,) = rows(capfdbinary, "index", "build", folder / "notes", "--out", tmp_path / "ix")
    assert found["documents"] == 2
    assert found["symbols"] == found["bytes_text"] == sum(len(t.encode()) for t in TEXTS.values())
    assert found["bytes_index"] == (tmp_path / "ix" / "shard-00000.fm").stat().st_size
    assert found["seconds"] > 0
    assert found["peak_bytes"] > 10 << 20
    assert found["notes"] == ["left out 1 files or folders: 1 extension .bin"]
    code, out, err = ask(capfdbinary, "index", "build", folder / "notes", "--out", tmp_path / "ix")
    assert code == 0
    assert re.search(r"documents +2\n", out)
    assert "1 extension .bin" in err


def test_info_and_verify(folder, capfdbinary):
    (found,) = rows(capfdbinary, "index", "info", folder / "ix")
    assert {"documents", "symbols", "bytes_text", "bytes_index", "seconds", "peak_bytes"} <= set(
        found
    )
    assert (found["alphabet"], found["tiers"], found["documents"]) == ("bytes", ["fm"], 2)
    assert ask(capfdbinary, "index", "info", folder / "ix")[0] == 0
    assert rows(capfdbinary, "index", "verify", folder / "ix") == [{"ok": True, "errors": []}]


def test_verify_exits_1_and_names_the_file(folder, tmp_path, capfdbinary):
    run(["index", "build", str(folder / "notes"), "--out", str(tmp_path / "ix")])
    capfdbinary.readouterr()
    path = tmp_path / "ix" / "shard-00000.fm"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    code, out, _ = ask(capfdbinary, "index", "verify", tmp_path / "ix", "--json")
    assert code == 1
    found = json.loads(out)
    assert found["ok"] is False
    assert "shard-00000.fm" in found["errors"][0]


def test_count(folder, capfdbinary):
    ix = folder / "ix"
    expected = [{"query": "hello", "count": 2}, {"query": "zzz", "count": 0}]
    assert rows(capfdbinary, "search", "count", ix, "hello", "zzz") == expected
    assert rows(capfdbinary, "search", "count", ix, "104,101", "--ids")[0]["count"] == 2
    total = sum(len(t.encode()) + 1 for t in TEXTS.values())
    assert rows(capfdbinary, "search", "count", ix, "")[0]["count"] == total
    _, out, _ = ask(capfdbinary, "search", "count", ix, "--json", "--", "--json")
    assert json.loads(out) == {"query": "--json", "count": 0}
    _, out, _ = ask(capfdbinary, "search", "count", ix, "hello", "long")
    assert out.splitlines() == ["count  query", "    2  hello", "    2  long"]


def test_count_reads_queries_from_standard_input(folder):
    done = subprocess.run(
        [sys.executable, "-m", "unspool", "search", "count", str(folder / "ix"), "-", "--json"],
        input="hello\n\nnaïve\n".encode(),
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert done.returncode == 0, done.stderr
    counts = [json.loads(line)["count"] for line in done.stdout.splitlines()]
    assert counts == [2, sum(len(t.encode()) + 1 for t in TEXTS.values()), 1]


def test_find(folder, capfdbinary):
    found = rows(capfdbinary, "search", "find", folder / "ix", "long", "--order", "position")
    assert [(r["document"], r["start"], r["end"], r["text"]) for r in found] == [
        ("a.txt", 6, 10, "long"),
        ("b.txt", 13, 17, "long"),
    ]
    assert found[0]["context"] == TEXTS["a.txt"]
    (one,) = rows(
        capfdbinary, "search", "find", folder / "ix", "long", "--limit", 1, "--context", 3
    )
    assert one["context"] in ("lo long wo", "n, long te")
    code, out, err = ask(capfdbinary, "search", "find", folder / "ix", "naïve")
    assert code == 0
    assert "\x1b" not in out
    assert r"\x1b[31m red" in out
    assert "1 of 1 occurrences shown" in err
    both = rows(capfdbinary, "search", "find", folder / "ix", "l", "--documents")
    assert sorted(r["document"] for r in both) == ["a.txt", "b.txt"]


def test_next_and_prob(folder, capfdbinary):
    ix = folder / "ix"
    found = rows(capfdbinary, "search", "next", ix, "hello ")
    assert found == [
        {"symbol": 97, "text": "a", "count": 1, "prob": 0.5, "suffix_length": 6},
        {"symbol": 108, "text": "l", "count": 1, "prob": 0.5, "suffix_length": 6},
    ]
    (end,) = rows(capfdbinary, "search", "next", ix, "world\n")
    assert (end["symbol"], end["text"]) == (-1, "")
    (top,) = rows(capfdbinary, "search", "next", ix, "zz hello", "--infgram", "--top", 1)
    assert (top["suffix_length"], top["symbol"]) == (5, 32)
    assert rows(capfdbinary, "search", "prob", ix, "hello ", "lo") == [
        {"prompt_count": 2, "count": 1, "prob": 0.5, "suffix_length": 6}
    ]
    assert rows(capfdbinary, "search", "prob", ix, "zzz", "a")[0]["prob"] is None
    assert rows(capfdbinary, "search", "prob", ix, "world\n", "--end")[0]["prob"] == 1.0
    assert rows(capfdbinary, "search", "prob", ix, "zzz", "l", "--infgram")[0]["suffix_length"] == 0
    for words in (("next", ix, "hello"), ("prob", ix, "hello", " "), ("prob", ix, "zz", "a")):
        assert ask(capfdbinary, "search", *words)[0] == 0


def test_trace_and_cnf(folder, capfdbinary):
    ix = folder / "ix"
    (span,) = rows(capfdbinary, "search", "trace", ix, "say hello long", "--min-length", 8)
    assert (span["start"], span["end"], span["text"], span["count"]) == (4, 14, "hello long", 1)
    assert span["sources"] == [{"document": "a.txt", "start": 0, "end": 10, "text": "hello long"}]
    head, *hits = rows(capfdbinary, "search", "cnf", ix, "hello|bye", "long", "--window", 20)
    assert head == {"count": 2, "exact": True, "low": 2, "high": 2}
    assert [h["text"] for h in hits] == ["hello long", "hello again, long"]
    assert rows(capfdbinary, "search", "cnf", ix, r"a\|b")[0]["count"] == 0
    for words in (("trace", ix, "hello"), ("cnf", ix, "hello")):
        assert ask(capfdbinary, "search", *words)[0] == 0


WRONG = [
    (2, "Did you mean", "index build {root}/note --out {tmp}/ix"),
    (2, "no file", "index build {tmp}/empty --out {tmp}/ix"),
    (2, "binary", "index build {root}/notes/skipped.bin --out {tmp}/ix"),
    (2, '"fm", "sa", "both"', "index build {root}/notes --out {tmp}/ix --tier xx"),
    (2, "256MiB", "index build {root}/notes --out {tmp}/ix --memory 1MiB"),
    (2, "such as 8GiB", "index build {root}/notes --out {tmp}/ix --memory much"),
    (2, "at least 1", "index build {root}/notes --out {tmp}/ix --workers 0"),
    (2, "no tokenizer", "index build {root}/notes --out {tmp}/ix --alphabet tokenizer:nope"),
    (2, "'bytes' or 'tokenizer:NAME'", "index build {root}/notes --out {tmp}/ix --alphabet words"),
    (2, "nfc, lower and space", "index build {root}/notes --out {tmp}/ix --normalise upper"),
    (2, "between 1 and 65536", "index build {root}/notes --out {tmp}/ix --sa-sample 0"),
    (2, "--sa-sample was 32", "index build {root}/notes --out {root}/ix --sa-sample 16"),
    (2, "and no index", "index build {root}/notes --out {root}/notes"),
    (2, "nothing is there", "search count {tmp}/ix hello"),
    (1, "holds no index", "search count {tmp}/empty hello"),
    (2, "is a file", "search count {root}/notes/a.txt hello"),
    (2, "whole numbers", "search count {root}/ix hello --ids"),
    (2, "0 to 255", "search count {root}/ix 256 --ids"),
    (2, "Unknown option: --jsn", "search count {root}/ix hello --jsn"),
    (2, "at least 1", "search find {root}/ix hello --limit 0"),
    (2, "Choose from", "search find {root}/ix hello --order best"),
    (2, "either", "search prob {root}/ix hello"),
    (2, "empty alternative", "search cnf {root}/ix a||b"),
    (2, "at least 1", "search next {root}/ix a --top 0"),
]


@pytest.mark.parametrize(("code", "says", "line"), WRONG)
def test_wrong_use_is_told_what_to_do(folder, tmp_path, capfdbinary, code, says, line):
    (tmp_path / "empty").mkdir()
    tokens = line.format(root=folder, tmp=tmp_path).split()
    found, out, err = ask(capfdbinary, *tokens)
    assert found == code, err
    assert says in err
    assert "Traceback" not in err
    assert not out
    assert not (tmp_path / "ix").exists()


def test_an_index_of_a_newer_version_and_an_interrupted_one(folder, tmp_path, capfdbinary):
    build = ["index", "build", str(folder / "notes"), "--out", str(tmp_path / "ix")]
    assert run(build) == 0
    capfdbinary.readouterr()
    manifest = tmp_path / "ix" / "index.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"format": 1', '"format": 2'))
    code, _, err = ask(capfdbinary, "search", "count", tmp_path / "ix", "hello")
    assert code == 1
    assert "format 2" in err
    assert "Upgrade" in err
    manifest.unlink()
    code, _, err = ask(capfdbinary, "search", "count", tmp_path / "ix", "hello")
    assert code == 1
    assert "was never finished" in err
    assert run(build) == 0
    assert manifest.read_text() == text


def test_ctrl_c_stops_cleanly_and_leaves_what_can_be_continued(tmp_path):
    (tmp_path / "corpus").mkdir()
    line = json.dumps({"text": "many words about nothing at all " * 40}) + "\n"
    for number in range(8):
        (tmp_path / "corpus" / f"{number}.jsonl").write_text(line * 3000)
    tokens = ["index", "build", str(tmp_path / "corpus"), "--out", str(tmp_path / "ix")]
    build = subprocess.Popen(
        [sys.executable, "-m", "unspool", *tokens, "--workers", "2"],
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        start_new_session=True,
    )
    with build:
        while not list((tmp_path / "ix" / "spool").glob("*.rec")):
            assert build.poll() is None
        os.killpg(build.pid, signal.SIGINT)  # as a terminal does: to the whole group
        _, err = build.communicate(timeout=20)
    assert build.returncode == 130, err
    assert b"continues where this one stopped" in err
    assert b"Traceback" not in err
    assert (tmp_path / "ix" / "plan.json").exists()
    assert not (tmp_path / "ix" / "index.json").exists()


def test_a_token_index_says_which_ids_it_was_asked_with(folder, tmp_path, capfdbinary):
    from tests.index.test_search import byte_level

    alphabet = f"tokenizer:{byte_level(tmp_path)}"
    build = ("index", "build", folder / "notes", "--out", tmp_path / "ix", "--alphabet", alphabet)
    rows(capfdbinary, *build)
    (found,) = rows(capfdbinary, "search", "count", tmp_path / "ix", "hello")
    assert found["count"] == 2
    ids = ",".join(map(str, found["ids"]))
    assert rows(capfdbinary, "search", "count", tmp_path / "ix", ids, "--ids")[0]["count"] == 2
    code, _, err = ask(capfdbinary, "search", "find", tmp_path / "ix", "ello long worl")
    assert code == 0
    assert "whole tokens" in err
