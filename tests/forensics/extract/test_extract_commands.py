"""`unspool audit extract` as its users meet it, from texts to a page."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import unspool
from tests.backends.tiny import saved
from unspool.cli import main as cli


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, texts, controls, pairs, a prompt and answers."""
    folder = tmp_path_factory.mktemp("extract")
    saved(folder / "model")
    draw = random.Random(4)
    for kind, count in (("texts", 10), ("unseen", 2)):
        (folder / kind).mkdir()
        for i in range(count):
            words = " ".join(f"{draw.randrange(10**6):x}" for _ in range(12))
            (folder / kind / f"{kind}{i}.txt").write_text(words)
    model = ["--model", str(folder / "model")]
    line = ["pairs", str(folder / "texts"), "--controls", str(folder / "unseen"), "--prefix", "9",
            "--suffix", "6", "--out", str(folder / "pairs.jsonl"), *model]  # fmt: skip
    assert cli.run(["audit", "extract", *line]) == 0
    line = ["fit", str(folder / "pairs.jsonl"), "--out", str(folder / "prompt"), "--tokens", "3",
            "--epochs", "2", "--top-losses", "2", *model]  # fmt: skip
    assert cli.run(["audit", "extract", *line]) == 0
    line = ["run", str(folder / "pairs.jsonl"), "--out", str(folder / "answers.jsonl"), "--prompt",
            str(folder / "prompt"), "--samples", "5", *model]  # fmt: skip
    assert cli.run(["audit", "extract", *line]) == 0
    return folder


