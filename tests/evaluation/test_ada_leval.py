"""Ada-LEval: released and strict rules, generators, released files, the baseline."""

from __future__ import annotations

import itertools
import json
import random
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unspool.backends.scripted import ScriptedModel
from unspool.errors import ConfigError, InputError, MissingData
from unspool.evaluation.spec import LengthLevel, Response, Sample, Source
from unspool.evaluation.tasks import ada_leval, find_tasks
from unspool.evaluation.tasks.ada_leval import sources
from unspool.evaluation.tasks.ada_leval.data import read_table, reference
from unspool.evaluation.tasks.ada_leval.score import released_label, released_order
from unspool.types import Document

GOLD = [3, 1, 4, 2]
ALL_MODULES = sources.MODULES


@pytest.fixture(scope="module", autouse=True)
def _few_modules() -> Iterator[None]:
    """Parse a handful of the standard library's files in place of all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "MODULES", "argparse calendar configparser difflib logging/__init__"
                      " mailbox optparse shutil statistics tarfile")  # fmt: skip
        sources.standard_library.cache_clear()
        yield
    sources.standard_library.cache_clear()


CRASH = "crash"

# reply, released verdict (True, False, or CRASH), strict verdict
ORDERS: list[tuple[str, bool | str, bool]] = [
    ("[3, 1, 4, 2]", True, True),
    ("[3,1,4,2]", True, True),
    ("Answer: [3, 1, 4, 2]", True, True),
    ("Answer:[3, 1, 4, 2]\n", True, True),
    ("The order.\nAnswer: [3, 1, 4, 2]", True, True),
    ("answer: [3, 1, 4, 2]", True, True),
    ("Answer: [1, 2, 3, 4] Answer: [3, 1, 4, 2]", False, True),
    ("Answer: [3, 1, 4, 2] Answer: [1, 2, 3, 4]", True, False),
    ("[3, 1]", True, False),
    ("[]", True, False),
    ("[3, 1, 4, 2, 9]", True, False),
    ("[3.0, 1, 4, 2]", True, False),
    ('["3", "1", "4", "2"]', False, False),
    ("{}", True, False),
    ('""', True, False),
    ('"3142"', False, False),
    ('{"order": [3, 1, 4, 2]}', False, True),
    ("3142", CRASH, False),
    ("3", CRASH, False),
    ("true", CRASH, False),
    ("null", CRASH, False),
    ("NaN", CRASH, False),
    ("3, 1, 4, 2", True, False),
    ("3 1 4 2", True, False),
    ("3 then 1 then 4 then 2", True, False),
    ("3-1-4-2-1", False, False),
    ("Segments 1 to 4: 3 1 4 2", False, False),
    ("", False, False),
    ("no idea", False, False),
    ("[3, 1, 4, 2", True, False),
    ("The order is [3, 1, 4, 2].", True, True),
    ("I compared 1 and 2. The order is [3, 1, 4, 2].", False, True),
    ("[2, 4, 1, 3]", False, False),
    ("[3, 1, 4, 4]", False, False),
    ("[0, 0, 0, 0]", False, False),
    ("Answer:", False, False),
    ("[[3, 1, 4, 2]]", False, True),
    ("Answer: [3, 1, 4, 2] or [1, 2, 3, 4]", False, False),
    ("[3, 1, 4, 2] [3, 1, 4, 2]", False, True),
    ("\u0663 1 4 2", False, False),
    ("[1, 0, 3] [3, 1, 4, 2]", False, False),
]


def released_tsort(reply: str, gold: list[int]) -> bool | str:
    """The rule of the release by its description: JSON, else the only order that fits."""
    text = reply.split("Answer:")[1].strip() if "Answer:" in reply else reply
    try:
        value = json.loads(text)
    except Exception:
        fits = []
        for order in itertools.permutations("1234"):
            if re.search(".*?".join(order), text, re.DOTALL):
                fits.append([int(digit) for digit in order])
        value = fits[0] if len(fits) == 1 else [0, 0, 0, 0]
    try:
        pairs = list(zip(gold, value, strict=False))
    except TypeError:
        return CRASH
    return [a for a, _ in pairs] == [b for _, b in pairs]


@pytest.mark.parametrize(("reply", "released", "strict"), ORDERS)
def test_orders_by_hand(reply: str, released: bool | str, strict: bool) -> None:
    found = ada_leval.judge_tsort(reply, GOLD, strict=False)
    assert (CRASH if found.crashed else found.hit) == released == released_tsort(reply, GOLD)
    assert ada_leval.score_tsort(reply, GOLD) == strict
    assert ada_leval.score_tsort(reply, json.dumps(GOLD)) == strict


@pytest.mark.parametrize("longest", [5, pytest.param(6, marks=pytest.mark.slow)])
def test_subsequences_against_brute_force(longest: int) -> None:
    for length in range(longest + 1):
        for digits in itertools.product("1234", repeat=length):
            text = "x" + "".join(digits)  # never JSON
            seen = {
                tuple(map(int, kept))
                for kept in itertools.combinations(digits, 4)
                if len(set(kept)) == 4
            }
            expected = list(next(iter(seen))) if len(seen) == 1 else [0, 0, 0, 0]
            assert released_order(text) == expected


@given(st.text(alphabet="1234[], Answer:\"'{}.0tnA\n", max_size=40), st.permutations([1, 2, 3, 4]))
@settings(max_examples=300, deadline=None)
def test_any_reply_gets_the_released_order_verdict(reply: str, gold: list[int]) -> None:
    found = ada_leval.judge_tsort(reply, gold, strict=False)
    assert (CRASH if found.crashed else found.hit) == released_tsort(reply, gold)


LABELS: list[tuple[str, int, str, bool, bool]] = [  # reply, n, gold, released, strict
    ("A4", 12, "A4", True, True),
    ("Answer: A4", 12, "A4", True, True),
    ("Answer: A12", 12, "A12", True, True),
    ("Answer: A12", 12, "A1", False, False),
    ("Answer: A12", 11, "A1", True, False),
    ("Answer: A12", 11, "A12", False, False),
    ("A3 is better than A12", 12, "A12", True, False),
    ("A3 is better than A12", 12, "A3", False, False),
    ("A3, A3, A3", 12, "A3", True, True),
    ("4", 12, "A4", True, False),
    ("Answer 4", 12, "A4", True, False),
    ("the 12th", 12, "A12", True, False),
    ("the 12th", 11, "A2", True, False),
    ("2 out of 10", 12, "A10", True, False),
    ("a4", 12, "A4", True, False),
    ("A 4", 12, "A4", True, False),
    ("CA4", 12, "A4", True, False),
    ("A04", 12, "A4", True, False),
    ("A4.", 12, "A4", True, True),
    ("(A4)", 12, "A4", True, True),
    ("**A4**", 12, "A4", True, True),
    ("A1 Answer: A4", 12, "A4", True, True),
    ("A9 Answer: A4", 12, "A4", False, True),
    ("", 12, "A4", False, False),
    ("none of them", 12, "A4", False, False),
    ("A0", 12, "A4", False, False),
    ("A99", 12, "A9", True, False),
    ("A\u0664", 12, "A4", False, False),
    ("A4\nA4", 1, "A1", False, False),
    ("A1", 1, "A1", True, True),
    ("A4B", 12, "A4", True, False),
    ("The best answer is A4, not A5.", 12, "A5", True, False),
    ("A" * 500 + "4", 12, "A4", True, False),
]


def released_bestanswer(reply: str, n: int) -> str:
    """The released rule by its description: the highest label in the text, else number."""
    for prefix in ("A", ""):
        inside = [i for i in range(1, n + 1) if f"{prefix}{i}" in reply]
        if inside:
            return f"A{max(inside)}"
    return "???"


@pytest.mark.parametrize(("reply", "n", "gold", "released", "strict"), LABELS)
def test_labels_by_hand(reply: str, n: int, gold: str, released: bool, strict: bool) -> None:
    assert ada_leval.score_bestanswer(reply, gold, n) == released
    assert ada_leval.score_bestanswer(reply, gold, n, strict=True) == strict
    assert released_label(reply, n) == released_bestanswer(reply, n)


@given(st.text(alphabet="A0123456789 :.nswer", max_size=30), st.integers(1, 130))
@settings(max_examples=300, deadline=None)
def test_any_reply_gets_the_released_label(reply: str, n: int) -> None:
    assert released_label(reply, n) == released_bestanswer(reply, n)


def test_gold_that_is_no_order_or_no_candidates() -> None:
    for gold in ("[1, 2", [1, 1, 2], "{}", [2, 3]):
        with pytest.raises(InputError):
            ada_leval.judge_tsort("[1]", gold)
    with pytest.raises(ConfigError, match="n=0"):
        ada_leval.judge_bestanswer("A1", "A1", 0)


def words(text: str) -> int:
    return len(text.split())


def book(name: str, count: int, seed: int = 0) -> Document:
    draw = random.Random(f"{name}{seed}")
    text = "".join(
        f"In part {i} of {name} the {draw.choice(('red', 'blue', 'green'))} bird number "
        f"{draw.randrange(10**6)} came back. "
        for i in range(count)
    )
    return Document(name, text)


BOOKS = [book("one", 400), book("two", 300), book("three", 5)]


@pytest.mark.parametrize("limit", [300, 401, 1000])
def test_tsort_items_fill_the_level_and_come_from_the_text(limit: int) -> None:
    items, skipped = ada_leval.make_tsort(BOOKS, limit, words, n=12, seed=1)
    assert len(items) >= 5
    assert skipped == {"text shorter than the level": 1}
    for item in items:
        text = next(b.text for b in BOOKS if b.id == item.book_id)
        assert 0.98 * limit <= words(item.prompt) <= limit
        in_order = [item.segments[label - 1] for label in item.answer]
        joined = "".join([item.before, *in_order, item.after])
        assert joined in text
        assert [text.encode().index(s.encode()) for s in in_order] == item.para_offset
        assert sorted(item.answer) == [1, 2, 3, 4]
        assert all(s.rstrip().endswith(".") for s in item.segments)  # whole sentences
        assert item.index == "_".join([item.book_id, *map(str, item.para_offset)])
        for number, segment in enumerate(item.segments, 1):
            assert f"[Segment {number}]\n{segment.strip()}\n" in item.prompt


def test_tsort_counts_equal_segments_and_short_texts() -> None:
    same = Document("same", "The same words again. " * 400)
    items, skipped = ada_leval.make_tsort([same], 420, words, n=5)
    assert not items
    assert skipped["equal segments"] > 0
    items, skipped = ada_leval.make_tsort([book("short", 3)], 4000, words, n=5)
    assert (items, skipped) == ([], {"text shorter than the level": 1})
    assert ada_leval.make_tsort([], 400, words)[0] == []
    with pytest.raises(ConfigError, match="n_segments"):
        ada_leval.make_tsort(BOOKS, 400, words, n_segments=1)


def test_tsort_orders_are_drawn_evenly_and_repeat_with_the_seed() -> None:
    long = book("long", 5000)
    items, _ = ada_leval.make_tsort([long], 200, words, n=240, seed=5)
    assert len(items) >= 200
    seen = Counter(tuple(item.answer) for item in items)
    expected = len(items) / 24
    chi_square = sum((seen[o] - expected) ** 2 / expected
                     for o in itertools.permutations((1, 2, 3, 4)))  # fmt: skip
    assert chi_square < 41.6  # p = 0.01 with 23 degrees of freedom
    again, _ = ada_leval.make_tsort([long], 200, words, n=10, seed=5)
    assert again == items[:10]
    assert len({item.index for item in items}) == len(items)


def thread(number: int, answers: int = 5) -> ada_leval.Thread:
    return ada_leval.Thread(
        f"q{number}",
        f"How does thing {number} work?",
        tuple(
            f"Thing {number} works by way {j}, " + "word " * (7 * j % 11) for j in range(answers)
        ),
        number % answers,
        (f"tag{number % 3}", "all"),
    )


THREADS = [thread(i) for i in range(60)]


@pytest.mark.parametrize("limit", [250, 400, 1500])
def test_bestanswer_items_fill_the_level_and_hold_the_accepted_answer(limit: int) -> None:
    items, skipped = ada_leval.make_bestanswer(THREADS, limit, words, n=30, seed=2)
    assert len(items) == 30
    assert not skipped
    owners = {answer: t for t in THREADS for answer in t.answers}
    for item in items:
        parts = item.parts()
        prompt = parts.prefix + parts.context + parts.query + parts.answer_prefix
        assert 0.98 * limit <= words(prompt) <= limit
        asked = next(t for t in THREADS if t.id == item.question_id)
        assert item.all_answers[int(item.answer[1:]) - 1] == asked.answers[asked.accepted]
        assert len(set(item.all_answers)) == len(item.all_answers)
        assert item.intra == sum(owners[a] is asked for a in item.all_answers) - 1
        assert item.index == f"{item.question_id}_{item.answer}"


def test_levels_are_nested_and_ask_the_same_questions() -> None:
    short, _ = ada_leval.make_bestanswer(THREADS, 300, words, n=20)
    long, _ = ada_leval.make_bestanswer(THREADS, 1200, words, n=20)
    assert [i.question_id for i in short] == [i.question_id for i in long]
    for a, b in zip(short, long, strict=True):
        # All but the last one, which was chosen to fill the level.
        kept = [answer for answer in b.all_answers if answer in set(a.all_answers)]
        assert len(kept) >= len(a.all_answers) - 1
        assert kept == [answer for answer in a.all_answers if answer in set(kept)]


def test_gold_stands_at_every_place_and_candidates_can_be_fixed() -> None:
    threads = [thread(i, 4) for i in range(160)]
    items, _ = ada_leval.make_bestanswer(threads, 10**9, len, n=160, candidates=8, seed=3)
    assert len(items) == 160
    assert {len(item.all_answers) for item in items} == {8}
    seen = Counter(item.answer for item in items)
    chi_square = sum((seen[f"A{i}"] - 20) ** 2 / 20 for i in range(1, 9))
    assert chi_square < 18.5  # p = 0.01 with 7 degrees of freedom


def test_the_share_of_own_distractors_is_kept() -> None:
    for intra, expected in ((0, 0), (1, 4), (0.5, 4)):
        items, _ = ada_leval.make_bestanswer(THREADS, 10**9, len, n=5, candidates=9, intra=intra)
        assert [item.intra for item in items] == [expected] * 5


def test_too_few_distractors_are_counted() -> None:
    alone = ada_leval.Thread("q", "Why?", ("Because.", "Since."), 0)
    items, skipped = ada_leval.make_bestanswer([alone], 500, words)
    assert (items, skipped) == ([], {"too few distractors for the level": 1})
    items, skipped = ada_leval.make_bestanswer([alone], 20, words)
    assert skipped == {"question and two answers longer than the level": 1}
    items, skipped = ada_leval.make_bestanswer([alone], 500, words, candidates=3)
    assert skipped == {"too few distractors that fit": 1}
    for bad in ({"intra": 1.5}, {"candidates": 1}):
        with pytest.raises(ConfigError):
            ada_leval.make_bestanswer([alone], 500, words, **bad)
    with pytest.raises(InputError, match="accepts number 2"):
        ada_leval.Thread("q", "Why?", ("a", "b"), 2)


@pytest.mark.parametrize("few", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_standard_library_threads_have_one_right_answer(
    few: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not few:
        monkeypatch.setattr(sources, "MODULES", ALL_MODULES)
        sources.standard_library.cache_clear()
    found = ada_leval.standard_library()
    if not few:
        sources.standard_library.cache_clear()
    assert len(found) > (150 if few else 1500)
    assert len({t.question for t in found}) > 0.95 * len(found)
    assert all(t.answers[t.accepted] not in t.answers[1:] for t in found)
    assert all(t.tags[1] == "python" for t in found)


def make(name: str, level: LengthLevel, n: int, **options: Any) -> list[Sample]:
    (task,) = find_tasks(f"ada-leval/{name}")
    return list(task.samples(level, n, size=words, **options))


@pytest.mark.parametrize("name", ["tsort", "bestanswer"])
def test_perfect_scores_1_and_guessing_stays_within_its_interval(name: str) -> None:
    (task,) = find_tasks(f"ada-leval/{name}")
    samples = make(name, LengthLevel("tokens", 400), 120, seed=4)
    perfect = [task.metric.score(s, Response(text=s.references[0])) for s in samples]
    assert [s["score"] for s in perfect] == [1.0] * len(samples)
    assert task.metric.aggregate(perfect)["score"] == 100.0
    assert task.metric.aggregate(perfect)["strict"] == 100.0
    draw = random.Random(0)
    scores = []
    for sample in samples:
        if name == "tsort":
            reply = json.dumps(draw.sample([1, 2, 3, 4], 4))
        else:
            reply = f"A{draw.randint(1, sample.meta['candidates'])}"
        scores.append(task.metric.score(sample, Response(text=reply)))
    baseline = ada_leval.chance(int(sum(s["score"] for s in scores)), [s["chance"] for s in scores])
    assert baseline.low <= sum(s["score"] for s in scores) / len(scores) <= baseline.high
    empty = [task.metric.score(s, Response(text="")) for s in samples]
    assert task.metric.aggregate(empty)["score"] == 0.0
    assert task.metric.aggregate(empty)["parsed"] == 0.0


@pytest.mark.parametrize("name", ["tsort_choice", "bestanswer_choice"])
def test_choices_hold_the_answer_once_and_none_begins_another(name: str) -> None:
    (task,) = find_tasks(f"ada-leval/{name}")
    for sample in make(name, LengthLevel("tokens", 400), 6):
        assert sample.choices.count(sample.references[0]) == 1
        assert not any(a != b and b.startswith(a) for a in sample.choices for b in sample.choices)
        right = tuple(float(c in sample.references) for c in sample.choices)
        assert task.metric.score(sample, Response(logprobs=right))["score"] == 1.0
        wrong = tuple(-score for score in right)
        assert task.metric.score(sample, Response(logprobs=wrong))["score"] == 0.0


def test_copies_crashes_and_chosen_labels_are_counted() -> None:
    (task,) = find_tasks("ada-leval/bestanswer")
    sample = make("bestanswer", LengthLevel("pairs", 9), 1)[0]
    scores = [task.metric.score(sample, Response(text=t)) for t in ("A4", "A1", "", "A4", "7")]
    assert [s["copied"] for s in scores] == [1.0, 0.0, 0.0, 1.0, 0.0]
    assert ada_leval.choices_by_position(scores) == {"???": 1, "A1": 1, "A4": 2, "A7": 1}
    (sort,) = find_tasks("ada-leval/tsort")
    item = make("tsort", LengthLevel("tokens", 400), 1)[0]
    copied = sort.metric.score(item, Response(text="Answer: [4, 1, 3, 2]"))
    assert (copied["copied"], copied["crashed"]) == (1.0, 0.0)
    assert sort.metric.score(item, Response(text="4132"))["crashed"] == 1.0


def test_samples_do_not_depend_on_n_and_a_level_in_pairs_counts_candidates() -> None:
    for name in ("tsort", "bestanswer"):
        level = LengthLevel("tokens", 500)
        assert make(name, level, 4) == make(name, level, 9)[:4]
    for sample in make("bestanswer", LengthLevel("pairs", 16), 5):
        assert sample.meta["candidates"] == 16


def test_a_level_that_nothing_reaches_says_why() -> None:
    with pytest.raises(InputError, match="text shorter than the level: 79"):
        make("tsort", LengthLevel("tokens", 10**7), 5)
    with pytest.raises(InputError, match="two answers longer"):
        make("bestanswer", LengthLevel("tokens", 30), 5)


def test_chance_against_the_binomial() -> None:
    from math import comb

    n, p, hits = 40, 1 / 24, 5
    tail = sum(comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(hits, n + 1))
    found = ada_leval.chance(hits, [p] * n)
    assert found.p_value == pytest.approx(tail)
    assert found.mean == pytest.approx(p)
    assert ada_leval.chance(0, [0.5, 0.25]).p_value == pytest.approx(1.0)
    assert ada_leval.chance(2, [0.5, 0.25]).p_value == pytest.approx(0.125)
    assert ada_leval.chance(1, [0.5, 0.25]).p_value == pytest.approx(0.625)
    for hits, chances in ((1, []), (3, [0.5]), (0, [1.5])):
        with pytest.raises(ConfigError):
            ada_leval.chance(hits, chances)


def test_orders_are_ranked_by_how_well_segments_follow_each_other() -> None:
    # Pieces 0 to 5 in the right order; a piece is likely after the one before it.
    pieces = [f"piece {i} says so" for i in range(6)]
    order = [3, 1, 4, 2]  # segment 3 comes first
    shown = [pieces[order.index(label) + 1] for label in range(1, 5)]

    def score(prompt: str, token: str) -> float:
        here = int(prompt.split()[-3]) if prompt.strip() else -1
        return 1.0 if token.strip() == str(here + 1) else 0.0

    model = ScriptedModel([], score=score)
    found = ada_leval.rank_orders(model, shown, before=pieces[0], after=pieces[5])
    assert found.order == order
    assert len(found.scores) == 24
    assert max(found.scores.values()) == 5.0
    assert sorted(found.scores.values())[-2] < 5.0
    bare = ada_leval.rank_orders(model, shown)
    assert bare.order == order
    for bad in (["one"], ["x"] * 8):
        with pytest.raises(ConfigError, match="2 to 7"):
            ada_leval.rank_orders(model, bad)
    with pytest.raises(ConfigError, match="head and tail"):
        ada_leval.rank_orders(model, shown, head=0)


RELEASE = '''
class StackSelect:
    def __init__(self):
        self.meta_prompt = """
