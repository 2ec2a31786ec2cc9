"""`unspool audit knn-lm` as its users meet it, with a model of a few thousand weights."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.backends import tiny
from unspool.cli import main as cli

TEXT = "The quick brown fox jumps over the lazy dog. To be, or not to be: 1 2 3 4! "


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, texts, and a datastore that was built and tuned through the commands."""
    place = tmp_path_factory.mktemp("knn")
    tiny.saved(place / "model")
    lines = [json.dumps({"id": str(i), "text": f"{i}: {TEXT * 2}"}) for i in range(6)]
    (place / "train.jsonl").write_text("\n".join(lines))
    tested = [json.dumps({"id": str(i), "text": f"Dog {i} jumps. " * 12}) for i in range(24)]
    (place / "test.jsonl").write_text("\n".join(tested))
    (place / "tune.txt").write_text("A lazy fox, or not a fox: 4 3 2 1. " * 6)
    model = ["--model", str(place / "model")]
    line = ["audit", "knn-lm", "build", str(place / "train.jsonl"), "--out", str(place / "store")]
    assert cli.run([*line, *model]) == 0
    line = ["audit", "knn-lm", "tune", str(place / "store"), str(place / "tune.txt")]
    assert cli.run([*line, "--out", str(place / "tuning"), *model]) == 0
    return place


def run(folder: Path, verb: str, *arguments: str) -> int:
    line = ["audit", "knn-lm", verb, *arguments, "--model", str(folder / "model")]
    return cli.run(line)


def test_build_says_what_it_will_cost_and_goes_on(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(folder / "train.jsonl"), "--out", str(tmp_path / "s")]
    assert run(folder, "build", *arguments, "--window", "64") == 0
    err = capfd.readouterr().err
    assert "6 documents" in err
    assert "a query is compared with about" in err
    assert run(folder, "build", *arguments, "--window", "64", "--json") == 0
    row = json.loads(capfd.readouterr().out)
    assert row["keys"] == row["compared"] > 100
    assert (row["index"], row["index_bytes"], row["dimension"]) == ("flat", 0, 16)
    assert row["key_bytes"] == row["keys"] * (16 * 2 + 4)
    assert (tmp_path / "s" / "keys.bin").stat().st_size == row["keys"] * 32
    assert run(folder, "build", *arguments, "--window", "32") == 2
    assert "reading was {'stride': 32, 'window': 64}" in capfd.readouterr().err


