"""emrQA, on files written in its form: lines of evidence become answers, the rest is counted."""

import copy
import json

import pytest

from unspool.errors import ConfigError, InputError
from unspool.models.long_encoder.tasks import read_examples

LINES = [
    "HISTORY :\n",
    "He took  aspirin 81 mg daily ,\n",
    "and warfarin .\n",
    "He took aspirin 81 mg daily ,\n",
    "No pain .\n",
]


def _answer(text, line, evidence=None, kind="single", token=0):
    return {
        "answer_entity_type": kind,
        "answer_start": [line, token],
        "evidence": LINES[line - 1] if evidence is None else evidence,
        "evidence_start": line,
        "text": text,
    }


def _question(*answers, wordings=("What is the dose?", "How much?", "How much?")):
    return {"id": [[["q", "t"]], "form"], "question": list(wordings), "answers": list(answers)}


def _part(title, *questions, context=LINES, note="0015"):
    return {"title": title, "paragraphs": [
        {"note_id": note, "context": context, "qas": list(questions)}]}  # fmt: skip


def _write(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def _said(example):
    return [(answer.start, answer.text) for answer in example.answers]


NOTE = "".join(LINES)


def test_the_nearest_line_of_evidence_is_the_answer(tmp_path):
    question = _question(_answer("81 mg", 4), _answer("81 mg", 4), _answer("", 5, kind="empty"))
    path = _write(tmp_path / "data.json", {"data": [_part("medication", question)]})
    read = read_examples("qa", path)
    [example] = read.examples
    assert (example.id, example.text, example.second) == (
        "medication:0015:1",
        NOTE,
        "What is the dose?",
    )
    late = NOTE.index("He took aspirin")  # not the earlier line, which has one blank more
    assert _said(example) == [
        (late, "He took aspirin 81 mg daily ,"),
        (NOTE.index("No pain"), "No pain ."),
    ]
    assert [line.split(":")[0] for line in read.notes] == ["other wordings of questions, not read"]
    early = _question(_answer("81 mg", 2))
    path = _write(tmp_path / "medication-qa.json", _part("medication", early))
    [example] = read_examples("qa", path).examples
    assert _said(example) == [(NOTE.index("He took  aspirin"), "He took  aspirin 81 mg daily ,")]


def test_every_wording_is_a_record_if_asked_for(tmp_path):
    path = _write(tmp_path / "data.json", {"data": [_part("relations", _question(_answer("", 5)))]})
    read = read_examples("qa", path, paraphrases=True)
    assert [(e.id, e.second) for e in read.examples] == [
        ("relations:0015:1:1", "What is the dose?"),
        ("relations:0015:1:2", "How much?"),
    ]
    assert read.notes == ()


def test_one_part_may_be_asked_for(tmp_path):
    parts = [_part("medication", _question(_answer("x", 3))),
             _part("risk-dataset", _question(_answer("x", 5)), note="9")]  # fmt: skip
    path = _write(tmp_path / "data.json", {"data": parts})
    assert [e.id for e in read_examples("qa", path, part="risk").examples] == ["risk-dataset:9:1"]
    assert len(read_examples("qa", path).examples) == 2
    with pytest.raises(ConfigError, match=r"no part 'x'\. It has medication, risk-dataset"):
        read_examples("qa", path, part="x")
    with pytest.raises(ConfigError, match="part is for emrQA"):
        read_examples("ner", path, part="risk")
    squad = {"data": [{"paragraphs": [{"context": NOTE, "qas": []}]}]}
    with pytest.raises(ConfigError, match="not in the form of emrQA"):
        read_examples("qa", _write(tmp_path / "squad.json", squad), part="risk")


def test_risk_gives_characters_and_notes_may_have_lost_their_line_feeds(tmp_path):
    context = [line.rstrip("\n") for line in LINES]
    text = "\n".join(context)
    late = text.index("He took aspirin")
    answer = _answer("81 mg", 4, "He took aspirin 81 mg daily ,") | {"evidence_start": late}
    for given in (context, text):
        part = _part("risk-dataset", _question(answer), context=given)
        [example] = read_examples("qa", _write(tmp_path / "data.json", {"data": [part]})).examples
        assert example.text == text
        assert _said(example) == [(late, "He took aspirin 81 mg daily ,")]


def test_what_is_left_out_is_counted(tmp_path):
    whole = {"data": [_part(
        "medication",
        _question(_answer(["aspirin", "81"], 2, [LINES[1], LINES[1]], "complex"), _answer("x", 3)),
        _question(_answer("yes", 5, "")),
        _question(_answer("x", 3, "gone from the note")),
        _question(_answer("x", 3, "word " * 20)),
        _question(_answer("x", 2, "He took  aspirin 81 mg daily ,\n,and warfarin .\n")),
        _question(_answer("x", 3), wordings=[" "]),
    )]}  # fmt: skip
    read = read_examples("qa", _write(tmp_path / "data.json", whole))
    assert [_said(e) for e in read.examples] == [
        [(NOTE.index("and warfarin"), "and warfarin .")],
        [(NOTE.index("He took  "), "He took  aspirin 81 mg daily ,\nand warfarin .")],
    ]
    assert {line.split(": ")[0]: line.split(": ")[1].split(",")[0] for line in read.notes} == {
        "answers of several pieces, left out": "1",
        "answers without evidence (classes of notes), left out": "1",
        "lines of evidence that are not in the note, left out": "1",
        "lines of evidence of 20 words or more, left out": "1",
        "questions without an answer that is left, left out": "3",
        "questions without words, left out": "1",
        "other wordings of questions, not read": "2",
    }
    smoking = _part("smoking", _question({"answer_start": "", "text": "SMOKER", "evidence": "",
                                          "evidence_start": ""}))  # fmt: skip
    with pytest.raises(InputError, match=r"holds no records.*without evidence"):
        read_examples("qa", _write(tmp_path / "smoking.json", smoking))


def test_damage_is_named_by_its_note(tmp_path):
    whole = {"data": [_part("medication", _question(_answer("x", 3)))]}
    for change, message in (
        (lambda note: note.pop("context"), "note 0015 is not in the form of emrQA: 'context'"),
        (lambda note: note.update(context=[1]), "context must be a text or a list of lines"),
        (lambda note: note.update(context=[]), "note 0015: the note is empty"),
        (lambda note: note["qas"][0].pop("answers"), "not in the form of emrQA: 'answers'"),
    ):
        broken = copy.deepcopy(whole)
        change(broken["data"][0]["paragraphs"][0])
        with pytest.raises(InputError, match=message):
            read_examples("qa", _write(tmp_path / "data.json", broken))
