"""`unspool compare` and `curve`: methods side by side on a small model, resumed and refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.backends.tiny import network, tokenizer
from unspool.cli import main as cli

TEXT = "Lake Orm lies far north. Its deepest point is 213 metres down, says the village.\n" * 12
METHODS = ("dense", "lm-infinite:local=64,sinks=4", "xl3m:segment=100,overlap=20,keep=2")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    network("llama", 512).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "lake.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def run(capfd: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = cli.run([str(word) for word in words])
    out, err = capfd.readouterr()
    return code, out, err


def test_compare_measures_counts_and_goes_on(
    model: Path, text: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "compared"
    words = ["compare", "--model", model, "--context", text, "--length", 600, "--bucket", 100]
    words += ["--depths", "0.5", "--out", out, "--json"]
    first = [word for spec in METHODS[:1] for word in ("--method", spec)]
    every = [word for spec in METHODS for word in ("--method", spec)]
    assert run(capfd, *words, *first)[0] == 0
    before = (out / "rows.jsonl").read_bytes()
    code, said, _ = run(capfd, *words, *every)
    assert code == 0
    assert (out / "rows.jsonl").read_bytes().startswith(before)  # what was done is not done again
    fresh, dense, bounded, prompt = (json.loads(line) for line in said.splitlines())
    assert [len(row["buckets"]) for row in (fresh, dense, bounded, prompt)] == [6, 6, 6, 0]
    # Within half the window nothing was read afresh, so all three read the first tokens alike.
    assert dense["buckets"][0] == pytest.approx(fresh["buckets"][0], abs=1e-3)
    assert dense["dropped_tokens"] == 0
    assert 600 - 68 - 20 <= bounded["dropped_tokens"] <= 600
    assert 600 - 512 <= prompt["dropped_tokens"] < 600
    assert all(len(row["passkeys"]) == 1 for row in (dense, bounded, prompt))
    assert bounded["kept_bytes"] < dense["kept_bytes"]
    assert run(capfd, *words, *every)[1] == said
    with (out / "compare.csv").open(encoding="utf-8") as file:
        measures = [(row["method"], row["measure"]) for row in csv.DictReader(file)]
    assert measures.count(("dense", "nats")) == 6
    assert (METHODS[2], "dropped_tokens") in measures
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
    code, _, err = run(capfd, *words[:-3], "--seed", 1, "--out", out, *every)
    assert code == 2
    assert "seed=0" in err
    code, _, err = run(capfd, *words[:-3], "--out", text, *first)
    assert code == 2
    assert f"{text} is a file" in err


def test_compare_says_where_a_method_left_nothing_out(
    model: Path, text: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sizes = "block_q=8,k_tokens=8,window=8,sink=4,dense_layers="
    random, sparse = (
        f"random-blocks:{sizes},dense_below=128",
        f"random-blocks:{sizes},dense_below=0",
    )
    words = ["compare", "--model", model, "--context", text, "--bucket", 100, "--depths", ""]
    words += ["--method", random, "--method", sparse, "--method", "dense"]
    code, said, _ = run(capfd, *words, "--length", 100)
    assert code == 0
    assert said.count("leaves nothing out") == 1
    assert f"{random} leaves nothing out up to 128 tokens" in " ".join(said.split())
    code, said, _ = run(capfd, *words, "--length", 120)  # 16 more are written
    assert code == 0
    assert "leaves nothing out" not in said
    curve = [word for word in words if word not in ("--depths", "")]
    code, said, _ = run(capfd, "curve", *curve[1:], "--length", 100)
    assert code == 0
    assert said.count("leaves nothing out up to 128 tokens") == 1
    code, said, _ = run(capfd, *words, "--length", 100, "--json")
    rows = [json.loads(line) for line in said.splitlines()]
    assert [row["exact_within"] for row in rows] == [None, 128, 20, None]
    assert rows[1]["buckets"] == rows[3]["buckets"] != rows[2]["buckets"]


def test_curve_gives_a_point_a_bucket(
    model: Path, text: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["curve", "--model", model, "--context", text, "--length", 300, "--bucket", 100]
    code, said, _ = run(capfd, *words, "--json")
    rows = [json.loads(line) for line in said.splitlines()]
    assert code == 0
    assert [(r["method"], r["position"]) for r in rows if r["method"] == "dense"] == [
        ("dense", 0), ("dense", 100), ("dense", 200),
    ]  # fmt: skip
    code, said, _ = run(capfd, *words)
    assert code == 0
    assert "dense" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compare"], "--context"),
        (["compare", "--context", "TEXT"], "Say what to compare"),
        (["compare", "--context", "TEXT", "--methods", "dense,dense"], "named twice"),
        (["compare", "--context", "TEXT", "--method", "dens"], "Did you mean dense"),
        (["compare", "--context", "TEXT", "--method", "dense:late=maybe"], "late='maybe'"),
        (["compare", "--context", "nowhere.txt", "--method", "dense"], "no file or folder"),
        (["compare", "--context", "TEXT", "--method", "dense", "--depths", "2"], "between 0 and 1"),
        (["compare", "--context", "TEXT", "--method", "dense", "--bucket", "0"], "--bucket"),
        (["curve", "--context", "TEXT", "--method", "xl3m"], "unspool compare --method xl3m"),
        (["curve", "--context", "TEXT", "--method", "x", "--method", "x"], "named twice"),
        (["curve", "--context", "TEXT", "--bucket", "0"], "--bucket"),
        (["compare", "--context", "TEXT", "--method", "padding-free"], "encoders and for training"),
        (["curve", "--context", "TEXT", "--method", "padding-free"], "encoders and for training"),
        (["generate", "Where?", "--method", "padding-free"], "encoders and for training"),
        (["ask", "TEXT", "Where?", "--method", "padding-free"], "encoders and for training"),
        (
            ["context", "save", "TEXT", "--method", "padding-free", "--out", "kept"],
            "encoders and for training",
        ),
    ],
)
def test_wrong_use(
    words: list[str], said: str, text: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    named: dict[str, Any] = {"TEXT": text}
    code, _, err = run(capfd, *(named.get(word, word) for word in words))
    assert code == 2
    assert said in err


def test_more_tokens_than_there_are(
    model: Path, text: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("--model", model, "--context", text, "--length", 10_000)
    for command in (("compare", "--method", "dense"), ("curve",)):
        code, _, err = run(capfd, *command, *words)
        assert code == 2
        assert "Give more text" in err
