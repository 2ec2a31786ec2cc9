"""Long in-context learning: selection, demonstrations, post-processing, metrics, released files."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unspool.errors import ConfigError, InputError, MissingData
from unspool.evaluation.spec import LengthLevel, Response, Sample, Source
from unspool.evaluation.tasks import find_tasks, long_icl
from unspool.evaluation.tasks.long_icl.facts import (
    DATASETS,
    DIALOGRE_RELATIONS,
    TACRED_RELATIONS,
)
from unspool.evaluation.tasks.long_icl.score import CUES, Counts, up_to

# --- selection


def test_rounds_borrow_as_the_release_does() -> None:
    #          0    1    2    3    4    5    6
    labels = ["b", "a", "b", "c", "c", "c", "b"]
    # Order of first appearance is b, a, c. Round 2: a has run out and borrows from c, which then
    # still has one of its own. Round 3: a borrows none, since c has none left.
    found = long_icl.by_rounds(labels, 3)
    assert found.items == [0, 1, 3, 2, 4, 5, 6]
    assert found.short == {"a": 2, "c": 1}
    assert long_icl.by_rounds(labels, 1).items == [0, 1, 3]
    assert long_icl.by_rounds([], 2).items == []
    with pytest.raises(ConfigError, match="rounds must be >= 1"):
        long_icl.by_rounds(labels, 0)


def released_rounds(labels: list[str], rounds: int) -> list[int]:
    """The round-robin by its description, on queues."""
    queues: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        queues.setdefault(label, []).append(place)
    names = list(queues)
    out = []
    for _ in range(rounds):
        for i, name in enumerate(names):
            takers = [name] if queues[name] else [n for n in names[i + 1 :] if queues[n]][:1]
            out += [queues[n].pop(0) for n in takers]
    return out


@given(st.lists(st.sampled_from("abcde"), max_size=30), st.integers(1, 6))
@settings(max_examples=200, deadline=None)
def test_rounds_against_queues(labels: list[str], rounds: int) -> None:
    found = long_icl.by_rounds(labels, rounds)
    assert found.items == released_rounds(labels, rounds)
    assert len(set(found.items)) == len(found.items)
    if labels and min(Counter(labels).values()) >= rounds:
        assert Counter(labels[i] for i in found.items) == dict.fromkeys(set(labels), rounds)
        assert not found.short


def test_scans_take_one_of_each_relation_a_round() -> None:
    labels = ["x", "a", "a", "b", "b", "a", "b", "a"]
    found = long_icl.by_scan(labels, 2, {"a", "b"})
    assert found.items == [1, 3, 4, 5]
    assert not found.short
    short = long_icl.by_scan(labels, 5, {"a", "b"})
    assert short.items == [1, 3, 4, 5, 6, 7]
    assert long_icl.by_scan(labels, 1, {"a", "z"}).short == {"z": 1}
    assert long_icl.at_most_each(labels, 2, {"a", "b"}) == [1, 2, 3, 4]
    with pytest.raises(ConfigError):
        long_icl.by_scan(labels, 0, {"a"})


def relation(name: str, one: str = "A", other: str = "B") -> dict[str, str]:
    return {"relation": name, "subject_entity": one, "object_entity": other}


def test_dialogues_are_merged_and_cut_at_the_wanted_number_of_labels() -> None:
    rows = [{"dialogue": d, **relation(r)} for d, r in (("x", "1"), ("y", "2"), ("x", "3"))]
    merged = long_icl.merge_dialogues(rows)
    assert merged == [
        {"dialogue": "x", "relations": [relation("1"), relation("3")]},
        {"dialogue": "y", "relations": [relation("2")]},
    ]
    assert long_icl.first_labels(merged, 1) == [{"dialogue": "x", "relations": [relation("1")]}]
    assert long_icl.first_labels(merged, 9) == merged


# --- demonstrations

TEXTS = [f"text {i}" for i in range(20)]
LABELS = [f"L{i % 4}" for i in range(20)]


def test_every_label_is_shown_once_a_round_in_the_same_order() -> None:
    for rounds in (1, 3, 5):
        made = long_icl.build(TEXTS, LABELS, rounds=rounds)
        assert made.labels == ("L0", "L1", "L2", "L3") * rounds
        assert made.text.count("label: L2\n") == rounds
        assert made.positions["L1"] == [2 + 4 * r for r in range(rounds)]
        assert made.by_last_place == ("L0", "L1", "L2", "L3")
        assert not made.short


def test_orders_hold_the_same_items() -> None:
    rounds, grouped, shuffled = (
        long_icl.build(TEXTS, LABELS, rounds=3, order=order, seed=1)
        for order in ("rounds", "grouped", "shuffled")
    )
    assert set(rounds.items) == set(grouped.items) == set(shuffled.items)
    assert grouped.labels == tuple(f"L{i}" for i in range(4) for _ in range(3))
    assert shuffled.labels != rounds.labels
    assert shuffled == long_icl.build(TEXTS, LABELS, rounds=3, order="shuffled", seed=1)


def test_a_budget_takes_as_many_items_as_fit_and_counts_the_rest() -> None:
    made = long_icl.build(TEXTS, LABELS, tokens=300)
    assert len(made.text) <= 300
    assert made.left_out == 20 - len(made.items)
    more = long_icl.build(TEXTS, LABELS, tokens=300 + len("input: text 19\nlabel: L3\n"))
    assert len(more.items) > len(made.items)
    assert long_icl.build(TEXTS, LABELS, tokens=10**6).left_out == 0


def test_labels_may_be_listed_and_short_ones_are_counted() -> None:
    made = long_icl.build(TEXTS, LABELS, rounds=1, instruct=True)
    assert "L0, L1, L2, L3" in made.text
    short = long_icl.build(["a", "b", "c"], ["x", "y", "x"], rounds=2)
    assert short.short == {"y": 1}


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({}, ConfigError, "rounds or tokens"),
        ({"rounds": 1, "tokens": 5}, ConfigError, "rounds or tokens"),
        ({"rounds": 1, "order": "random"}, ConfigError, "grouped"),
        ({"tokens": 20}, InputError, "budget is 20"),
    ],
)
def test_demonstrations_that_cannot_be_made(
    arguments: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        long_icl.build(TEXTS, LABELS, **arguments)


def test_labels_that_are_equal_in_lower_case_are_refused() -> None:
    with pytest.raises(InputError, match="'Go' and 'go'"):
        long_icl.build(["a", "b"], ["Go", "go"], rounds=1)
    with pytest.raises(InputError, match="give one each"):
        long_icl.build(["a", "b"], ["x"], rounds=1)
    with pytest.raises(InputError, match="give one each"):
        long_icl.build([], [], rounds=1)


# --- post-processing

LABEL_REPLIES = [  # data set, reply, test input, what it says
    ("banking77", "card_arrival", "Where?", "card_arrival"),
    ("banking77", " Card_Arrival \n", "Where?", "card_arrival"),
    ("banking77", "card_arrival\nservice query: x\nintent category: y", "Where?", "card_arrival"),
    ("banking77", "card_arrival service query", "Where?", "card_arrival"),
    ("banking77", "a Where?\nintent category: b\nservice query: c", "Where?", "b"),
    ("banking77", "Where? Where?\nintent category: b", "Where?", "b"),
    ("banking77", "Where?\nb\nc", "Where?", "b"),
    ("banking77", "Where? b service query c", "Where?", "b service query c"),
    ("banking77", "Where?\nintent category: b intent category: c", "Where?", "b"),
    ("banking77", "Where?", "Where?", ""),
    ("banking77", "\n\nb\n", "Where?", "b"),
    ("banking77", "", "Where?", ""),
    ("banking77", "reverted_card_payment?", "Where?", "reverted_card_payment?"),
    ("banking77", "intent category: b", "Where?", "intent category: b"),
    ("goemotion", "joy\ncomment: x", "So!", "joy"),
    ("goemotion", "joy comment: x", "So!", "joy"),
    ("goemotion", "joy comment:x", "So!", "joy comment:x"),
    ("goemotion", "So!\nemotion category: Joy\ncomment: y", "So!", "joy"),
    ("goemotion", "So! emotion category: joy comment: y", "So!", "joy"),
    ("tacred", "per:title", "S.", "per:title"),
    ("tacred", "Per:Title", "S.", "Per:Title"),
    ("tacred", "per:title\nsentence: x", "S.", "per:title"),
    ("tacred", "S. the relation between the two entities is: per:age sentence: x", "S.", "per:age"),
    ("tacred", " per:title ", "S.", "per:title"),
    ("discovery", "However,", "Yes.", "however"),
    ("discovery", "\u201chowever,\u201d", "Yes.", "however"),
    ("discovery", "as_a_result, and", "Yes.", "as_a_result and"),
    ("discovery", "however' ", "Yes.", "however'"),
    (
        "discovery",
        "Yes.\nthe most suitable conjunction word in the previous ( ) is  Then,\nNo.",
        "Yes.",
        "then",
    ),
    ("discovery", "Yes.\nthen,", "Yes.", "then"),
    ("discovery", "[no-conn]", "Yes.", "[no-conn]"),
    ("discovery", '"', "Yes.", ""),
]


@pytest.mark.parametrize(("name", "reply", "echoed", "said"), LABEL_REPLIES)
def test_labels_are_read_as_released(name: str, reply: str, echoed: str, said: str) -> None:
    assert long_icl.said_label(name, reply, echoed) == said


def released_label(name: str, reply: str, echoed: str) -> str:
    """The rule by its description, with regular expressions in place of splits."""
    cue, following = CUES[name]
    text = reply
    cut = True
    if echoed in reply:
        text = reply[reply.rindex(echoed) + len(echoed) :].strip()
        match = re.search(re.escape(cue) + "(.*?)(?=" + re.escape(cue) + "|$)", text, re.DOTALL)
        cut = match is not None
        text = match[1] if match else text
    if cut and following:
        text = text[: text.index(following)] if following in text else text
    line = (text.strip() + "\n")[: (text.strip() + "\n").index("\n")]
    if name == "tacred":
        return line.strip()
    if name == "discovery":
        line = "".join(c for c in line.strip() if c not in '\u201c\u201d,."')
    return line.lower().strip()


@given(
    st.sampled_from(sorted(CUES)),
    st.lists(
        st.sampled_from(
            ["Ask", "lab_el", "Joy,", "\n", " ", "comment: ", "service query", "sentence:", ".",
             *(cue.label for cue in CUES.values())]
        ),
        max_size=9,
    ).map("".join),
)  # fmt: skip
@settings(max_examples=400, deadline=None)
def test_labels_against_a_plain_reader(name: str, reply: str) -> None:
    assert long_icl.said_label(name, reply, "Ask") == released_label(name, reply, "Ask")


CUE2 = "The 2 respective relations between each entity pair are:"
RELATION_REPLIES = [  # reply, dialogue, what it says
    ("per:title, per:age", "Hi.", "per:title, per:age"),
    (f"Hi. {CUE2} per:title, per:age\nDialogue: x", "Hi.", "per:title, per:age"),
    (f"x {CUE2} a {CUE2} b", "Hi.", "b"),
    ("per:title\nper:age", "Hi.", "per:title"),
    ("per:title Dialogue: x", "Hi.", "per:title"),
    ("per:title dialogue x", "Hi.", "per:title"),
    ("per:title [/INST] per:age", "Hi.", "per:title"),
    ("The 3 respective relations between each entity pair are: x", "Hi.",
     "The 3 respective relations between each entity pair are: x"),
    ("", "Hi.", ""),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "dialogue", "said"), RELATION_REPLIES)
def test_relations_are_read_as_released(reply: str, dialogue: str, said: str) -> None:
    assert long_icl.said_relations(reply, dialogue, 2) == said


RELATION_COUNTS = [  # said, gold, predicted, correct, wanted
    ("per:title", "per:title", 1, 1, 1),
    ("per:title, per:age", "per:title, per:age", 2, 2, 2),
    ("per:age, per:title", "per:title, per:age", 2, 0, 2),
    ("per:age", "per:title, per:age", 1, 0, 2),
    ("per:title, per:age, per:boss", "per:title, per:age", 3, 2, 2),
    ("x, per:title", "per:title", 1, 0, 1),
    ("very per:title indeed", "per:title", 1, 1, 1),
    ("per:titles", "per:title", 1, 1, 1),
    ("title", "per:title", 0, 0, 1),
    ("", "per:title", 0, 0, 1),
    ("PER:TITLE", "per:title", 0, 0, 1),
    ("per:title,per:age", "per:title, per:age", 2, 2, 2),
    ("unanswerable", "unanswerable", 0, 1, 1),
    ("per:title per:age", "per:title, per:age", 1, 1, 2),
    (",,per:title", "per:age, per:age, per:title", 1, 1, 3),
]


@pytest.mark.parametrize(("said", "gold", "predicted", "correct", "wanted"), RELATION_COUNTS)
def test_relations_are_counted_as_released(
    said: str, gold: str, predicted: int, correct: int, wanted: int
) -> None:
    assert long_icl.relation_counts(said, gold) == (predicted, correct, wanted)


ENTITY_REPLIES: list[tuple[str, str, dict[str, str]]] = [  # reply, sentence, what it lists
    ("Ann: person", "S.", {"Ann": "person"}),
    ("Ann: person\nRome: place", "S.", {"Ann": "person", "Rome": "place"}),
    ("Ann: person\n\nRome: place", "S.", {"Ann": "person"}),
    ("Ann: person\nSentence: x\nRome: place", "S.", {"Ann": "person"}),
    ("Ann: person\nsentence\nRome: place", "S.", {"Ann": "person"}),
    ("x\nAnn: person", "S.", {}),
    ("Ann:person", "S.", {}),
    ("Ann: a: b", "S.", {"Ann": "a"}),
    ("Ann: x\nAnn: y", "S.", {"Ann": "y"}),
    ("A: 1\nS.\nAnn: person", "S.", {"Ann": "person"}),
    ("", "S.", {}),
    (": type", "S.", {}),
    ("Ann: ", "S.", {}),
]


@pytest.mark.parametrize(("reply", "sentence", "said"), ENTITY_REPLIES)
def test_entities_are_read_as_released(reply: str, sentence: str, said: dict[str, str]) -> None:
    if reply == ": type":
        said = {"": "type"}
    found = long_icl.said_entities(reply, sentence)
    assert found == said


def test_entities_are_counted_as_released() -> None:
    gold = {"Ann": "person", "Rome": "place"}
    assert long_icl.entity_counts({"Ann": "person", "Rome": "city", "X": "y"}, gold) == (3, 1, 2)
    assert long_icl.entity_counts({}, gold) == (0, 0, 2)
    assert long_icl.entity_counts({"Ann": "person"}, {}) == (1, 0, 0)


# --- figures of a run


def test_micro_f1_against_its_definition_and_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    draw = random.Random(0)
    gold = [draw.choice("abc") for _ in range(200)]
    said = [g if draw.random() < 0.6 else draw.choice("abcx") for g in gold]
    counts = [Counts(int(s in "abc"), int(s == g), 1) for s, g in zip(said, gold, strict=True)]
    expected = metrics.f1_score(gold, said, labels=list("abc"), average="micro")
    assert long_icl.micro(counts)["f1"] == pytest.approx(expected, abs=1e-7)


def test_micro_f1_by_hand() -> None:
    found = long_icl.micro([Counts(2, 1, 2), Counts(1, 1, 2)])
    p, r = 2 / (3 + 1e-8), 2 / (4 + 1e-8)
    assert found == {"precision": p, "recall": r, "f1": 2 * p * r / (p + r + 1e-8)}
    assert long_icl.micro([Counts(0, 0, 3)])["f1"] == 0.0
    assert long_icl.micro([Counts(0, 0, 3)], smooth_f1=False)["f1"] == 0.0
    assert [len(up_to([Counts(1, 1, 200)] * 9, most)) for most in (1, 500, 10**6)] == [1, 3, 9]


def test_relation_lists() -> None:
    assert (len(TACRED_RELATIONS), len(DIALOGRE_RELATIONS)) == (41, 34)
    assert {d.labels for d in DATASETS.values()} == {28, 77, 41, 66, 36, 174}


# --- released data


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def released(tmp_path: Path) -> Source:
    for split in ("train", "test"):
        lines(
            tmp_path / "banking77" / f"{split}.jsonl",
            [{"text": f"{split} {i}", "label": i % 3} for i in range(30)],
        )
        lines(
            tmp_path / "goemotion" / f"{split}.jsonl",
            [{"text": f"{split} {i}", "labels": [i % 2] if i % 5 else [0, 1]} for i in range(60)],
        )
        lines(
            tmp_path / "discovery" / f"{split}.jsonl",
            [
                {"sentence1": f"One {i}.", "sentence2": f"Two {i}.", "label": ("So,", "But")[i % 2]}
                for i in range(12)
            ],
        )
        row = {"sentence": "S", "subject_entity": "A", "object_entity": "B"}
        some = sorted(TACRED_RELATIONS)
        write(
            tmp_path / "processed_data" / f"{split}_tacred.json",
            [{**row, "sentence": f"{split} {i}", "relation": r}
             for i, r in enumerate(["no_relation", *some, *reversed(some)] * 2)],
        )  # fmt: skip
    write(tmp_path / "banking77" / "labels.json", ["Card", "Pin", "Top_up?"])
    (tmp_path / "goemotion_infer.py").write_text(
        "import os\nos.abort()\nall_labels = ['joy', 'fear']\n"
    )
    prepared = tmp_path / "processed_data"
    people = [{"sentence": f"S{i} here.", "entities": {f"E{i}": "person"}} for i in range(300)]
    write(prepared / "fewnerd_train_10turns.json", people)
    write(prepared / "fewnerd_test_1800.json", people[:5])
    write(prepared / "train_dialogueRE_processed.json",
          [{"dialogue": f"D{i // 3}", **relation("per:boss")} for i in range(170)])  # fmt: skip
    write(prepared / "test_dialogueRE.json",
          [{"dialogue": f"T{i}", "relations": [relation("per:age"), relation("per:pet")]}
           for i in range(300)])  # fmt: skip
    return Source(kind="release", path=str(tmp_path))


ROUNDS = LengthLevel("shots", 2)


def samples(name: str, source: Source, n: int = 10**6) -> list[Sample]:
    (task,) = find_tasks(f"long-icl/{name}")
    return list(task.samples(ROUNDS, n, source=source))


def test_released_sets_are_selected_and_worded(tmp_path: Path) -> None:
    source = released(tmp_path)
    bank = samples("banking77", source)
    assert len(bank) == 21  # 7 rounds of 3 labels
    assert bank[0].parts.context.count("service query: train") == 6
    assert [s.references[0] for s in bank[:4]] == ["Card", "Pin", "Top_up?", "Card"]
    assert bank[0].meta["positions"] == [1, 4]
    assert bank[0].parts.query == "service query: test 0\nintent category: "
    emotion = samples("goemotion", source)
    assert emotion[0].references[0] in ("joy", "fear")
    assert "train 0\n" not in emotion[0].parts.context  # has two labels
    discovery = samples("discovery", source)
    assert len(discovery) == 8
    assert discovery[0].parts.query.startswith("One 0. ( ) Two 0.\nthe most suitable conjunction")
    tacred = samples("tacred", source)
    assert tacred[0].parts.context.count("\nthe relation between") == 82
    assert len(tacred) == 164
    grouped = samples("tacred_grouped", source)
    assert grouped[0].meta["positions"][1] - grouped[0].meta["positions"][0] == 1
    assert tacred[0].meta["positions"][1] - tacred[0].meta["positions"][0] > 1
    entities = samples("fewnerd", source)
    assert len(entities) == 5
    assert entities[0].parts.context.count("Sentence: ") == 114
    dialogues = samples("dialogre", source)
    assert len(dialogues) == 250  # 500 relations
    assert dialogues[0].parts.context.count("Dialogue: \n") == 23  # 67 rows, 3 a dialogue
    assert dialogues[0].references == ("per:age, per:pet",)
    assert dialogues[0].parts.query.endswith(
        "entity pairs are ('A', 'B'), ('A', 'B')\n"
        "The 2 respective relations between each entity pair are: "
    )
    assert samples("banking77", source, 4) == bank[:4]


@pytest.mark.parametrize("name", ["banking77", "goemotion", "discovery", "tacred", "dialogre"])
def test_perfect_answers_reach_the_top_and_empty_ones_the_bottom(name: str, tmp_path: Path) -> None:
    (task,) = find_tasks(f"long-icl/{name}")
    found = samples(name, released(tmp_path))
    top = 100 if name == "dialogre" else 1
    perfect = [task.metric.score(s, Response(text=s.references[0])) for s in found]
    assert task.metric.aggregate(perfect)["score"] == pytest.approx(top, abs=1e-5)
    # The prompt in front of the answer changes nothing.
    with_prompt = [
        task.metric.score(s, Response(text=f"{task.build(s).prompt}{s.references[0]}\n\nNext"))
        for s in found
    ]
    assert with_prompt == perfect
    empty = [task.metric.score(s, Response(text="")) for s in found]
    assert task.metric.aggregate(empty)["score"] == 0.0


def test_perfect_entities(tmp_path: Path) -> None:
    (task,) = find_tasks("long-icl/fewnerd")
    found = samples("fewnerd", released(tmp_path))
    said = ["".join(f"{e}: {t}\n" for e, t in s.meta["entities"].items()) for s in found]
    scores = [task.metric.score(s, Response(text=t)) for s, t in zip(found, said, strict=True)]
    assert task.metric.aggregate(scores)["score"] == pytest.approx(1)


def test_released_data_that_is_missing_or_broken(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="long-icl/modules"):
        samples("tacred", Source(kind="release", path=str(tmp_path)))
    with pytest.raises(MissingData, match="No data was given"):
        samples("banking77", Source())
    source = released(tmp_path)
    (tmp_path / "banking77" / "labels.json").unlink()
    with pytest.raises(InputError, match="label 0 has no name"):
        samples("banking77", source)
    write(tmp_path / "banking77" / "labels.json", {"a": 1})
    with pytest.raises(InputError, match="list of names"):
        samples("banking77", source)
    lines(tmp_path / "discovery" / "train.jsonl", [{"sentence1": "x"}])
    with pytest.raises(InputError, match="lacks sentence2, label"):
        samples("discovery", source)
    (tmp_path / "goemotion_infer.py").write_text("all_labels = f()\n")
    with pytest.raises(InputError, match="no plain list"):
        samples("goemotion", source)
    (task,) = find_tasks("long-icl/fewnerd")
    with pytest.raises(ConfigError, match="1 to 5 rounds"):
        list(task.samples(LengthLevel("shots", 6), 1, source=source))


# --- released predictions


def test_prediction_files_are_scored(tmp_path: Path) -> None:
    def scored(name: str, rows: Any, folder: str = "out") -> dict[str, float]:
        (task,) = find_tasks(f"long-icl/{name}")
        write(tmp_path / folder / f"{name}.json", rows)
        found = task.read_predictions(tmp_path / folder / f"{name}.json")
        return task.metric.aggregate([task.metric.score(p.sample, p.response) for p in found])

    pairs = [("a", "a"), ("b", "a"), ("service query x", "service query x")]
    rows = [{"text": "t", "pred": p, "label": label} for p, label in pairs]
    assert scored("banking77", rows) == {"score": 2 / 3}
    assert scored("discovery", rows) == {"score": 2 / 3}
    relations = [
        {"sentence": "s", "pred": p, "label": "per:age"} for p in ("per:age", "per:title", "none")
    ]
    p, r = 1 / (2 + 1e-8), 1 / (3 + 1e-8)
    assert scored("tacred", relations)["score"] == 2 * p * r / (p + r + 1e-8)
    dialogues = [{"dialogue": "d", "pred": "per:age, per:pet", "label": "per:age, per:boss"}]
    p, r = 1 / (2 + 1e-8), 1 / (2 + 1e-8)
    assert scored("dialogre", dialogues)["score"] == 2 * p * r / (p + r + 1e-8) * 100
    gold = [{"sentence": "s", "entities": {"Ann": "person", "Rome": "place"}}, {"entities": {}}]
    write(tmp_path / "processed_data" / "fewnerd_test_1800.json", gold)
    found = scored("fewnerd", [{"Ann": "person", "X": "y"}])
    p, r = 1 / (2 + 1e-8), 1 / (2 + 1e-8)
    assert found["score"] == 2 * p * r / (p + r)


def test_prediction_files_that_are_none(tmp_path: Path) -> None:
    (task,) = find_tasks("long-icl/banking77")
    file = tmp_path / "p.json"
    for text, said in (
        ("nonsense", "no JSON"),
        ("{}", "list of objects"),
        ("[]", "no predictions"),
        ('[{"pred": "a"}]', "entry 1 lacks the text 'label'"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=said):
            list(task.read_predictions(file))
    (entities,) = find_tasks("long-icl/fewnerd")
    write(file, [{"a": "b"}])
    with pytest.raises(InputError, match=r"fewnerd_test_1800\.json beside"):
        list(entities.read_predictions(file))
    write(tmp_path / "fewnerd_test_1800.json", [])
    with pytest.raises(InputError, match="1 predictions for 0 sentences"):
        list(entities.read_predictions(file))


# --- labelled data


def user_file(tmp_path: Path) -> Source:
    rows = [{"text": f"word{i % 6} text {i}", "label": f"kind{i % 6}"} for i in range(72)]
    lines(tmp_path / "labelled.jsonl", rows)
    return Source(path=str(tmp_path / "labelled.jsonl"))


def test_labelled_texts_become_tests_that_share_one_prefix(tmp_path: Path) -> None:
    source = user_file(tmp_path)
    task = long_icl.labelled_task("mine", labels=6, choice=True)
    for level in (LengthLevel("shots", 1), LengthLevel("shots", 5)):
        found = list(task.samples(level, 18, source=source))
        assert len({s.parts.context for s in found}) == 1
        assert found[0].lengths == {"shots": 6 * level.nominal}
        assert Counter(s.references[0] for s in found) == {f" kind{i}": 3 for i in range(6)}
        assert {s.choices for s in found} == {found[0].choices}
        assert found[0].classes == tuple(c.strip() for c in found[0].choices)
        for s in found:
            assert s.parts.query not in s.parts.context
        assert list(task.samples(level, 5, source=source)) == found[:5]


def test_a_level_in_tokens_bounds_every_prompt(tmp_path: Path) -> None:
    source = user_file(tmp_path)
    task = long_icl.labelled_task("mine", labels=6)
    for limit in (300, 700):
        found = list(task.samples(LengthLevel("tokens", limit), 12, source=source, size=len))
        sizes = [len(s.parts.context + s.parts.query) for s in found]
        assert limit - 40 < max(sizes) <= limit


def test_the_control_deals_labels_out_anew(tmp_path: Path) -> None:
    source = user_file(tmp_path)
    task = long_icl.labelled_task("mine", labels=6, shuffled_labels=True)
    (sample,) = task.samples(LengthLevel("shots", 5), 1, source=source)
    pairs = re.findall(r"input: word(\d) .*\nlabel: kind(\d)", sample.parts.context)
    assert 0 < sum(a == b for a, b in pairs) < len(pairs) / 2


def test_choices_are_ranked_by_token(tmp_path: Path) -> None:
    task = long_icl.labelled_task("mine", labels=6, choice=True)
    (sample,) = task.samples(LengthLevel("shots", 1), 1, source=user_file(tmp_path))
    right = sample.choices.index(sample.references[0])
    # In total another is likelier; by token the right one is.
    logprobs = tuple(-3.0 if i == right else -2.0 for i in range(6))
    tokens = tuple(6 if i == right else 1 for i in range(6))
    found = task.metric.score(sample, Response(logprobs=logprobs, logprob_tokens=tokens))
    assert (found["score"], found["total"]) == (1.0, 0.0)
    assert found["place"] == right / 5
    mean = task.metric.aggregate([found, {"score": 0.0, "total": 1.0, "place": 0.0}])
    assert (mean["score"], mean["total"]) == (0.5, 0.5)


def test_generated_answers_on_labelled_texts(tmp_path: Path) -> None:
    task = long_icl.labelled_task("mine", labels=6)
    (sample,) = task.samples(LengthLevel("shots", 1), 1, source=user_file(tmp_path))
    gold = sample.references[0]
    for text, score in ((f" {gold.upper()}\ninput: x", 1.0), (f"x {gold}", 0.0), ("", 0.0)):
        assert task.metric.score(sample, Response(text=text))["score"] == score


def test_labelled_files_that_are_none(tmp_path: Path) -> None:
    task = long_icl.labelled_task("mine", labels=3)
    file = tmp_path / "f.jsonl"
    for text, said in (
        ("{}", "line 1 is no"),
        ("nonsense", "line 1 is no"),
        ('{"text": 1, "label": "a"}', "must be texts"),
        ('{"text": "a", "label": " "}', "must be texts"),
        ("\n", "no items"),
        ('{"text": "a", "label": "b"}\n', "3 labels are wanted and 0"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=said):
            list(task.samples(LengthLevel("shots", 1), 1, source=Source(path=str(file))))
    with pytest.raises(InputError, match="no file"):
        long_icl.labelled(Source(path=str(tmp_path)))


@pytest.mark.slow
def test_the_standard_library_gives_labels() -> None:
    found = long_icl.labelled(Source(), labels=60)
    assert len({label for _, label in found.train}) == 60
    assert {label for _, label in found.test} == {label for _, label in found.train}
    assert not {t for t, _ in found.train} & {t for t, _ in found.test}


# --- positions


def test_position_report_by_hand() -> None:
    order = ["a", "b", "c", "d", "e"]
    gold = ["a", "b", "c", "d", "e", "e"]
    said = ["a", "e", "e", "d", "e", "x"]
    report = long_icl.position_report(said, gold, order)
    assert report.accuracy == (1.0, 0.0, 0.0, 1.0, 0.5)
    assert report.predicted == (0.2, 0.0, 0.0, 0.2, 0.6)
    assert report.answers == 5
    assert 0 < report.last_low < 0.6
    assert long_icl.position_report(["x"], ["a"], order).predicted == (0.0,) * 5
    assert long_icl.position_report(["a"], ["a"], order, parts=2).accuracy == (1.0, None)
    for bad in ((["a"], [], order, 5), ([], [], order, 5), (["a"], ["a"], ["a"], 5)):
        with pytest.raises(ConfigError):
            long_icl.position_report(bad[0], bad[1], bad[2], parts=bad[3])


def test_nearest_takes_the_demonstration_with_the_same_rare_word() -> None:
    texts = ["the red bird", "the blue fish", "the green tree"]
    assert long_icl.nearest(texts, ["a", "b", "c"], ["a blue sky", "trees the green", ""]) == [
        "b",
        "c",
        "a",
    ]
