"""Contamination: the longest overlap against a brute-force search, and the score without it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import unspool
from tests.evaluation.scripts import passkey
from unspool.backends.scripted import ScriptedModel
from unspool.errors import ConfigError, PathNotFound
from unspool.evaluation.contamination import check_folder, overlap, read_marks
from unspool.evaluation.render import render
from unspool.evaluation.run import evaluate
from unspool.evaluation.spec import Parts, Sample, TaskSpec
from unspool.evaluation.tasks.base import Task
from unspool.evaluation.tasks.passkey import KeyFound

CORPUS = (
    "The archive of the lake is kept in nine volumes, and the ninth is the one that nobody reads. "
    "Ünïcode stands between: the depth was measured with a rope of 213 fathoms in May."
)
CLEAN = "Nothing of this was ever written down before today, so it cannot have been seen."


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed(Task):
    """Two samples from the corpus and two that are not."""

    def samples(self, *args: Any, **options: Any) -> Iterator[Sample]:
        texts = [CORPUS[5:100], "x" + CORPUS[60:160] + "y", CLEAN, CLEAN[::-1]]
        for number, text in enumerate(texts):
            yield Sample(id=str(number), parts=Parts(context=text), references=(str(100 + number),))


TASK = Mixed(spec=TaskSpec(name="test/mixed", ability="x", metric="passkey@1"), metric=KeyFound())


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("index")
    (folder / "corpus.txt").write_text(CORPUS, encoding="utf-8")
    unspool.build_index([str(folder / "corpus.txt")], str(folder / "idx"))
    return str(folder / "idx")


def brute(text: str) -> int:
    raw, corpus = text.encode(), CORPUS.encode()
    return max(
        (
            size
            for start in range(len(raw))
            for size in range(len(raw) - start, 0, -1)
            if raw[start : start + size] in corpus
        ),
        default=0,
    )


@pytest.mark.parametrize(
    "text", [CORPUS[5:100], "x" + CORPUS[60:160] + "y", CLEAN, "", "Ünï", CORPUS + CLEAN]
)
def test_the_longest_overlap_is_the_longest(index: str, text: str) -> None:
    found = overlap(unspool.open_index(index), [text], 30)
    assert found["longest"] == brute(text)
    assert found["contaminated"] is (brute(text) >= 30)
    assert len(found["text"].encode()) == found["longest"]
    assert found["text"] in CORPUS


def test_what_is_covered_counts_each_byte_once(index: str) -> None:
    text = CORPUS[:50] + CORPUS[:50] + "-----"
    found = overlap(unspool.open_index(index), [text], 40)
    assert found["covered"] == round(100 / 105, 6)
    assert overlap(unspool.open_index(index), [], 40)["covered"] == 0.0


def test_a_report_has_the_score_with_and_without(index: str, tmp_path: Path) -> None:
    # Right about what it has seen, wrong about the rest: what contamination looks like.
    model = ScriptedModel(
        lambda p: " 100" if CORPUS[5:50] in p else " 101" if CORPUS[60:99] in p else passkey(p)
    )
    evaluate(model, [TASK], out=tmp_path / "r")
    report = check_folder(tmp_path / "r", index, threshold=60)
    found = report.data["tasks"]["test/mixed"]
    mark = found["contamination"]
    assert found["overall"]["mean"] == 50
    assert (mark["samples"], mark["contaminated"], mark["threshold"]) == (4, 2, 60)
    assert (mark["clean"]["mean"], mark["dirty"]["mean"]) == (0, 100)
    assert mark["longest"] == len(CORPUS[60:160].encode())
    marks = read_marks(tmp_path / "r")["test/mixed"]
    assert [marks[f"all\t{i}"]["contaminated"] for i in range(4)] == [True, True, False, False]
    for form in ("md", "html"):
        page = render(report, form).decode()
        assert "2 of 4" in page
    assert json.loads((tmp_path / "r" / "report.json").read_bytes()) == report.data


def test_wrong_arguments(index: str, tmp_path: Path) -> None:
    with pytest.raises(PathNotFound):
        check_folder(tmp_path / "none", index)
    with pytest.raises(ConfigError, match="threshold"):
        check_folder(tmp_path, index, threshold=0)
