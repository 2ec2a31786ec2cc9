"""BooookScore: answers of judges, released files, planted errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unspool.backends.scripted import ScriptedModel
from unspool.errors import ConfigError, InputError
from unspool.evaluation.predictions import score_predictions
from unspool.evaluation.run import evaluate
from unspool.evaluation.spec import Sample
from unspool.evaluation.tasks.booookscore import (
    TASKS,
    plant,
    read_batch,
    read_one,
    score,
    score_annotations,
    sentences_of,
)

CLEAR = "Questions: no confusion\nTypes: no confusion"
SUMMARY = "Ann met Bob. He ran off. They sang. Ann met Bob."


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (CLEAR, (None, ())),
        ("Questions: Who?\nTypes: salience", ("Who?", ("salience",))),
        ("Questions: Who?\nTypes: Salience, Language", ("Who?", ("salience", "language"))),
        ("Well.\nQuestions: Who?\n\nTypes: salience\nbye", ("Who?", ("salience",))),
        ("Questions: Who?\nTypes: rudeness", None),
        ("Questions: no confusion\nTypes: salience", None),
        ("Types: salience\nQuestions: Who?", None),
        ("Questions: Who?", None),
        ("", None),
        ("Questions:Who?\nTypes:salience", None),
    ],
)
def test_one_answer(answer: str, expected: tuple[str | None, tuple[str, ...]] | None) -> None:
    assert read_one(answer) == (None if expected is None else [expected])


def test_batch_answers() -> None:
    rows = [{"questions": None, "types": None}, {"questions": "Who?", "types": ["salience"]}]
    text = f"Here: {json.dumps(rows)} done"
    assert read_batch(text, 2) == [(None, ()), ("Who?", ("salience",))]
    for broken in (text.replace("]", ""), "none", "[1, 2]", "[{}, {}]", json.dumps(rows[:1])):
        assert read_batch(broken, 2) is None


def test_equal_sentences_count_apart() -> None:
    answers = [CLEAR, "Questions: Who?\nTypes: entity omission", CLEAR]
    found = score(SUMMARY, ScriptedModel([*answers, "Questions: Again?\nTypes: duplication"]))
    assert found.score == 0.5
    assert found.types == {"entity omission": 1, "duplication": 1}
    assert [each.number for each in found.annotations if each.confusing] == [1, 3]


def test_a_judge_that_is_never_valid_leaves_sentences_unscored() -> None:
    found = score(SUMMARY, ScriptedModel(lambda prompt: "hm"), tries=2)
    assert (found.score, found.unscored) == (None, 4)
    with pytest.raises(ConfigError, match="version"):
        score(SUMMARY, ScriptedModel([]), version=3)
    with pytest.raises(InputError, match="no sentence"):
        score(" ", ScriptedModel([]))


@pytest.mark.parametrize("m", [0, 1, 7, 18])
def test_a_judge_that_knows_finds_what_was_planted(m: int) -> None:
    clean = [f"The {i}th keeper has a lamp and is at the tower." for i in range(19)]
    made = plant(clean, m, seed=m)
    assert len(made.errors) == m
    assert sum(a != b for a, b in zip(made.sentences, clean, strict=True)) == m
    assert made.score == 1 - m / 19
    assert plant(clean, m, seed=m) == made
    assert sentences_of("A b. C d.") == ["A b.", "C d."]
    with pytest.raises(ConfigError, match="at most 18"):
        plant(clean, 19)


@pytest.mark.parametrize("name", ["planted", "planted_choice"])
def test_perfect_answers_score_100(name: str, tmp_path: Path) -> None:
    answers: dict[str, str] = {}

    def known(prompt: str) -> str:
        if not answers:
            for line in (tmp_path / "samples.jsonl").read_text().splitlines():
                held = Sample.from_json(json.loads(line)["sample"])
                answers[held.parts.context + held.parts.query] = held.references[0]
        (found,) = [said for text, said in answers.items() if text in prompt]
        return found

    model = ScriptedModel(
        known, score=lambda prompt, token: 0.0 if token == known(prompt) else -9.0
    )
    report = evaluate(model, [TASKS[name]], out=tmp_path, lengths=["1k"], limit=8)
    assert report.score(f"booookscore/{name}") == 100.0


def test_released_shapes(tmp_path: Path) -> None:
    texts = {"a": SUMMARY, "b": SUMMARY, "c": SUMMARY, "d": SUMMARY}
    held = {
        "a": None,
        "b": [{"span": "x", "questions": "?", "types": ["salience"]}],
        "c": {"He ran off.": {"questions": "?", "types": ["salience"]}, "They sang.": {}},
        "d": {"singles": [1], "relations": [2, 3]},
    }
    assert [b.score for b in score_annotations(held, texts)] == [1.0, 0.75, 0.5, 0.25]
    folder = tmp_path / "annotations"
    folder.mkdir()
    (folder / "m-hier.json").write_text(json.dumps(held))
    with pytest.raises(InputError, match="m-hier-cleaned"):
        score_predictions(TASKS["annotations"], folder / "m-hier.json")
    (tmp_path / "summaries").mkdir()
    (tmp_path / "summaries" / "m-hier-cleaned.json").write_text(json.dumps(texts))
    found = score_predictions(TASKS["annotations"], folder / "m-hier.json")
    assert found["predictions"] == 4
    version_2 = {
        "a": {"x": {"questions": None, "types": None}, "y": {"questions": "?", "types": []}}
    }
    assert [b.score for b in score_annotations(version_2)] == [0.5]
    with pytest.raises(InputError, match="version 2"):
        score_annotations({"a": [1]})