Pick one. \\n
"""
    def build_prompt(self, line):
        prompt = self.meta_prompt
        prompt += 'Asked below.\\n'
        prompt += line['question'] + '\\n\\n'
        prompt += 'Answers below.\\n'
        prompt += """
Done, pick.
"""
        return prompt
'''


def test_released_files_are_read_with_the_released_wording_if_it_is_there(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    row = {"question_id": 7, "question": "Why?", "answer": "A2", "tags": ["x"],
           "all_answers": ["No.", "Yes."]}  # fmt: skip
    (data / "stackselect_1k.json").write_text(json.dumps([row]))
    sort = {"book_id": 3, "para_offset": [5, 9, 2, 7], "answer": "[2, 4, 1, 3]", "prompt": "Sort."}
    (data / "textsort_2k.json").write_text(json.dumps([sort, {**sort, "answer": [1, 2, 3, 4]}]))
    source = Source(kind="release", path=str(tmp_path))
    (own,) = make("bestanswer", LengthLevel("tokens", 1024), 5, source=source)
    assert (own.id, own.references, own.meta["candidates"]) == ("7_A2", ("A2",), 2)
    assert own.parts.context.startswith("[Question]")
    (tmp_path / "ada_leval").mkdir()
    (tmp_path / "ada_leval" / "dataset.py").write_text(RELEASE)
    (task,) = find_tasks("ada-leval/bestanswer")
    released = task.with_templates(str(tmp_path))
    assert released.spec.prompt_source == "reference"
    assert released.spec.prompt_fingerprint != task.spec.prompt_fingerprint
    (sample,) = released.samples(LengthLevel("tokens", 1024), 5, source=source)
    parts = sample.parts
    assert parts.prefix + parts.context + parts.query == (
        "\nPick one. \n\nAsked below.\nWhy?\n\nAnswers below.\nA1:\n\nNo.\n\nA2:\n\nYes.\n\n"
        "\nDone, pick.\n"
    )
    first, second = make("tsort", LengthLevel("tokens", 2048), 5, source=source)
    assert (first.id, first.references) == ("3_5_9_2_7", ("[2, 4, 1, 3]",))
    assert first.parts.context == "Sort."
    assert second.references == ("[1, 2, 3, 4]",)


def test_released_data_that_is_missing_or_broken(tmp_path: Path) -> None:
    for path in (None, "hub", str(tmp_path)):
        with pytest.raises(MissingData, match="evaluate make --task ada-leval/tsort"):
            make("tsort", LengthLevel("tokens", 2048), 1, source=Source(kind="release", path=path))
    file = tmp_path / "textsort_2k.json"
    source = Source(kind="release", path=str(tmp_path))
    for text, said in (
        ("[{}]", "item 1 lacks book_id"),
        ("{}", "list of items"),
        ("nonsense", "no JSON"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=said):
            make("tsort", LengthLevel("tokens", 2048), 1, source=source)
    (tmp_path / "ada_leval").mkdir()
    (tmp_path / "ada_leval" / "dataset.py").write_text("class StackSelect:\n    pass\n")
    with pytest.raises(InputError, match="does not hold the prompt"):
        reference(tmp_path)
    with pytest.raises(MissingData, match="open-compass/Ada-LEval"):
        reference(tmp_path / "elsewhere")


def sheet(path: Path, rows: list[list[str | int | None]]) -> None:
    """A minimal .xlsx: shared strings for text, as writers of tables make it."""
    strings: list[str] = []
    lines = []
    for number, row in enumerate(rows, 1):
        cells = ""
        for column, value in zip("ABCDEF", row, strict=False):
            if value is None:
                continue
            if isinstance(value, int):
                cells += f'<c r="{column}{number}"><v>{value}</v></c>'
            else:
                strings.append(value)
                cells += f'<c r="{column}{number}" t="s"><v>{len(strings) - 1}</v></c>'
        lines.append(f'<row r="{number}">{cells}</row>')
    ns = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    from xml.sax.saxutils import escape

    texts = "".join(f'<si><t xml:space="preserve">{escape(s)}</t></si>' for s in strings)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/sharedStrings.xml", f"<sst {ns}>{texts}</sst>")
        archive.writestr(
            "xl/worksheets/sheet1.xml",
            f"<worksheet {ns}><sheetData>{''.join(lines)}</sheetData></worksheet>",
        )


def test_tables_of_predictions_in_every_form_give_the_same_scores(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"index": "a", "answer": "A4", "num_choice": 12, "prediction": "Answer: A4"},
        {"index": "b", "answer": "A1", "num_choice": 12, "prediction": "A1 & <A12>"},
        {"index": "c", "answer": "A2", "num_choice": 5, "prediction": "line\none 2"},
        {"index": "d", "answer": "A3", "num_choice": 5, "prediction": ""},
    ]
    names = list(rows[0])
    table = [[None, *names]] + [
        [i, *(row[name] or None for name in names)] for i, row in enumerate(rows)
    ]
    sheet(tmp_path / "t.xlsx", table)
    (tmp_path / "t.json").write_text(json.dumps(rows))
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    import csv

    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    (task,) = find_tasks("ada-leval/bestanswer")
    for suffix in ("xlsx", "json", "jsonl", "csv"):
        found = list(task.read_predictions(tmp_path / f"t.{suffix}"))
        scores = [task.metric.score(p.sample, p.response) for p in found]
        assert [s["score"] for s in scores] == [1.0, 0.0, 1.0, 0.0]
        assert task.metric.aggregate(scores)["score"] == 50.0
        assert [p.response.text for p in found] == [row["prediction"] for row in rows]
    (sort,) = find_tasks("ada-leval/tsort")
    sheet(tmp_path / "s.xlsx", [["answer", "prediction"], ["[1, 2, 3, 4]", "[1, 2]"]])
    (read,) = sort.read_predictions(tmp_path / "s.xlsx")
    score = sort.metric.score(read.sample, read.response)
    assert (score["score"], score["strict"]) == (1.0, 0.0)


def test_tables_that_cannot_be_read(tmp_path: Path) -> None:
    (task,) = find_tasks("ada-leval/bestanswer")

    def refuse(name: str, text: str | bytes, said: str) -> None:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(InputError, match=said):
            list(task.read_predictions(path))

    refuse("t.pkl", b"\x80\x04", "pickle")
    refuse("t.txt", "A1", "ends in .xlsx")
    refuse("t.xlsx", b"PK", "not a readable")
    refuse("t.json", "{", "no JSON")
    refuse("t.json", "{}", "list of rows")
    refuse("t.json", "[]", "no predictions")
    refuse("t.json", '[{"answer": "A1", "prediction": "A1"}]', "row 1 lacks num_choice")
    refuse("t.json", '[{"answer": "A1", "prediction": "A1", "num_choice": "x"}]', "number")
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as archive:
        archive.writestr("xl/worksheets/sheet1.xml", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>')
    with pytest.raises(InputError, match="entities"):
        list(read_table(tmp_path / "t.xlsx", "bestanswer"))
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as archive:
        archive.writestr("other.xml", "<a/>")
    with pytest.raises(InputError, match="no sheet"):
        list(read_table(tmp_path / "t.xlsx", "bestanswer"))


def test_threads_are_read_from_json_lines(tmp_path: Path) -> None:
    file = tmp_path / "threads.jsonl"
    row = {"id": 1, "question": "Why?", "answers": ["a", "b"], "accepted": 1, "tags": ["x"]}
    file.write_text(json.dumps(row) + "\n\n" + json.dumps({**row, "id": 2}) + "\n")
    found = ada_leval.read_threads(file)
    assert [t.id for t in found] == ["1", "2"]
    for text, said in (
        (json.dumps({**row, "accepted": 5}), "line 1 is no thread"),
        ('{"id": 1}', "line 1 lacks 'question'"),
        ("[]", "no thread"),
        ("", "no threads"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=said):
            ada_leval.read_threads(file)
    with pytest.raises(InputError, match="no file"):
        ada_leval.read_threads(tmp_path)
