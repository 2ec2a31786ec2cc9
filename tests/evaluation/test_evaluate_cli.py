"""`unspool evaluate` and `unspool view` as their users meet them: output, files, wrong use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.evaluation.scripts import passkey, perfect
from unspool.backends import load
from unspool.backends.scripted import ScriptedModel, WordTokenizer
from unspool.cli import main as cli

RUN = ["evaluate", "run", "--tasks", "passkey/digits", "--lengths", "96,160", "--limit", "5"]


@pytest.fixture(autouse=True)
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedModel:
    monkeypatch.setenv("UNSPOOL_DATA", str(tmp_path / "cache"))
    made = perfect(passkey)
    monkeypatch.setattr(load, "load_model", lambda *_, **__: made)
    monkeypatch.setattr("unspool.evaluation.make.ruler", lambda name: WordTokenizer())
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


def test_a_run_prints_its_scores(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*RUN, "--out", str(folder)]) == 0
    out, err = capfd.readouterr()
    rows = [line.split() for line in out.splitlines()[:4]]
    assert rows[0] == ["task", "level", "n", "score", "95%", "official", "cut"]
    assert rows[1] == ["passkey/digits", "96", "5", "100.0", "56.6-100.0", "100", "0"]
    assert "Effective length of passkey/digits, in tokens: ruler 160, nolima 160" in out
    assert "10 answers, 0 missing, 0 prompts cut by 0 tokens" in out
    assert "The run is in" in err


def test_json_is_one_line(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*RUN, "--out", str(folder), "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out) == json.loads((folder / "report.json").read_bytes())
    assert out.count("\n") == 1
    assert err == ""


def test_a_dry_run_sends_and_leaves_nothing(
    folder: Path, model: ScriptedModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text("[scripted]\ninput = 1.0\noutput = 2.0\n")
    command = [*RUN, "--out", str(folder), "--dry-run", "--prices", str(prices)]
    assert cli.run(command) == 0
    out, err = capfd.readouterr()
    assert out.splitlines()[0].split()[-1] == "price"
    assert out.splitlines()[-1].split()[:2] == ["all", "10"]
    assert "Nothing was sent" in err
    assert model.prompts == []
    assert not folder.exists()
    assert cli.run([*command, "--json"]) == 0
    planned = json.loads(capfd.readouterr().out)
    assert planned["total"]["requests"] == 10
    assert planned["total"]["price"] > 0


def test_the_same_command_continues_and_resume_needs_a_run(
    folder: Path, model: ScriptedModel, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["evaluate", "run", "--resume", "--out", str(folder)]) == 2
    assert "There is no run in" in capfd.readouterr().err
    assert cli.run([*RUN, "--out", str(folder)]) == 0
    first = capfd.readouterr().out
    asked = len(model.prompts)
    assert cli.run([*RUN, "--out", str(folder)]) == 0
    assert cli.run(["evaluate", "run", "--resume", "--out", str(folder)]) == 0
    assert capfd.readouterr().out == first * 2
    assert len(model.prompts) == asked
    assert cli.run([*RUN, "--seed", "1", "--out", str(folder)]) == 2
    assert "settings.seed was 0 and is now 1" in capfd.readouterr().err


def test_a_second_run_is_answered_from_the_cache(
    tmp_path: Path, model: ScriptedModel, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        assert cli.run([*RUN, "--out", str(tmp_path / name)]) == 0
    assert len(model.prompts) == 10
    assert cli.run([*RUN, "--out", str(tmp_path / "c"), "--cache", "off"]) == 0
    assert len(model.prompts) == 20


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["evaluate", "run", "--out", "x"], "--tasks"),
        (["evaluate", "run", "--tasks", "pasky/digits", "--out", "x"], "passkey/digits"),
        (["evaluate", "run", "--tasks", "passkey", "--lengths", "8q", "--out", "x"], "8q"),
        (["evaluate", "run", "--tasks", "passkey", "--depths", "120", "--out", "x"], "0 to 100"),
        (["evaluate", "run", "--tasks", "passkey", "--limit", "0", "--out", "x"], "limit"),
        (["evaluate", "run", "--tasks", "passkey", "--prices", "no.toml", "--out", "x"], "no.toml"),
        (["evaluate", "run", "--tasks", "passkey", "--keep", "middle", "--out", "x"], "middle"),
        (["evaluate", "run", "--tasks", "passkey", "--data", "nowhere", "--out", "x"], "nowhere"),
        (["evaluate", "score"], "run folder"),
        (["evaluate", "score", "--predictions", "p.jsonl"], "--task"),
        (["evaluate", "score", "--task", "passkey/digits", "--predictions", "p.jsonl"], "p.jsonl"),
        (["evaluate", "score", "nowhere"], "nowhere"),
        (["evaluate", "report", "nowhere"], "nowhere"),
        (["evaluate", "report", "nowhere", "--heatmap", "length,colour"], "length,colour"),
        (["evaluate", "make", "--task", "passkey/digit", "--out", "x"], "passkey/digits"),
        (["evaluate", "export", "--tasks", "nothing", "--out", "x"], "nothing"),
        (["evaluate", "export", "--tasks", "passkey", "--out", "file"], "is a file"),
        (["view", "nowhere"], "nowhere"),
        (["view", "nowhere", "--samples", "0"], "samples"),
        (["evaluate", "report", "nowhere", "--rule", "half"], "half"),
    ],
)
def test_wrong_input_is_told_and_exits_2(
    command: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("text")
    assert cli.run(command) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert told in err
    assert "Traceback" not in err


def test_options_of_a_metric_are_used_and_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "lcc.jsonl"
    line = {
        "pred": "c)beb=== db=a  )a=ed",
        "answers": [")bfaaa(a d a(d==(dfd"],
        "all_classes": None,
    }
    file.write_text(json.dumps({**line, "length": 9}) + "\n")
    command = ["evaluate", "score", "--task", "longbench/lcc", "--predictions", str(file)]
    scores = []
    for options in ([], ["--metric", "ratio=difflib"], ["--metric", "ratio=levenshtein"]):
        assert cli.run([*command, *options]) == 0
        out = capfd.readouterr().out
        assert ("levenshtein" in out) == ("ratio=levenshtein" in options)
        scores.append(float(out.split("score ")[-1]))
    assert scores == [30.0, 30.0, 40.0]
    for wrong, said in (
        ("ratio=half", "difflib, levenshtein; got 'half'"),
        ("recursion_limit=-1", "a whole number, none; got '-1'"),
        ("colour=red", "no option 'colour'. It has ratio, recursion_limit, first_line"),
    ):
        assert cli.run([*command, "--metric", wrong]) == 2
        assert said in " ".join(capfd.readouterr().err.split())


def test_an_empty_file_of_predictions_is_an_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p").touch()
    command = ["evaluate", "score", "--task", "passkey/digits", "--predictions"]
    assert cli.run([*command, str(tmp_path / "p")]) == 2
    assert "empty" in capfd.readouterr().err


def test_reports_in_every_form(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cli.run([*RUN, "--out", str(folder)])
    capfd.readouterr()
    assert cli.run(["evaluate", "report", str(folder), "--rule", "threshold:50"]) == 0
    assert "| passkey/digits | threshold:50 | 160 |" in capfd.readouterr().out
    assert cli.run(["evaluate", "report", str(folder), "--format", "csv"]) == 0
    assert capfd.readouterr().out.startswith("model,task,level")
    page = tmp_path / "page.html"
    assert cli.run(["evaluate", "report", str(folder), "--format", "html", "--out", str(page)]) == 0
    assert page.read_bytes().startswith(b"<!doctype html>")
    assert cli.run(["view", str(folder), "--json", "--compare", str(folder)]) == 0
    told = json.loads(capfd.readouterr().out)
    assert Path(told["out"]) == folder / "report.html"
    assert told["bytes"] == (folder / "report.html").stat().st_size


def test_make_and_score_meet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data, said = tmp_path / "data.jsonl", tmp_path / "said.jsonl"
    make = ["evaluate", "make", "--task", "passkey/digits", "--length", "96", "--n", "4"]
    assert cli.run([*make, "--out", str(data)]) == 0
    assert "4 samples of passkey/digits (96, tokens counted by smollm2)" in capfd.readouterr().out
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    said.write_text(
        "".join(json.dumps({**row, "prediction": passkey(row["prompt"])}) + "\n" for row in rows)
    )
    score = ["evaluate", "score", "--task", "passkey/digits", "--predictions", str(said)]
    assert cli.run(score) == 0
    assert "4 predictions. passkey/digits by passkey@1: score 100" in capfd.readouterr().out
    assert cli.run([*score, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["overall"]["n"] == 4


def test_a_run_is_scored_again(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cli.run([*RUN, "--out", str(folder)])
    first = capfd.readouterr().out
    before = (folder / "report.json").read_bytes()
    assert cli.run(["evaluate", "score", str(folder)]) == 0
    assert capfd.readouterr().out == first
    assert (folder / "report.json").read_bytes() == before


def test_tasks_are_listed(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["list", "tasks", "--json"]) == 0
    names = [json.loads(line)["name"] for line in capfd.readouterr().out.splitlines()]
    assert {"passkey/choice", "passkey/digits"} <= set(names)


def test_templates_are_for_tasks_that_read_them(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([*RUN, "--out", str(folder), "--templates", "lm-eval"]) == 2
    assert "passkey/digits has this project's prompts only" in capfd.readouterr().err


def test_contamination_is_reported(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import unspool

    filler = "The meadow is wide. The river is slow. The hill is round. We walk along it. "
    (tmp_path / "corpus.txt").write_text(filler * 20)
    unspool.build_index([str(tmp_path / "corpus.txt")], str(tmp_path / "idx"))
    command = [*RUN, "--out", str(folder), "--contamination", str(tmp_path / "idx")]
    assert cli.run(command) == 0
    assert "0 of 10 samples overlap the index by 200 bytes or more" in capfd.readouterr().out
    (tmp_path / "corpus.txt").write_text((filler + "We come back. ") * 20)
    unspool.build_index([str(tmp_path / "corpus.txt")], str(tmp_path / "idx2"))
    report = ["evaluate", "report", str(folder), "--contamination", str(tmp_path / "idx2")]
    assert cli.run(report) == 0
    assert "## Contamination" in capfd.readouterr().out
