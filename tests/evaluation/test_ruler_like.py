"""RULER, NoLiMa, BABILong and MRCR style generators: lengths, answers by other ways, scoring."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from difflib import SequenceMatcher
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unspool.backends.scripted import ScriptedModel
from unspool.errors import InputError
from unspool.evaluation.run import evaluate
from unspool.evaluation.spec import LengthLevel, Parts, Response, Sample, Source
from unspool.evaluation.tasks import babilong, find_tasks, mrcr, nolima, ruler
from unspool.evaluation.tasks._prose import keys, made_words, scattered
from unspool.evaluation.tasks.babilong import worlds
from unspool.evaluation.tasks.base import Task
from unspool.reading.terms import terms

ALL = {
    **{f"ruler/{name}": task for name, task in ruler.TASKS.items()},
    **{f"nolima/{name}": task for name, task in nolima.TASKS.items()},
    **{f"babilong/{name}": task for name, task in babilong.TASKS.items()},
    **{f"mrcr/{name}": task for name, task in mrcr.TASKS.items()},
}
LEVEL = LengthLevel("tokens", 2048)


def quarter(text: str) -> int:
    return len(text) // 4


def text_of(sample: Sample) -> str:
    parts = sample.parts
    return parts.prefix + parts.context + parts.query + parts.answer_prefix


def drawn(task: Task, n: int, level: LengthLevel = LEVEL, seed: int = 0) -> list[Sample]:
    return list(task.samples(level, n, seed=seed, size=quarter))


@pytest.mark.parametrize("name", ALL)
def test_samples_fill_their_level_and_do_not_depend_on_their_number(name: str) -> None:
    task = ALL[name]
    assert find_tasks(name) == [task]
    found = drawn(task, 6)
    assert [s.id for s in drawn(task, 3)] == [s.id for s in found[:3]]
    assert drawn(task, 3) == found[:3]
    assert len({text_of(s) for s in found}) == 6
    for sample in found:
        assert LEVEL.upper * 0.9 < quarter(text_of(sample)) <= LEVEL.upper
    assert drawn(task, 2, seed=1) != found[:2]


@pytest.mark.parametrize("name", [n for n in ALL if not n.endswith("_choice")])
def test_perfect_answers_score_100_through_the_runner(name: str, tmp_path: Path) -> None:
    answers: dict[str, str] = {}

    def answer(prompt: str) -> str:
        if not answers:  # the samples lie in the folder before the first is asked
            for line in (tmp_path / "samples.jsonl").read_text().splitlines():
                held = Sample.from_json(json.loads(line)["sample"])
                said = ", ".join(held.references)
                answers[held.parts.context + held.parts.query] = said
        found = [said for text, said in answers.items() if text in prompt]
        return found[0] if len(found) == 1 else ""

    report = evaluate(ScriptedModel(answer), [ALL[name]], out=tmp_path, lengths=["2500"], limit=4)
    assert report.score(name) == 100.0


@pytest.mark.parametrize("name", [n for n in ALL if n != "ruler/fwe"])
def test_a_level_that_holds_nothing_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="Choose a longer level"):
        drawn(ALL[name], 1, LengthLevel("tokens", 16))


@pytest.mark.parametrize("name", [n for n in ruler.TASKS if n.startswith("niah")])
def test_needles_are_read_back_from_the_text(name: str) -> None:
    for sample in drawn(ruler.TASKS[name], 6):
        found: dict[str, list[str]] = {}
        for key, value in re.findall(r"of ([\w-]+) is: ([\w-]+)\.", sample.parts.context):
            found.setdefault(key, []).append(value)
        asked = [key for key in found if re.search(rf"\b{key}\b", sample.parts.query)]
        assert sorted(v for key in asked for v in found[key]) == sorted(sample.references)
        others = len(found) - len(asked)
        assert others == 3 if name.endswith("multikey_1") else others == 0 or "multikey" in name


def test_a_single_needle_stands_at_its_depth() -> None:
    for sample in drawn(ruler.TASKS["niah_single_1"], 5):
        at = sample.parts.context.index("One of the secret") / len(sample.parts.context)
        assert sample.depth == pytest.approx(at, abs=0.03)


def test_variables_are_those_of_the_chain() -> None:
    for sample in drawn(ruler.TASKS["vt"], 5):
        value = re.search(r"value (\d+)", sample.parts.query)
        held: set[str] = set()
        assert value
        for name, given_ in re.findall(r"VAR (\w+) = (?:VAR )?(\w+)", sample.parts.context):
            if given_ == value[1] or given_ in held:
                held.add(name)
        assert held == set(sample.references)
        assert len(held) == 5


@pytest.mark.parametrize("name", ["cwe", "fwe"])
def test_words_are_the_most_frequent_ones(name: str) -> None:
    for sample in drawn(ruler.TASKS[name], 4):
        words = re.findall(r"[a-z]+", sample.parts.context)
        ranked = Counter(words).most_common()
        count = len(sample.references)
        assert {word for word, _ in ranked[:count]} == set(sample.references)
        assert ranked[count - 1][1] > ranked[count][1]


def test_a_question_over_two_documents_takes_both() -> None:
    for sample in drawn(ruler.TASKS["qa_2"], 4):
        who = re.search(r"where (\w+ \w+) was born", sample.parts.query)
        assert who
        town = re.search(rf"{who[1]} was born in the town of (\w+)", sample.parts.context)
        assert town
        river = re.search(rf"town of {town[1]} lies on the river (\w+)", sample.parts.context)
        assert river
        assert (river[1],) == sample.references
        (both,) = [d for d in sample.parts.context.split("Document ") if who[1] in d]
        assert river[1] not in both


@pytest.mark.parametrize(
    ("any_of", "references", "answer", "expected"),
    [
        (False, ("12", "34"), "it is 12.", 0.5),
        (False, ("12", "34"), "34, 12", 1.0),
        (False, ("Abc",), "aBC", 1.0),
        (False, ("a",), "", 0.0),
        (True, ("x", "y"), "only Y", 1.0),
        (True, ("x", "y"), "z", 0.0),
        (False, ("12",), "3121", 1.0),
        (False, ("é",), "É", 1.0),
    ],
)
def test_string_match(
    any_of: bool, references: tuple[str, ...], answer: str, expected: float
) -> None:
    sample = Sample(id="s", parts=Parts(), references=references)
    found = ruler.StringMatch(any_of=any_of).score(sample, Response(text=answer))
    assert found["score"] == expected


@pytest.mark.parametrize("fact", nolima.FACTS, ids=lambda fact: fact.near[16:-1])
def test_questions_share_no_word_with_their_needle(fact: nolima.Fact) -> None:
    held = set(terms(fact.needle.format(name="")))
    for question in (fact.near, fact.far):
        assert held.isdisjoint(terms(question)), held & set(terms(question))
    assert len(held & set(terms(fact.literal))) >= 3
    assert fact.needle.count("{name}") == fact.turned.count("{name}") == 1


def test_the_prose_around_a_needle_shares_no_word_with_the_question() -> None:
    for sample in drawn(nolima.TASKS["onehop"], 5):
        needle = str(sample.meta["needle"])
        rest = sample.parts.context.replace(needle, "")
        asked = set(terms(sample.parts.query.split("?")[0])) - {"charact", "character"}
        assert asked.isdisjoint(terms(rest))
        assert needle in sample.parts.context
        assert sample.references[0].strip() in needle


def test_choices_hold_the_name_once() -> None:
    for sample in drawn(nolima.TASKS["twohop_choice"], 3):
        assert len(set(sample.choices)) == 10
        assert set(sample.references) < set(sample.choices)


@pytest.mark.parametrize("kind", worlds.KINDS)
def test_facts_stand_in_their_order(kind: str) -> None:
    for sample in drawn(babilong.TASKS[kind], 3):
        context, before = sample.parts.context, -1
        for fact in sample.meta["facts"]:
            at = context.find(fact, before + 1)
            assert at > before, f"{fact!r} is missing after character {before}"
            before = at


def replay(facts: tuple[str, ...]) -> tuple[dict[str, str], dict[str, list[str]], dict[str, str]]:
    """Where people are, where things have been, who has them: read from the sentences alone."""
    at: dict[str, str] = {}
    been: dict[str, list[str]] = {}
    has: dict[str, str] = {}
    for fact in facts:
        words = fact.rstrip(".").split()
        who, last = words[0], words[-1]
        if " to the " in fact:
            at[who] = last
        elif "picked up" in fact or " took " in fact:
            has[words[-2]] = who
        elif "put down" in fact or " left " in fact:
            del has[words[-2]]
        elif " gave " in fact:
            assert has[words[3]] == who
            assert at[who] == at[last]
            has[words[3]] = last
        for thing, holder in has.items():
            places = been.setdefault(thing, [])
            if not places or places[-1] != at[holder]:
                places.append(at[holder])
    return at, been, has


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_stories_are_answered_by_reading_them(seed: int) -> None:
    for kind in ("qa1", "qa2", "qa3", "qa6", "qa7", "qa8"):
        told = worlds.story(kind, random.Random(seed))
        at, been, has = replay(told.facts)
        words = re.findall(r"\w+", told.question)
        if kind == "qa1":
            expected = [at[words[2]]]
        elif kind == "qa2":
            expected = [been[words[3]][-1]]
        elif kind == "qa3":
            places = been[words[3]]
            expected = [a for a, b in pairwise(places) if b == words[-1]]
        elif kind == "qa6":
            expected = ["yes" if at[words[1]] == words[4] else "no"]
        else:
            who = words[4] if kind == "qa7" else words[2]
            held = sorted(thing for thing, holder in has.items() if holder == who)
            number = ("none", "one", "two", "three", "four")[len(held)]
            expected = [number] if kind == "qa7" else held or ["nothing"]
        assert list(told.answers) == expected, (kind, told)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_relations_are_answered_by_reading_them(seed: int) -> None:
    told = worlds.story("qa4", random.Random(seed))
    opposite = {"north": "south", "south": "north", "east": "west", "west": "east"}
    known = set()
    for fact in told.facts:
        a, way, b = re.findall(r"The (\w+) is (\w+) of the (\w+)", fact)[0]
        known |= {(a, way, b), (b, opposite[way], a)}
    front = re.match(r"What is (\w+) of the (\w+)\?", told.question)
    if front:
        found = {a for a, way, b in known if (way, b) == (front[1], front[2])}
    else:
        back = re.match(r"What is the (\w+) (\w+) of\?", told.question)
        assert back
        found = {b for a, way, b in known if (a, way) == (back[1], back[2])}
    assert found == set(told.answers)
    given_ = worlds.story("qa5", random.Random(seed))
    gifts = [re.findall(r"(\w+) gave the (\w+) to (\w+)\.", f) for f in given_.facts]
    told_gifts = [g[0] for g in gifts if g]
    assert any(set(given_.answers) & set(gift) for gift in told_gifts)


@pytest.mark.parametrize(
    ("question", "references", "answer", "expected"),
    [
        ("Where is Amira?", ("attic",), "The attic.", 1),
        ("Where is Amira?", ("attic",), "attic or cellar", 0),
        ("Where is Amira?", ("attic",), "ATTIC", 1),
        ("Where is Amira?", ("attic",), "attic. Not the cellar.", 1),
        ("Where is Amira?", ("attic",), "", 0),
        ("Where is Amira?", ("attic",), "atticus", 0),
        ("What is north of the cellar?", ("attic",), "North of the cellar is the attic", 1),
        ("What is north of the cellar?", ("attic",), "cellar", 0),
        ("Where is Amira?", ("attic", "cellar"), "cellar, attic", 1),
        ("Where is Amira?", ("attic", "cellar"), "cellar", 0),
    ],
)
def test_labels(question: str, references: tuple[str, ...], answer: str, expected: int) -> None:
    meta = {"question": question, "classes": list(worlds.PLACES)}
    sample = Sample(id="s", parts=Parts(), references=references, meta=meta)
    assert babilong.Labels().score(sample, Response(text=answer))["score"] == expected


def test_saying_both_is_not_an_answer() -> None:
    meta = {"question": "Is A in the attic? Say yes or no.", "classes": ["yes", "no"]}
    sample = Sample(id="s", parts=Parts(), references=("yes",), meta=meta)
    assert babilong.Labels().score(sample, Response(text="yes or no"))["score"] == 0
    assert babilong.Labels().score(sample, Response(text="Yes."))["score"] == 1


@pytest.mark.parametrize("needles", [2, 4, 8])
def test_the_asked_piece_is_the_one_of_its_number(needles: int) -> None:
    for sample in drawn(mrcr.TASKS[f"{needles}needle"], 4, LengthLevel("tokens", 4096)):
        asked = re.search(
            r"Write (\w+) and then, word for word, the (\w+) (.+) about (\w+) that",
            sample.parts.query,
        )
        assert asked
        said = re.findall(
            rf"User: Write a {asked[3]} about {asked[4]}\.\nAssistant: (.+)", sample.parts.context
        )
        assert len(said) == len(set(said)) == needles
        number = mrcr.ORDINALS.index(asked[2])
        assert sample.references == (asked[1] + said[number],)


def test_recall_is_graded_behind_the_string_only() -> None:
    sample = Sample(id="s", parts=Parts(), references=("abXYhello",), meta={"mark": "abXY"})
    metric = mrcr.Ratio()
    assert metric.score(sample, Response(text="hello"))["score"] == 0
    assert metric.score(sample, Response(text=" abXYhello"))["score"] == 0
    assert metric.score(sample, Response(text="abXYhello"))["score"] == 1
    expected = SequenceMatcher(None, "help", "hello").ratio()
    assert metric.score(sample, Response(text="abXYhelp"))["score"] == expected


def test_a_model_of_short_sight_gives_a_step(tmp_path: Path) -> None:
    def answer(prompt: str) -> str:
        found = re.findall(r"is: (\d+)\.", prompt[-3000:])
        return found[0] if found else ""

    (task,) = find_tasks("ruler/niah_single_1")
    report = evaluate(
        ScriptedModel(answer),
        [task.with_depths((0.0,))],
        out=tmp_path,
        lengths=["512", "4k"],
        limit=3,
        rules=("ruler",),
    )
    assert report.score(task.spec.name, "512") == 100.0
    assert report.score(task.spec.name, "4k") == 0.0
    assert report.effective_length(task.spec.name, "ruler") == 512


@pytest.mark.parametrize("count", [0, 1, 7, 2500, 2600])
def test_keys_and_words_are_different(count: int) -> None:
    assert len(set(keys(random.Random(0), count))) == count
    assert len(set(made_words(random.Random(0), count))) == count


@given(st.integers(0, 30), st.integers(0, 5), st.integers(0, 99))
def test_scattering_keeps_everything_in_order(filler: int, planted: int, seed: int) -> None:
    rest, needles = [f"f{i}" for i in range(filler)], [f"n{i}" for i in range(planted)]
    for depth in (None, 0.0, 0.5, 1.0):
        out = scattered(rest, needles, random.Random(seed), depth)
        assert [x for x in out if x[0] == "f"] == rest
        assert [x for x in out if x[0] == "n"] == needles


def test_prose_comes_from_the_texts_given(tmp_path: Path) -> None:
    lines = [f"The keeper of house number {'i' * i} went out to see the old sea." for i in range(9)]
    (tmp_path / "own.txt").write_text(" ".join(lines))
    source = Source(path=str(tmp_path / "own.txt"))
    task = ruler.TASKS["niah_single_2"]
    (sample,) = task.samples(LEVEL, 1, source=source, size=quarter)
    assert "The keeper of house number" in sample.parts.context
    (tmp_path / "own.txt").write_text("short")
    with pytest.raises(InputError, match="plain sentence"):
        list(task.samples(LEVEL, 1, source=source, size=quarter))
