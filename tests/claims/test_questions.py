"""The question set: complete, consistent, and its gold passages occur in the texts."""

from __future__ import annotations

import math
import sys
from collections import Counter
from pathlib import Path

import pytest

from claims import _ask_texts, ask_quality
from claims._ask_texts import TEXTS, plain_page, prepare
from claims.data import data_dir

QUESTIONS = ask_quality.questions()


def test_the_set_is_large_enough_and_consistent() -> None:
    assert len(QUESTIONS) >= 60
    assert len({q["id"] for q in QUESTIONS}) == len({q["question"] for q in QUESTIONS}) == 78
    assert Counter(q["split"] for q in QUESTIONS) == {"dev": 27, "test": 51}
    assert set(Counter(q["text"] for q in QUESTIONS)) == set(TEXTS)
    for question in QUESTIONS:
        assert set(question) == {"id", "text", "split", "question", "answers", "gold"}
        assert question["answers"]
        # A question does not give its answer away.
        assert not ask_quality.contains(question["question"], question["answers"]), question["id"]


@pytest.mark.parametrize("text", TEXTS)
def test_every_gold_passage_occurs_in_its_text(text: str) -> None:
    if text == "python" and sys.version_info[:2] != (3, 11):
        pytest.skip("the questions quote the reference of Python 3.11")
    if text != "python" and not (data_dir() / f"ask-{text}").is_dir():
        pytest.skip("the text is fetched by `python -m claims ask_quality`, tests use no network")
    whole = [ask_quality.squeezed(p.read_text("utf-8")) for p in prepare(text).glob("*.txt")]
    for question in QUESTIONS:
        if question["text"] == text:
            gold = ask_quality.squeezed(question["gold"])
            assert any(gold in page for page in whole), question["id"]


@pytest.mark.parametrize(
    ("answer", "golds", "expected"),
    [
        ("It is 253 characters.", ["253"], True),
        ("It is 2530 characters.", ["253"], False),
        ("A  KeyError\nis raised", ["keyerror is raised"], True),
        ("class", ["ss"], False),
        ("It becomes “ss”.", ["ss"], True),
        ("Use -e.", ["-e"], True),
        ("", ["x"], False),
    ],
)
def test_an_answer_counts_if_it_holds_a_gold_string(
    answer: str, golds: list[str], expected: bool
) -> None:
    assert ask_quality.contains(answer, golds) is expected


@pytest.mark.parametrize(("hits", "total"), [(45, 60), (1, 7), (60, 60), (0, 3)])
def test_intervals_are_wilsons(hits: int, total: int) -> None:
    # Its ends are the rates whose normal approximation just reaches the rate that was seen.
    for end in ask_quality.wilson(hits, total):
        reach = 1.959964 * math.sqrt(max(end * (1 - end), 0) / total)
        assert abs(hits / total - end) == pytest.approx(reach, abs=1e-6)


def test_manual_pages_become_plain_text() -> None:
    source = "\n".join(
        [
            '.\\" a comment',
            '.TH fifo 7 2020 "Linux"',
            ".SH NAME",
            "fifo \\- first-in first-out",
            ".PP",
            "See \\fBopen\\fP(2) and",
            ".BR mkfifo (3),",
            '.IR tcp_abc " (default: 0)"',
            "64\\ kB",
        ]
    )
    assert plain_page(source) == (
        "fifo 7 2020 Linux\n\nNAME\n\nfifo - first-in first-out\n\n"
        "See open(2) and\nmkfifo(3),\ntcp_abc (default: 0)\n64 kB\n"
    )


def test_a_text_is_made_complete_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNSPOOL_DATA", str(tmp_path))

    def killed(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(_ask_texts, "_policy", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare("policy")
    assert list(data_dir().iterdir()) == []
