"""`unspool evaluate score --judge`: a model is asked, tested, kept, and misuse is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from unspool.backends import load
from unspool.backends.scripted import ScriptedModel
from unspool.cli import main as cli
from unspool.errors import ConfigError
from unspool.evaluation.tasks._prose import plain_sentences
from unspool.evaluation.tasks.booookscore import calibrate

CLEAR = "Questions: no confusion\nTypes: no confusion"
SUMMARY = "Ann met Bob. He ran off. They sang. All was well.\n"


def knows(prompt: str) -> str:
    """A judge that knows the plain sentences by heart, and what is wrong with the others."""
    summary, sentence = re.findall(r"(?:Summary|Sentence):\n(.*?)\n\n", prompt, re.DOTALL)
    pool = plain_sentences()
    pieces = [each for each in pool if each in summary]
    clean = sentence in pool and summary.count(sentence) == 1
    if clean and pieces:  # one moved from afar is no neighbour of the first
        first = min(pieces, key=summary.find)
        gap = (pool.index(sentence) - pool.index(first)) % len(pool)
        clean = gap < 6
    return CLEAR if clean else "Questions: What?\nTypes: discontinuity"


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedModel:
    monkeypatch.setenv("UNSPOOL_DATA", str(tmp_path / "cache"))
    made = ScriptedModel(
        lambda prompt: "Questions: Who?\nTypes: salience" if "\nHe ran off." in prompt else CLEAR
    )
    monkeypatch.setattr(load, "load_model", lambda *_, **__: made)
    return made


@pytest.fixture
def summary(tmp_path: Path) -> Path:
    path = tmp_path / "summary.txt"
    path.write_text(SUMMARY)
    return path


def run(*words: str) -> int:
    return cli.run(["evaluate", "score", *words])


def test_a_summary_is_judged_once_and_kept(
    judge: ScriptedModel, summary: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["--task", "booookscore", "--predictions", str(summary), "--judge", "any"]
    assert run(*command, "--calibrate", "4") == 0
    out, err = capfd.readouterr()
    assert "scripted@1 says right of 2 of 4 test sentences" in out  # it calls all of them clean
    assert "no better than a coin" in err
    assert re.search(r"summary +75\.0 +4 +1 +0 +salience 1", out)
    assert "[2] He ran off.\n    salience: Who?" in out
    asked = len(judge.prompts)
    assert asked == 4 + 4
    assert run(*command, "--calibrate", "4", "--json") == 0
    found = json.loads(capfd.readouterr().out)
    assert len(judge.prompts) == asked
    assert found["score"] == found["summaries"]["summary"]["score"] == 0.75
    assert found["calibration"]["right"] == 2
    assert run(*command, "--calibrate", "0", "--cache", "off") == 0
    assert len(judge.prompts) == asked + 4


def test_what_summarize_wrote_and_what_a_release_holds_are_judged(
    judge: ScriptedModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "summary.json").write_text(json.dumps({"summary": SUMMARY, "calls": 3}))
    books = tmp_path / "books.json"
    books.write_text(json.dumps({"one": SUMMARY, "two": "All is clear here."}))
    for path, score in ((tmp_path / "made", 0.75), (books, 0.875)):
        assert run("--task", "booookscore", "--predictions", str(path), "--judge", "any",
                   "--calibrate", "0", "--json") == 0  # fmt: skip
        assert json.loads(capfd.readouterr().out)["score"] == score


def test_a_dry_run_asks_nothing(
    judge: ScriptedModel, summary: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["--task", "booookscore", "--predictions", str(summary), "--judge", "any"]
    assert run(*command, "--dry-run") == 0
    assert "4 sentences: 16 calls, 12 of them to test the judge" in capfd.readouterr().out
    assert run(*command, "--dry-run", "--judge-version", "2", "--calibrate", "0", "--json") == 0
    assert json.loads(capfd.readouterr().out)["calls"] == 1
    assert judge.prompts == []


def test_answers_are_judged_beside_others(
    judge: ScriptedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    mine, other = tmp_path / "mine.pred.jsonl", tmp_path / "other.pred.jsonl"
    for path, word in ((mine, "good"), (other, "bad")):
        path.write_text("".join(
            json.dumps({"query": f"q{i}", "gt": "good", "m_pred": word, "evaluation": "LLM"}) + "\n"
            for i in range(3)
        ))  # fmt: skip
    better = ScriptedModel(
        lambda prompt: "[[A]]" if "[Answer of A]\ngood" in prompt else "So [[B]]."
    )
    monkeypatch.setattr(load, "load_model", lambda *_, **__: better)
    command = ["--task", "l-eval", "--predictions", str(mine), "--opponent", str(other)]
    assert run(*command, "--judge", "any", "--dry-run") == 0
    assert "3 pairs, 0 without partner, 6 calls" in capfd.readouterr().out
    assert run(*command, "--judge", "any") == 0
    assert re.search(r"3 +6 +0 +0 +0 +100\.0", capfd.readouterr().out)


def test_misuse_is_named(
    judge: ScriptedModel, summary: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"a": [1]}')
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n")
    file, judged = ["--predictions", str(summary)], ["--judge", "any"]
    for words, said in (
        ([*judged, *file], "--judge takes --task booookscore or l-eval, got no task"),
        ([*judged, *file, "--task", "passkey/digits"], "scored without a model"),
        ([*judged, "--task", "booookscore"], "Say what is to be judged"),
        ([*judged, "--task", "booookscore", "--predictions", "none.txt"], "There is no file"),
        ([*judged, "--task", "booookscore", "--predictions", str(broken)], "holds no summaries"),
        ([*judged, "--task", "booookscore", "--predictions", str(empty)], "is empty"),
        ([*judged, *file, "--task", "booookscore", "--judge-version", "3"], "is 1 or 2, got 3"),
        ([*judged, *file, "--task", "booookscore", "--calibrate", "1"], "at least 2 questions"),
        ([*judged, *file, "--task", "l-eval"], "--opponent FILE"),
        (
            [*judged, *file, "--task", "booookscore", "--opponent", str(summary)],
            "for --task l-eval",
        ),
        ([*judged, str(tmp_path)], "not a run folder"),
        ([*file, "--task", "booookscore/annotations", "--dry-run"], "name one with --judge"),
    ):
        assert run(*words) == 2, words
        assert said in " ".join(capfd.readouterr().err.split()), words
    assert judge.prompts == []


def test_a_judge_that_knows_passes_the_calibration_and_a_coin_does_not() -> None:
    sure = calibrate(ScriptedModel(knows), 20)
    assert sure.right >= 18  # a neighbour may come from afar by chance
    assert sure.fit
    assert not calibrate(ScriptedModel(lambda prompt: CLEAR), 20).fit
    mute = calibrate(ScriptedModel(lambda prompt: ""), 4)
    assert (mute.right, mute.unread) == (0, 4)
    with pytest.raises(ConfigError, match="at least 2 questions, got 1"):
        calibrate(ScriptedModel([]), 1)