def run(capfd: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    capfd.readouterr()
    assert cli.run(["audit", "extract", *words]) == code
    return tuple(capfd.readouterr())  # type: ignore[return-value]  # two texts


def test_score_hides_texts_unless_told(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    answers, pairs = str(place / "answers.jsonl"), str(place / "pairs.jsonl")
    said = [json.loads(x) for x in (place / "answers.jsonl").read_text().splitlines()[1:]]
    out, _ = run(capfd, "score", answers, "--pairs", pairs, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == len(said) + 1
    assert all("text" not in row for row in rows)
    for row, record in zip(rows, said, strict=False):
        assert row["id"] == record["id"]
        assert row["count"] <= record["drawn"] == 5
    total = rows[-1]
    assert total["prefixes"] + total["controls"] == len(said)
    assert {"recall", "early_stop", "recall_at", "auc", "control_recall"} <= set(total)
    shown = [
        json.loads(x) for x in run(capfd, "score", answers, "--show", "--json")[0].splitlines()
    ]
    assert shown[0]["text"] in {s["text"] for s in said[0]["samples"]}
    assert shown[0]["exact"] is None
    out, err = run(capfd, "score", answers, "--pairs", pairs)
    assert "hidden, 6 tokens" in out
    assert "recall of controls" in out
    assert "never ends" in err


def test_an_index_verifies_and_a_page_is_written(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    record = json.loads((place / "answers.jsonl").read_text().splitlines()[1])
    out, _ = run(capfd, "score", str(place / "answers.jsonl"), "--show", "--json")
    found = [json.loads(line) for line in out.splitlines()]
    mine = next(row for row in found if row.get("id") == record["id"])
    corpus = [("copy", f"{mine['prefix_text']}{mine['text']} and {mine['text']}")]
    unspool.build_index(documents=corpus, out=place / "i.idx", memory="256MiB", workers=1)
    words = ["score", str(place / "answers.jsonl"), "--index", str(place / "i.idx"), "--json"]
    rows = [json.loads(x) for x in run(capfd, *words)[0].splitlines()]
    got = next(row for row in rows if row.get("id") == record["id"])
    assert (got["found"], got["behind"]) == (2, 1)
    assert rows[-1]["behind"] >= 1
    page = place / "page.html"
    words = ["report", str(place / "answers.jsonl"), "--pairs", str(place / "pairs.jsonl"),
             "--index", str(place / "i.idx"), "--out", str(page)]  # fmt: skip
    assert "texts are hidden" in run(capfd, *words)[1]
    html = page.read_text()
    assert "Content-Security-Policy" in html
    assert "<svg" in html
    assert "style=" not in html
    assert "hidden, 6 tokens" in html
    run(capfd, *words, "--show")
    assert "hidden, 6 tokens" not in page.read_text()


def test_a_run_goes_on_and_refuses_other_settings(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    raw = (place / "answers.jsonl").read_bytes()
    half = place / "half.jsonl"
    half.write_bytes(raw[: len(raw) // 2])
    words = ["run", str(place / "pairs.jsonl"), "--out", str(half), "--prompt",
             str(place / "prompt"), "--model", str(place / "model"), "--samples"]  # fmt: skip
    out, err = run(capfd, *words, "5", "--json")
    assert half.read_bytes() == raw
    assert err == ""
    assert json.loads(out)["samples"] == sum(
        json.loads(x)["drawn"] for x in raw.decode().splitlines()[1:]
    )
    assert "another settings" in run(capfd, *words, "6", code=2)[1]


@pytest.mark.slow
def test_a_killed_run_loses_and_doubles_nothing(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    words = [sys.executable, "-m", "unspool", "audit", "extract", "run",
             str(place / "pairs.jsonl"), "--out", str(out), "--model", str(place / "model"),
             "--samples", "40", "--batch", "1"]  # fmt: skip
    sizes = []
    for _ in range(3):
        process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        had = out.stat().st_size if out.exists() else 0
        while process.poll() is None and (not out.exists() or out.stat().st_size < had + 1500):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        sizes.append(out.stat().st_size)
    assert sizes == sorted(set(sizes))
    assert subprocess.run(words, stderr=subprocess.DEVNULL, check=False).returncode == 0
    whole = tmp_path / "b.jsonl"
    words[words.index(str(out))] = str(whole)
    assert subprocess.run(words, stderr=subprocess.DEVNULL, check=False).returncode == 0
    assert out.read_bytes() == whole.read_bytes()


def test_recite_with_texts_and_with_a_model(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = "There is a harbour lamp that nobody has ever seen lit, and people sail by it. " * 4
    unspool.build_index(documents=[("lamp", text)], out=place / "l.idx", memory="256MiB", workers=1)
    said = place / "said.txt"
    said.write_text("I know: there is a harbour lamp that nobody has ever seen lit, and so on.")
    index = ["--index", str(place / "l.idx")]
    out, _ = run(capfd, "recite", str(said), *index, "--min-length", "30", "--json")
    piece, total = (json.loads(line) for line in out.splitlines())
    assert said.read_text()[piece["start"] : piece["end"]] in text
    assert (piece["count"], total["reciting"], total["pieces"]) == (4, 1, 1)
    assert "text" not in piece
    out, err = run(capfd, "recite", str(said), *index, "--min-length", "30", "--show")
    assert "here is a harbour lamp" in out
    assert "1 of 1 texts" in err
    words = ["recite", *index, "--model", str(place / "model"), "--passages", "3", "--prefix", "20",
             "--suffix", "9", "--max-tokens", "5"]  # fmt: skip
    rows = [json.loads(line) for line in run(capfd, *words, "--json")[0].splitlines()]
    assert len(rows) == 4
    assert rows[-1]["passages"] == 3
    out, err = run(capfd, *words)
    assert "agreed bytes" in out
    assert "recited to the end" in err


def test_pairs_from_arrays(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    draw = np.random.default_rng(0)
    for name in ("p", "s"):
        for part, rows in (("a", 2000), ("b", 1000)):
            ids = draw.integers(0, 300, (rows, 4)).astype(np.uint16)
            np.save(place / f"{name}{part}.npy", ids)
    words = ["pairs", "--out", str(place / "arrays.jsonl"), "--json"]
    for flag, name in (("--prefixes", "p"), ("--suffixes", "s")):
        for part in "ab":
            words += [flag, str(place / f"{name}{part}.npy")]
    found = json.loads(run(capfd, *words)[0])
    assert (found["val"], found["test"]) == (1400, 1000)
    assert found["train"] + found["repeated"] == 600


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("pairs --out x.jsonl", "Give texts, or --prefixes"),
        ("pairs texts --prefixes p.npy --out x.jsonl", "Give texts, or --prefixes"),
        ("pairs --prefixes none.npy --suffixes none.npy --out x.jsonl", "no file 'none.npy'"),
        ("pairs --prefixes model/config.json --suffixes model/config.json --out x", "no array"),
        ("fit none.jsonl --out x", "no file 'none.jsonl'"),
        ("fit answers.jsonl --out x", "holds no pairs"),
        ("fit pairs.jsonl --out x --tokens 0", "tokens must be >= 1"),
        ("run pairs.jsonl --out x --top-p 2", "top_p must be"),
        ("run pairs.jsonl --out x --prompt texts", "no prompt"),
        (
            "run pairs.jsonl --out x --splits train --prompt prompt --model model",
            "train the prompt",
        ),
        ("score pairs.jsonl", "holds no answers"),
        ("score answers.jsonl --confidence compare", "--reference MODEL"),
        ("recite texts", "Say in which index"),
        ("recite texts --index i.idx --model model", "without a model"),
    ],
)
def test_wrong_input(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    line: str,
    says: str,
) -> None:
    monkeypatch.chdir(place)
    out, err = run(capfd, *line.split(), code=2)
    assert says in err
    assert "Traceback" not in err
    assert out == ""
