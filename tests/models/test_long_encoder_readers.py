"""Readers of labelled records: layouts agree with each other, and faults name their place."""

import json

import pytest

from unspool.errors import InputError, PathNotFound
from unspool.models.long_encoder.tasks import Answer, read_examples

NOTE = "Took aspirin .\n\nDenies pain ."
CONLL = "-DOCSTART- -X- O\n\nTook VB O\naspirin NN B-drug\n. . O\n\nDenies VB O\npain NN B-sign\n"


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _entities(example):
    return [
        (example.text[a:b], tag)
        for (a, b), tag in zip(example.words, example.labels, strict=True)
        if tag != "O"
    ]


def test_a_document_of_conll_is_one_record(tmp_path):
    path = _write(tmp_path / "notes.conll", CONLL + "-DOCSTART- -X- O\n\nWell JJ O\n")
    found = read_examples("ner", path).examples
    assert [e.text for e in found] == ["Took aspirin . Denies pain", "Well"]
    assert _entities(found[0]) == [("aspirin", "B-drug"), ("pain", "B-sign")]
    apart = read_examples("ner", path, sentences=True).examples
    assert [e.text for e in apart] == ["Took aspirin .", "Denies pain", "Well"]
    assert [e.id for e in apart] == ["notes:0", "notes:1", "notes:2"]
    assert read_examples("ner", tmp_path).examples == found
    _write(path, CONLL + "three columns too many O x\n")
    with pytest.raises(InputError, match="line 9: 6 columns, and 3 before"):
        read_examples("ner", path)


def test_layouts_of_tags_agree(tmp_path):
    wanted = [("aspirin", "B-drug"), ("pain", "B-sign")]
    row = {"id": 7, "text": NOTE, "entities": [{"start": 5, "end": 12, "label": "drug"}]}
    row["entities"].append({"start": 23, "end": 27, "label": "sign"})
    path = _write(tmp_path / "a.jsonl", json.dumps(row) + "\n\n")
    found = read_examples("ner", path).examples
    assert found[0].id == "7"
    assert _entities(found[0]) == wanted
    words = {"words": NOTE.split(), "tags": ["O", "B-drug", "O", "O", "B-sign", "O"]}
    path = _write(tmp_path / "b.json", json.dumps([words]))
    assert _entities(read_examples("ner", path).examples[0]) == wanted
    _write(tmp_path / "i2b2/txt/r1.txt", NOTE)
    concepts = 'c="aspirin" 1:1 1:1||t="drug"\nc="denies pain" 3:0 3:1||t="sign"\n'
    _write(tmp_path / "i2b2/concept/r1.con", concepts)
    found = read_examples("ner", tmp_path / "i2b2").examples
    assert _entities(found[0]) == [
        ("aspirin", "B-drug"),
        ("Denies", "B-sign"),
        ("pain", "I-sign"),
    ]
    _write(tmp_path / "i2b2/concept/r1.con", 'c="x" 9:0 9:0||t="drug"\n')
    with pytest.raises(InputError, match=r"r1\.con, line 1: r1\.txt has no such word"):
        read_examples("ner", tmp_path / "i2b2")


def test_answers_of_squad_and_of_lines(tmp_path):
    asked = [
        {"id": "q1", "question": "What?", "answers": [{"text": "aspirin", "answer_start": 5}]},
        {"id": "q2", "question": "Who?", "answers": [], "is_impossible": True},
    ]
    whole = {"data": [{"paragraphs": [{"context": NOTE, "qas": asked}]}]}
    found = read_examples("qa", _write(tmp_path / "a.json", json.dumps(whole))).examples
    assert found[0].answers == (Answer(5, "aspirin"),)
    assert found[1].answers == ()
    line = {"id": "q1", "context": NOTE, "question": "What?"}
    line["answers"] = {"text": ["aspirin"], "answer_start": [5]}
    path = _write(tmp_path / "b.jsonl", json.dumps(line))
    assert read_examples("qa", path).examples == found[:1]
    line["answers"]["answer_start"] = [6]
    with pytest.raises(InputError, match=r"b\.jsonl, line 1: .*'aspirin' is said to begin"):
        read_examples("qa", _write(path, json.dumps(line)))
    del whole["data"][0]["paragraphs"][0]["context"]
    with pytest.raises(InputError, match="not in the form of SQuAD"):
        read_examples("qa", _write(tmp_path / "a.json", json.dumps(whole)))