def test_eval_uses_what_tune_found(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tuned = json.loads((folder / "store" / "tuned.json").read_text())
    arguments = [str(folder / "store"), str(folder / "test.jsonl"), "--out", str(folder / "e")]
    assert run(folder, "eval", *arguments, "--json") == 0
    found = json.loads(capfd.readouterr().out)
    assert found["mixture"] == tuned
    assert found["share_hurt"] + found["share_helped"] <= 1
    assert {"ppl_lm", "ppl_mix", "mean_delta_hurt", "top_decile_share", "shared"} <= set(found)
    report = (folder / "e" / "report.json").read_bytes()
    page = (folder / "e" / "report.html").read_bytes()
    assert run(folder, "eval", *arguments) == 0  # again, from what was retrieved
    out, err = capfd.readouterr()
    assert out.splitlines()[1].split()[:2] == ["all", "tokens"]
    assert "of the tokens become less likely" in out
    assert "report.html" in err
    assert (folder / "e" / "report.json").read_bytes() == report
    assert (folder / "e" / "report.html").read_bytes() == page
    assert b"<script" not in page
    assert run(folder, "eval", *arguments[:2], "--out", str(folder / "e2"), "--lam", "0") == 0
    plain = json.loads((folder / "e2" / "report.json").read_text())
    assert plain["ppl_mix"] == plain["ppl_lm"] == pytest.approx(found["ppl_lm"])
    assert plain["mixture"]["lams"] == []


def test_generate_writes_with_and_without(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = [str(folder / "store"), "0: The quick brown fox", "--new", "8"]
    greedy = [*arguments, "--top-p", "0", "--lam", "1", "--k", "1"]
    assert run(folder, "generate", *greedy) == 0
    assert capfd.readouterr().out.startswith(" jumps over")
    assert run(folder, "generate", *arguments, "--compare", "--json") == 0
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [(row["arm"], row["tokens"]) for row in rows] == [("mix", 8), ("lm", 8)]
    assert run(folder, "generate", *arguments, "--compare", "--json") == 0
    again = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [row["text"] for row in again] == [row["text"] for row in rows]


@pytest.mark.slow
def test_analyse_examines_and_judges_answer(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = folder / "a"
    arguments = [str(folder / "store"), str(folder / "test.jsonl"), "--out", str(out)]
    sizes = ["--prefixes", "20", "--prefix", "16", "--new", "12", "--seeds", "2"]
    assert run(folder, "analyse", *arguments, *sizes) == 0
    said = capfd.readouterr().out
    assert "nats per 100 tokens" in said
    assert "MAUVE differs by" in said
    found = json.loads((out / "report.json").read_text())
    assert {"slope_H_knn", "slope_H_lm", "mauve", "generation"} <= set(found)
    with (out / "sheet.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) == 21
    filled = out / "filled.csv"
    with filled.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([rows[0], *([*row[:4], "="] for row in rows[1:])])
    line = ["audit", "knn-lm", "score", str(filled), "--key", str(out / "sheet-key.json")]
    assert cli.run([*line, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["ties"] == 20
    line[3] = str(out / "sheet.csv")
    assert cli.run(line) == 2
    assert "the mark must be A, B or =" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("verb", "arguments", "said"),
    [
        ("build", ["--out", "{}/x"], "Say which texts to read"),
        ("build", ["{}/none.txt", "--out", "{}/x"], "There is no file or folder"),
        ("build", ["{}/tune.txt", "--out", "{}/x", "--window", "999"], "do not fit into the model"),
        ("build", ["{}/tune.txt", "--out", "{}/tune.txt"], "is a file, and a folder is needed"),
        ("build", ["{}/tune.txt", "--out", "{}/x", "--layer", "middle"], "layer"),
        ("eval", ["{}/nostore", "{}/tune.txt", "--out", "{}/x"], "There is no datastore"),
        ("eval", ["{}/tuning", "{}/tune.txt", "--out", "{}/x"], "holds hits"),
        ("eval", ["{}/store", "{}/tune.txt", "--out", "{}/x", "--lam", "1.5"], "between 0 and 1"),
        ("eval", ["{}/store", "{}/tune.txt", "--out", "{}/x", "--k", "0"], "k must be >= 1"),
        ("generate", ["{}/store", ""], "The prompt has no tokens"),
        ("generate", ["{}/store", "x", "--new", "500"], "tokens long"),
        ("generate", ["{}/store", "x", "--new", "0"], "--new must be >= 1"),
        ("analyse", ["{}/store", "{}/tune.txt", "--out", "{}/x"], "Give more text"),
    ],
)  # fmt: skip
def test_wrong_input_is_explained(
    folder: Path, verb: str, arguments: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, verb, *(a.format(folder) for a in arguments)) == 2
    out, err = capfd.readouterr()
    assert said in err
    assert "Traceback" not in err
    assert out == ""


@pytest.mark.slow
def test_an_index_of_tokens_may_stand_in_place_of_a_datastore(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    index = str(tmp_path / "i")
    line = ["index", "build", str(folder / "train.jsonl"), "--out", index, "--tier", "sa"]
    line += ["--alphabet", f"tokenizer:{folder / 'model' / 'tokenizer.json'}", "--workers", "1"]
    assert cli.run([*line, "--memory", "256MiB"]) == 0
    capfd.readouterr()
    text = str(folder / "tune.txt")
    assert run(folder, "tune", index, text, "--out", str(tmp_path / "t"), "--json") == 0
    tuned = json.loads(capfd.readouterr().out)
    assert tuned["perplexity"] < tuned["perplexity_lm"]
    assert run(folder, "eval", index, text, "--out", str(tmp_path / "e"), "--json") == 0
    found = json.loads(capfd.readouterr().out)
    assert found["ppl_mix"] == pytest.approx(tuned["perplexity"])
    assert found["shared"] is None
    assert cli.run(["index", "verify", index]) == 0
