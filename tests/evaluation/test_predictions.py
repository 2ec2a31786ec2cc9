"""Scoring files without a model, and making them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from unspool.errors import ConfigError, InputError, PathNotFound, Unsupported
from unspool.evaluation.make import make
from unspool.evaluation.plan import RunSettings
from unspool.evaluation.predictions import score_predictions
from unspool.evaluation.spec import Parts, Prediction, Response, Sample
from unspool.evaluation.tasks import task
from unspool.evaluation.tasks.base import Task

WORDS = RunSettings(lengths=("96",), limit=10, seed=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Released(Task):
    """Reads the lines of an imagined release: answer, tab, prediction."""

    def read_predictions(self, path: Path) -> Iterator[Prediction]:
        for number, line in enumerate(path.read_text().splitlines()):
            gold, said = line.split("\t")
            sample = Sample(id=str(number), parts=Parts(), references=(gold,))
            yield Prediction(sample, Response(text=said))


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from unspool.backends.scripted import WordTokenizer

    monkeypatch.setattr("unspool.evaluation.make.ruler", lambda name: WordTokenizer())
    out = tmp_path / "data.jsonl"
    done = make(task("passkey/digits"), out, WORDS, tokenizer="words")
    assert done == {
        "task": "passkey/digits", "samples": 10, "levels": ["96"], "bytes": out.stat().st_size,
    }  # fmt: skip
    return out


def predict(path: Path, right: int) -> Path:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for number, row in enumerate(rows):
        row["prediction"] = row["sample"]["references"][0] if number < right else "no idea"
    out = path.with_name("predictions.jsonl")
    out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return out


def test_made_samples_hold_their_prompts(made: Path) -> None:
    rows = [json.loads(line) for line in made.read_text().splitlines()]
    assert all(row["sample"]["references"][0] in row["prompt"] for row in rows)
    assert all(row["prompt"].endswith("The pass key is") for row in rows)
    assert all(60 < len(row["prompt"].split()) <= 96 for row in rows)


def test_the_same_seed_gives_the_same_bytes(made: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    make(task("passkey/digits"), again, WORDS, tokenizer="words")
    assert again.read_bytes() == made.read_bytes()
    make(
        task("passkey/digits"), other, RunSettings(lengths=("96",), limit=10, seed=4),
        tokenizer="words",
    )  # fmt: skip
    assert other.read_bytes() != made.read_bytes()


@pytest.mark.parametrize("right", [0, 3, 10])
def test_own_files_are_scored(made: Path, right: int) -> None:
    found = score_predictions(task("passkey/digits"), predict(made, right))
    assert found["predictions"] == 10
    assert found["overall"]["mean"] == 10 * right
    assert found["overall"]["metric"]["score"] == 10 * right
    assert found["levels"]["96"]["length"] == 96


def test_files_of_a_release_are_read_by_the_task(tmp_path: Path) -> None:
    base = task("passkey/digits")
    released = Released(spec=base.spec, metric=base.metric)
    path = tmp_path / "pred.txt"
    path.write_text("12\t12\n34\t 34.\n56\tno\n")
    found = score_predictions(released, path)
    assert found["overall"]["mean"] == pytest.approx(200 / 3)
    with pytest.raises(Unsupported, match="no prediction files"):
        score_predictions(base, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.pop("prediction"), "Line 1"),
        (lambda row: row.update(prediction=5), "prediction is int"),
        (lambda row: row["sample"].pop("id"), "Line 1"),
        (lambda row: row["sample"].update(colour=1), "colour"),
    ],
)
def test_a_wrong_line_is_named(made: Path, change: object, message: str) -> None:
    path = predict(made, 1)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows[0])  # type: ignore[operator] # a function of the row
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=message):
        score_predictions(task("passkey/digits"), path)


def test_a_sample_is_predicted_once(made: Path) -> None:
    path = predict(made, 1)
    path.write_text(path.read_text() * 2)
    with pytest.raises(InputError, match=r"Line 11 .* second time"):
        score_predictions(task("passkey/digits"), path)


def test_missing_and_empty_files(tmp_path: Path) -> None:
    base = task("passkey/digits")
    with pytest.raises(PathNotFound):
        score_predictions(base, tmp_path / "nothing")
    (tmp_path / "empty").touch()
    with pytest.raises(InputError, match="empty"):
        score_predictions(base, tmp_path / "empty")
    released = Released(spec=base.spec, metric=base.metric)
    (tmp_path / "blank").write_text("\n" * 0 + " ")
    with pytest.raises((InputError, ValueError)):
        score_predictions(released, tmp_path / "blank")


def test_lengths_in_tokens_need_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--tokenizer"):
        make(task("passkey/digits"), tmp_path / "x", WORDS)
    assert not (tmp_path / "x").exists()