def test_classes_and_pairs(tmp_path):
    table = _write(
        tmp_path / "a.csv", 'text,label\n"two\nlines, one comma",yes\nplain\u2028text,no\n'
    )
    found = read_examples("classify", table).examples
    assert [(e.text, e.labels) for e in found] == [
        ("two\nlines, one comma", ("yes",)),
        ("plain\u2028text", ("no",)),
    ]
    many = _write(tmp_path / "b.tsv", "text\tedema\tmass\nfirst\t1\t0\nsecond\t0\t0\n")
    found = read_examples("classify", many, label_fields=("edema", "mass")).examples
    assert [e.labels for e in found] == [("edema",), ()]
    with pytest.raises(InputError, match="line 2: column 'fever' must hold 0 or 1"):
        read_examples("classify", many, label_fields=("fever",))
    pairs = [
        {"sentence1": "a", "sentence2": "b", "gold_label": "entailment", "pairID": "p"},
        {"sentence1": "a", "sentence2": "b", "gold_label": "-"},
    ]
    path = _write(tmp_path / "c.jsonl", "\n".join(map(json.dumps, pairs)))
    read = read_examples("nli", path)
    assert read.skipped == 1
    assert [(e.id, e.text, e.second, e.labels) for e in read.examples] == [
        ("p", "a", "b", ("entailment",))
    ]


@pytest.mark.parametrize(
    ("task", "name", "text", "message"),
    [
        ("qa", "a.jsonl", "{", "line 1 is not JSON"),
        ("qa", "a.jsonl", "[]", "line 1 is not an object"),
        ("classify", "a.jsonl", '{"body": "a"}', "line 1: no field text or .*there are body"),
        ("classify", "a.jsonl", '{"text": 3}', "text must be a text, got int"),
        ("classify", "a.csv", "text,label\na,b,c\n", "line 2: not as many cells"),
        ("classify", "a.csv", "text,label\n", "holds no records"),
        ("classify", "a.xml", "x", "classify reads .jsonl"),
        ("classify", "a.txt", " ", "is empty"),
        ("classify", "a.jsonl", "", "holds no records"),
        ("ner", "a.pdf", "x", "ner reads .conll.*xml"),
        ("qa", "a.json", "{", "a.json is not JSON"),
        ("ner", "a.jsonl", '{"words": ["a"], "tags": [1]}', "tags must be a list of names"),
        ("nli", "a.jsonl", '{"premise": "a", "hypothesis": " "}', "hypothesis is empty"),
        ("nli", "a.jsonl", '{"premise": "a", "hypothesis": "b", "label": [1, 2]}', "one label"),
        ("qa", "a.json", '{"x": 1}', "neither a list of records"),
    ],
)
def test_faults_name_their_place(task, name, text, message, tmp_path):
    with pytest.raises(InputError, match=message):
        read_examples(task, _write(tmp_path / name, text))


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(PathNotFound, match="no file or folder"):
        read_examples("qa", tmp_path / "none.json")
    (tmp_path / "x").mkdir()
    with pytest.raises(InputError, match=r"holds neither \.conll"):
        read_examples("ner", tmp_path / "x")
    with pytest.raises(InputError, match="is a folder"):
        read_examples("qa", tmp_path / "x")
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "\xe9"}')
    with pytest.raises(InputError, match="is not UTF-8"):
        read_examples("classify", tmp_path / "latin.jsonl")


def test_plain_text_is_a_record_without_labels(tmp_path):
    path = _write(tmp_path / "note.txt", NOTE)
    found = read_examples("ner", path).examples[0]
    assert found.labels is None
    assert [NOTE[a:b] for a, b in found.words] == NOTE.split()


def test_a_text_file_is_read_as_it_stands(tmp_path):
    (tmp_path / "note.txt").write_bytes("\ufeffTook\r\naspirin".encode())
    found = read_examples("ner", tmp_path / "note.txt").examples[0]
    assert found.text == "\ufeffTook\r\naspirin"  # so that offsets hold in the file


def test_tables_of_openi_and_objects_a_line_in_a_json_file(tmp_path):
    table = ",Edema,Pleural Effusion,TXT\n222713,0.0,1.0,Small effusion.\n7,0.0,0.0,Clear.\n"
    path = _write(tmp_path / "openi.csv", table)
    found = read_examples("classify", path, label_fields=("Edema", "Pleural Effusion")).examples
    assert [(e.id, e.text, e.labels) for e in found] == [
        ("222713", "Small effusion.", ("Pleural Effusion",)),
        ("7", "Clear.", ()),
    ]
    rows = [{"tokens": ["a", "b"], "ner_tags": ["O", "B-x"]}] * 2
    path = _write(tmp_path / "train.json", "\n".join(map(json.dumps, rows)) + "\n")
    found = read_examples("ner", path).examples
    assert [(e.id, e.labels) for e in found] == [("line 1", ("O", "B-x")), ("line 2", ("O", "B-x"))]
