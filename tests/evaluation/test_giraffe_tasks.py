"""Lines, questions and altered numbers, against readers that share no code with their makers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unspool.errors import ConfigError, InputError
from unspool.evaluation.spec import LengthLevel, Response, Sample, Source
from unspool.evaluation.tasks import find_tasks, task
from unspool.evaluation.tasks.giraffe import (
    alter_number,
    make_lines,
    make_qa,
    score_first_integer,
    score_presence,
)
from unspool.evaluation.tasks.giraffe.lines import MOST_LINES

WORDS = LengthLevel("words", 600)
DIGITS = set("0123456789")


def words(text: str) -> int:
    return len(text.split())


def prompt(sample: Sample) -> str:
    parts = sample.parts
    return parts.prefix + parts.context + parts.query + parts.answer_prefix


def answered(sample: Sample, text: str) -> dict[str, float]:
    made = task(f"giraffe/{'lines' if 'line' in sample.meta else 'freeform'}")
    return made.metric.score(sample, Response(text=text, completion_tokens=words(text)))


# Lines


def looked_up(text: str) -> str:
    """The answer of a lines prompt, found as a person would: the line with the label asked for."""
    label = text.rsplit("of line ", 1)[1].split(" ")[0]
    (line,) = [row for row in text.splitlines() if row.startswith(f"line {label}: ")]
    return "".join(c for c in line if c in DIGITS)


@given(st.integers(1, 300), st.integers(0, 10**6), st.none() | st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_the_answer_is_on_one_line_and_at_its_depth(n: int, seed: int, depth: float | None) -> None:
    record = make_lines(n, seed, depth=depth)
    rows = record.text.splitlines()
    assert len(rows) == n
    assert rows[record.line].startswith(f"line {record.label}: ")
    assert sum(row.startswith(f"line {record.label}: ") for row in rows) == 1
    assert record.text.count(str(record.number)) == 1
    assert len({row.split(":")[0] for row in rows}) == n
    if depth is not None:
        assert abs(record.line - depth * (n - 1)) <= 0.5
    assert record == make_lines(n, seed, depth=depth)
    parts = record.parts
    whole = parts.prefix + parts.context + parts.query + parts.answer_prefix
    assert looked_up(whole) == str(record.number)


def test_lines_without_a_depth_are_asked_everywhere() -> None:
    asked = [make_lines(4, seed).line for seed in range(400)]
    assert {asked.count(line) > 60 for line in range(4)} == {True}


def test_there_are_labels_for_long_records() -> None:
    record = make_lines(1500, 0)
    assert len(set(record.text.splitlines())) == 1500
    assert MOST_LINES > 50_000
    with pytest.raises(ConfigError, match=r"1 to 54,315 lines.*got 54,316"):
        make_lines(MOST_LINES + 1, 0)
    with pytest.raises(ConfigError, match="got 0"):
        make_lines(0, 0)
    with pytest.raises(ConfigError, match=r"0 to 1, got 1\.5"):
        make_lines(3, 0, depth=1.5)


def test_lines_of_a_level_fill_it_and_are_perfectly_answerable() -> None:
    lines = task("giraffe/lines")
    samples = list(lines.samples(WORDS, 12, size=words))
    assert [s.depth for s in samples[:6]] == [0.0, 0.25, 0.5, 0.75, 1.0, 0.0]
    for sample in samples:
        assert words(prompt(sample)) <= 600 < words(prompt(sample)) + 5
        scored = answered(sample, f" {looked_up(prompt(sample))}> and 7 more")
        assert scored["score"] == 1
    assert samples[:5] == list(lines.samples(WORDS, 5, size=words))  # a longer run holds it
    assert samples != list(lines.samples(WORDS, 12, seed=1, size=words))
    assert lines.metric.aggregate([answered(s, "12345") for s in samples])["score"] == 0
    with pytest.raises(InputError, match=r"level 20 holds 20. Choose a longer level"):
        next(lines.samples(LengthLevel("words", 20), 1, size=words))


# Scores


@pytest.mark.parametrize(
    ("output", "truth", "right"),
    [
        ("24169", 24169, True),
        ("<24169>.", "24169", True),
        ("The number is 24169, not 5", 24169, True),
        ("5, or 24169", 24169, False),
        ("241690", 24169, False),
        ("24 169", 24169, False),
        ("", 24169, False),
        ("none", 24169, False),
        ("07", 7, True),
        ("-24169", 24169, True),
        ("٢٤", 24, False),
    ],
)
def test_first_integer(output: str, truth: int | str, right: bool) -> None:
    assert score_first_integer(output, truth) is right


def test_presence_is_a_substring_and_nothing_else() -> None:
    assert score_presence("It was Marie Curie.", "  Marie Curie\n")
    assert not score_presence("It was marie curie.", "Marie Curie")
    assert score_presence("in 1925", "25")  # as published: no word borders
    with pytest.raises(InputError, match="empty"):
        score_presence("anything", "  ")
    with pytest.raises(InputError, match="'many'"):
        score_first_integer("7", "many")


def test_output_length_is_reported_beside_the_score() -> None:
    sample = next(task("giraffe/lines").samples(WORDS, 1, size=words))
    long = answered(sample, "no idea " * 20)
    assert long == {"score": 0.0, "output_tokens": 40.0, "output_chars": 160.0}
    metric = task("giraffe/lines").metric
    total = metric.aggregate([long, answered(sample, sample.references[0])])
    assert total == {"score": 50.0, "output_tokens": 20.5, "output_chars": 82.5}


# Altered numbers


def numbers(text: str) -> Iterator[str]:
    """Numbers by a scan of characters: digits, and a comma or point between two digits."""
    run = ""
    for i, c in enumerate(text + " "):
        inner = c in ",." and run and i + 1 < len(text) and text[i + 1] in DIGITS
        if c in DIGITS or inner:
            run += c
        elif run:
            yield run
            run = ""


@given(
    st.lists(
        st.sampled_from(["12", "1920", "12,000", "3.12", "x12", "12th", "12.", "(12)", "920", "a"]),
        min_size=1,
        max_size=12,
    ),
    st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None)
def test_every_whole_occurrence_changes_and_nothing_else(pieces: list[str], seed: int) -> None:
    document = " ".join([*pieces, "12"])
    altered = alter_number(document, "12", seed)
    before, after = list(numbers(document)), list(numbers(altered.document))
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        assert new == (altered.answer if old == "12" else old)
    assert altered.changed == before.count("12")
    assert "12" not in after
    assert len(altered.answer) == 2
    assert altered.answer[0] != "0"
    assert re.sub("[0-9]+", "#", altered.document) == re.sub("[0-9]+", "#", document)


@given(st.integers(1000, 2100), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_years_move_by_at_most_ten(year: int, seed: int) -> None:
    altered = alter_number(f"In {year}, not in the {year}s or {year}5.", str(year), seed)
    assert 1 <= abs(int(altered.answer) - year) <= 10
    assert altered.changed == 2
    assert f"{year}5" in altered.document


def test_both_directions_and_every_distance_are_drawn() -> None:
    moved = {int(alter_number("1920", "1920", seed).answer) - 1920 for seed in range(400)}
    assert moved == {*range(-10, 0), *range(1, 11)}


@pytest.mark.parametrize(
    ("answer", "pattern"),
    [
        ("7", r"[0-9]"),
        ("0", r"[0-9]"),
        ("88", r"[1-9][0-9]"),
        ("2101", r"[1-9][0-9]{3}"),
        ("999", r"[1-9][0-9]{2}"),
        ("1,920", r"[1-9],[0-9]{3}"),
        ("299,792", r"[1-9][0-9]{2},[0-9]{3}"),
        ("42.195", r"[1-9][0-9]\.[0-9]{3}"),
        ("007", r"[0-9]{3}"),
    ],
)
def test_other_numbers_keep_their_form(answer: str, pattern: str) -> None:
    drawn = {alter_number(f"it is {answer}.", answer, seed).answer for seed in range(50)}
    assert answer not in drawn
    assert len(drawn) > 5
    assert all(re.fullmatch(pattern, each) for each in drawn)


def test_a_number_of_the_document_is_not_taken_if_there_is_another() -> None:
    document = " ".join(str(n) for n in range(10) if n != 6)
    assert {alter_number(document, "3", seed).answer for seed in range(30)} == {"6"}
    everything = " ".join(map(str, range(10)))
    assert alter_number(everything, "3", 0).answer != "3"


@pytest.mark.parametrize(
    ("document", "answer", "says"),
    [
        ("in 1920", "12", "12 does not stand in the document"),
        ("3.12 and 12,000", "12", "does not stand"),
        ("in 1920", "twelve", "in digits as 1920 or 12,500, got 'twelve'"),
        ("in 1920", "", "got ''"),
        ("in 1920", "1920 or so", "got '1920 or so'"),
    ],
)
def test_what_cannot_be_altered(document: str, answer: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        alter_number(document, answer, 0)


# Questions on a text

TEXT = (
    " ".join(f"w{i}" for i in range(3000)) + " Canberra " + " ".join(f"v{i}" for i in range(3000))
)


@pytest.mark.parametrize("question_at", ["before", "after"])
@pytest.mark.parametrize(
    ("answer_at", "low", "high"), [("start", 0, 0.1), ("middle", 0.1, 0.9), ("end", 0.9, 1)]
)
@pytest.mark.parametrize("tokens", [60, 333, 2000])
def test_the_answer_is_where_it_is_wanted_and_the_length_is_filled(
    answer_at: Any, low: float, high: float, question_at: Any, tokens: int
) -> None:
    made = make_qa(TEXT, "What?", "Canberra", tokens, answer_at, question_at, size=words)
    context = made.parts.context
    assert context == TEXT[made.start : made.end]
    assert made.start == 0 or TEXT[made.start - 1] == " "
    assert made.end == len(TEXT) or TEXT[made.end] == " "
    assert low <= context.index("Canberra") / len(context) <= high
    assert made.depth == context.index("Canberra") / len(context)
    whole = made.parts.prefix + context + made.parts.query + made.parts.answer_prefix
    assert words(whole) == made.size <= tokens < made.size + 3
    assert (whole.index("What?") < whole.index("Canberra")) == (question_at == "before")


def test_where_the_text_ends_on_one_side_the_place_moves_within_its_band() -> None:
    near_the_end = " ".join(f"w{i}" for i in range(400)) + " Canberra " + "x " * 60
    made = make_qa(near_the_end, "What?", "Canberra", 300, "middle", "after", size=words)
    assert 0.5 < made.depth < 0.9
    assert made.end == len(near_the_end)
    assert made.size > 297


def test_the_occurrence_that_can_be_placed_is_taken() -> None:
    early = "Canberra " + TEXT.replace("Canberra", "x") + " Canberra is it"
    made = make_qa(early, "What?", "Canberra", 300, "start", "after", size=words)
    assert made.start == 0
    made = make_qa(early, "What?", "Canberra", 300, "end", "after", size=words)
    assert made.end == len(early)


@pytest.mark.parametrize(
    ("document", "answer", "tokens", "at", "says"),
    [
        (TEXT, "Sydney", 100, "start", "does not hold the answer 'Sydney'"),
        (TEXT, "Canberr", 100, "start", "word for word"),
        (TEXT, " ", 100, "start", "answer is empty"),
        (TEXT, "Canberra", 9000, "middle", r"gives [56],\d\d\d of 9,000 tokens"),
        ("Canberra", "Canberra", 10, "middle", "No stretch of the document fits 10 tokens"),
        ("Canberra " * 500, "Canberra", 300, "start", "24 of 300 .* nowhere else"),
    ],
)
def test_what_cannot_be_placed(document: str, answer: str, tokens: int, at: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        make_qa(document, "What?", answer, tokens, at, "after", size=words)


def test_places_are_named() -> None:
    with pytest.raises(ConfigError, match="start, middle or end, got 'top'"):
        make_qa(TEXT, "What?", "Canberra", 99, "top", "after", size=words)
    with pytest.raises(ConfigError, match="before or after, got 'top'"):
        make_qa(TEXT, "What?", "Canberra", 99, "start", "top", size=words)


@pytest.mark.parametrize("name", ["freeform", "altered"])
def test_six_rows_a_document(name: str) -> None:
    made = task(f"giraffe/{name}")
    samples = list(made.samples(WORDS, 12, size=words))
    rows = [(s.meta["answer_at"], s.meta["question_at"]) for s in samples]
    assert len(set(rows[:6])) == 6
    assert rows[:6] == rows[6:]
    assert samples[:7] == list(made.samples(WORDS, 7, size=words))
    for sample in samples:
        assert 0.9 * 600 <= words(prompt(sample)) <= 600
        (answer,) = sample.references
        assert made.metric.score(sample, Response(text=f"It is {answer}."))["score"] == 1
        assert made.metric.score(sample, Response(text="I do not know."))["score"] == 0
        assert answer in sample.parts.context
        changed = answer != sample.meta["original_answer"]
        assert changed == (name == "altered")
        if changed:  # what a model remembers is no longer right
            said = Response(text=str(sample.meta["original_answer"]))
            assert made.metric.score(sample, said)["score"] == 0
            assert sample.meta["original_answer"] not in set(numbers(sample.parts.context))


def test_records_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "qa.jsonl"
    rows = [
        {"text": TEXT, "question": "Which city?", "answer": "Canberra"},
        {"text": TEXT.replace("Canberra", "1889"), "question": "When?", "answer": "1889"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source = Source(path=str(file))
    freeform = list(task("giraffe/freeform").samples(WORDS, 12, source=source, size=words))
    assert {s.references[0] for s in freeform} == {"Canberra", "1889"}
    altered = list(task("giraffe/altered").samples(WORDS, 6, source=source, size=words))
    assert all(1 <= abs(int(s.references[0]) - 1889) <= 10 for s in altered)
    rows[1].pop("answer")
    broken = tmp_path / "broken.jsonl"
    broken.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(InputError, match=r"broken.jsonl:2' lacks question or answer"):
        next(task("giraffe/freeform").samples(WORDS, 1, source=Source(path=str(broken))))
    words_only = tmp_path / "words.jsonl"
    words_only.write_text(json.dumps({**rows[0]}) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match="No record of the source has a number"):
        next(task("giraffe/altered").samples(WORDS, 1, source=Source(path=str(words_only))))


def test_a_fact_is_put_into_texts_of_ones_own(tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / f"{i}.txt").write_text(f"word{i} " * 900, encoding="utf-8")
    made = task("giraffe/freeform")
    sample = next(made.samples(WORDS, 1, source=Source(path=str(tmp_path)), size=words))
    assert "word" in sample.parts.context
    assert sample.references[0] in sample.parts.context


def test_names_and_round_trip() -> None:
    assert [t.spec.name for t in find_tasks("giraffe")] == [
        "giraffe/altered",
        "giraffe/freeform",
        "giraffe/lines",
    ]
    for each in find_tasks("giraffe"):
        assert each.metric.id == each.spec.metric
        assert type(each.spec).from_json(each.spec.to_json()) == each.spec
        sample = next(each.samples(WORDS, 1, size=words))
        assert Sample.from_json(json.loads(json.dumps(sample.to_json()))) == sample
