"""L-Eval: what is taken out of answers, scores, prompts, documents cut by words, judged pairs."""

# ruff: noqa: RUF001 - confusable characters are the point

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claims._hard_texts import text as hard_text
from unspool.errors import BackendError, ConfigError, InputError, MissingData, OverflowPolicyError
from unspool.evaluation.spec import LengthLevel, Parts, Response, Room, Sample, Source
from unspool.evaluation.tasks import find_tasks, task
from unspool.evaluation.tasks import l_eval as le
from unspool.evaluation.tasks.l_eval import extract, facts, prompts
from unspool.types import Generation, Prompt, Usage


def words(text: str) -> int:
    return len(text.split())


# ------------------------------------------------------------------------------------ facts


def test_there_are_20_sub_tasks_and_3_judged_subsets() -> None:
    assert len(facts.TASKS) == 20
    assert len(find_tasks("l-eval")) == 23
    assert len(find_tasks("l-eval/closed")) == 7
    assert len(find_tasks("l-eval/judged")) == 3
    assert [t.spec.name for t in find_tasks("l-eval-twin")] == [
        "l-eval-twin/summary",
        "l-eval-twin/topic_retrieval",
    ]
    for each in find_tasks("l-eval,l-eval-twin"):
        assert task(each.spec.name) is each
        assert each.metric.id == each.spec.metric


# ------------------------------------------------------------------------------- extraction

# answer, one letter only, several letters
LETTERS = [
    ("A", "A", "A"),
    ("AB", "AB", "AB"),  # a piece of "ABCD" is taken as it is
    ("BA", "B", "AB"),
    ("BD", "B", "BD"),
    ("ABCD", "ABCD", "ABCD"),
    ("", "None", "None"),
    ("  \n", "None", "None"),
    ("a", "A", "A"),
    ("E", "A", "A"),
    ("The answer is B.", "B", "B"),
    ("B.", "B", "B"),
    ("B) because", "B", "B"),
    ("A, B", "A", "A"),  # nothing follows the B, so it is not seen
    ("A, B.", "A", "AB"),
    ("C and A ", "C", "AC"),
    ("CA", "C", "AC"),
    ("AAB", "A", "AB"),
    ("A.", "A", "A"),
    ("Answer: D", "A", "A"),  # the first letter of "Answer"
    ("Because", "B", "B"),
    ("(B)", "B", "B"),
    ("(B) (D)", "B", "BD"),
    ("I think C.", "C", "C"),
    ("x BD y", "B", "D"),  # only a capital before a blank counts, and that is the D
    ("xBADx", "B", "BAD"),  # a run in the middle stays as it is
    ("no capital at all", "A", "A"),
    ("A Question B.", "A", "A"),
    ("Question 1. B.", "B", "A"),
    ("E. F. G.", "A", "A"),
    ("Z. B.", "B", "B"),
    ("选择B。", "B", "B"),
    ("Ｂ", "A", "A"),
    ("None of the above", "A", "A"),
    ("D\nC", "D", "D"),
]


@pytest.mark.parametrize(("answer", "one", "several"), LETTERS)
def test_letters(answer: str, one: str, several: str) -> None:
    assert extract.letters(answer, several=False) == one
    assert extract.letters(answer, several=True) == several


def walked_letters(response: str, several: bool) -> str:
    """The release's walk, spelt out by index with a copy that is shortened as it is walked."""
    if not response.strip():
        return "None"
    if "ABCD".find(response) >= 0:
        return response
    if not several:
        for character in response:
            if "A" <= character <= "D":
                return character
    head, tail = "", response
    for character in response:
        if not "A" <= character <= "D":
            break
        head, tail = head + character, tail[1:]
    if len(head) > 1:
        return "".join(sorted(set(head)))
    tail = tail.partition("Question")[0]
    seen = set(head)
    for here, after in pairwise(tail):
        if "A" <= here <= "D" and (after.isspace() or after in ".)"):
            seen.add(here)
    if seen:
        return "".join(sorted(seen))
    match = re.search("[A-D]+", tail)
    return match[0] if match else "A"


@settings(max_examples=300, deadline=None)
@given(st.text("ABCDEQuestion .)\n,ab", max_size=14), st.booleans())
def test_letters_equal_a_walk_by_index(answer: str, several: bool) -> None:
    assert extract.letters(answer, several=several) == walked_letters(answer, several)


NUMBERS = [
    ("The answer is 42", "42"),
    ("The answer is 42.", "42"),
    ("The answer is 42.5", "42"),
    ("The answer is $1,234", "1234"),
    ("The answer is .5", ""),
    ("The answer is -3", "3"),
    ("The answer is five", ""),
    ("The answer is 1. The answer is 2.", "1"),
    ("the answer is 42", "42"),
    ("it is 42 apples", "42"),
    ("it is 4 or 5", "5"),
    ("a 7\n\nb 8", "7"),
    ("a\n\nb 8", ""),
    ("12\n13", "1213"),  # one word, as only blanks part words
    ("", ""),
    ("x1y2.z3", "12"),
    ("The answer is\n9", "9"),
    ("The answer is  9", "9"),
    ("50%", "50"),
    ("1/2", "12"),
    ("3 1.5.2", "1"),
    ("２", "２"),
    ("²", "²"),  # a digit to Python, though not a decimal
    ("½", ""),
    ("no number", ""),
    ("The answer isn't 3", "3"),
    ("So 10 = 5 + 5.", "5"),
    ("\t8", "8"),
    ("a b 1a", "1"),
    ("The answer is 0", "0"),
]


@pytest.mark.parametrize(("answer", "wanted"), NUMBERS)
def test_number(answer: str, wanted: str) -> None:
    assert extract.number(answer) == wanted


CODE = [
    ("[1, 2]", "[1, 2]", "[1 2]"),
    ("[ [1.0, 2.0] ]", "[[1, 2]]", "[[1 2]]"),
    ("the final output is [1 2]", "[1 2]", " [1 2]"),
    ("x the final output y", "1", " y"),
    ("a b c d e f", "1", "c d e f"),
    ("The result will be 5", "5", "The result  5".replace("  ", " ")),
    ("this", "1", "th"),
    ("'a'", "a", "a"),
    ("a\\nb", "x", "anb"),
    ("10.05", "1", "105"),
    ("", "1", ""),
    ("one\ntwo\tthree", "a b", "one two three"),
    ("the final output: 1 the final output: 2", "2", ": 2"),
    ("would be the value of printed", "1", " "),
]


@pytest.mark.parametrize(("answer", "gold", "wanted"), CODE)
def test_code_answer(answer: str, gold: str, wanted: str) -> None:
    assert extract.code_answer(answer, gold) == wanted


HALVES = [
    ("True [fact: False]", ("true", "false")),
    ("it is true. [fact: it is false, not true]", ("true", "false")),
    ("untrue [fact: x]", ("true", extract.ERROR)),
    ("yes [fact: no]", (extract.ERROR, extract.ERROR)),
    ("True", ("true", extract.ERROR)),
    ("", (extract.ERROR, extract.ERROR)),
    ("FALSE[FACT: TRUE]", ("false", "true")),
    ("false [fact: true", ("false", extract.ERROR)),  # the last character goes, bracket or not
    ("a [fact: true] [fact: false]", (extract.ERROR, "true")),
]


@pytest.mark.parametrize(("answer", "wanted"), HALVES)
def test_true_or_false(answer: str, wanted: tuple[str, str]) -> None:
    assert extract.halves(answer) == wanted


def test_references_that_cannot_be_read_are_quoted() -> None:
    assert extract.letters_of_reference("B. because A") == "B"
    assert extract.letters_of_reference("1) x") == "A"
    assert extract.halves_of_reference("True [fact: False]") == ("true", "false")
    with pytest.raises(InputError, match="blank"):
        extract.letters_of_reference(" ")
    with pytest.raises(InputError, match="got 'True'"):
        extract.halves_of_reference("True")


# ----------------------------------------------------------------------------------- scores

MATCHES = [
    ("A", "A", 1),
    ("B", "A", 0),
    ("AB", "AB", 1),
    ("A", "AB", 0.25),
    ("BA", "AB", 0.25),  # the same letters in another order
    ("", "AB", 0.25),
    ("AC", "AB", 0),
    ("b", "B", 0),  # case is kept
    ("a", "A", 0.25),  # and a small a is an article, so nothing is left of it
    ("A.", "A", 1),
    ("", "", 1),
    ("x", "", 0),
    ("A", "the", 0),
    ("", "the", 1),
    ("5", "5.0", 1),
    ("5", "6", 0),
    ("1e1", "10", 1),
    ("nan", "nan", 0),
    ("1_000", "1000", 1),
    ("five", "5", 0),
    ("it is 5", "5", 1),
    ("15", "5", 0),
    ("15 apples", "5", 1),  # a gold of one character stands in many answers
    ("New York", "newyork", 1),
    ("in NEW york city", "New York", 1),
    ("York", "New York", 0),
    ("The role of art", "the role of art", 1),
    ("new\nyork", "new york", 0),  # only blanks are deleted
    ("中国人民", "中国", 1),
    ("true", "true", 1),
    (extract.ERROR, "true", 0),
    ("ABCDE", "E", 1),
    ("É", "é", 1),
    ("[1 2]", "[1 2]", 1),
]


@pytest.mark.parametrize(("prediction", "gold", "wanted"), MATCHES)
def test_exact_match(prediction: str, gold: str, wanted: int | float) -> None:
    assert le.exact_match(prediction, gold) == wanted


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def line(gold: object, answer: str, evaluation: str = "exam", **more: object) -> dict[str, Any]:
    return {"query": "q", "gt": gold, "model_pred": answer, "evaluation": evaluation, **more}


def test_release_files_by_name(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "coursera.pred.jsonl", [line("AB", "A"), line("B", "B. yes"), line("C", "D")]
    )
    assert le.score_file(path) == {"score": round(100 * 1.25 / 3, 4)}
    path = write_lines(tmp_path / "gsm100.pred.jsonl", [line("The answer is 5", "so 5")])
    assert le.score_file(path) == {"score": 100.0}
    path = write_lines(tmp_path / "codeU.pred.jsonl", [line("[1, 2]", "it is [1, 2]")])
    assert le.score_file(path) == {"score": 100.0}


def test_topics_are_grouped_by_their_place_in_the_file(tmp_path: Path) -> None:
    rows = [line("art", a) for a in ("art", "no", "no", "art", "art", "no", "no")]
    found = le.score_file(write_lines(tmp_path / "topic_retrieval_longchat.jsonl", rows))
    assert found["topic1"] == round(200 / 3, 4)
    assert (found["topic2"], found["topic3"]) == (50.0, 0.0)
    assert found["score"] == (found["topic1"] + 50.0) / 3


def test_sci_fi_is_loyalty_and_fact(tmp_path: Path) -> None:
    rows = [
        line("True [fact: False]", "True [fact: True]"),
        line("True [fact: False]", "False [fact: False]"),
        line("True [fact: False]", "True [fact: False]"),
    ]
    found = le.score_file(write_lines(tmp_path / "sci_fi.pred.jsonl", rows))
    assert found == {"score": 66.6667, "loyalty": 66.6667, "fact": 66.6667}


def test_rouge_is_the_geometric_mean_of_means(tmp_path: Path) -> None:
    rows = [line("a b c d", "a b c d", "rouge"), line("a b c d", "d c b a", "rouge")]
    found = le.score_file(write_lines(tmp_path / "gov_report_summ.pred.jsonl", rows))
    assert (found["rouge1"], found["rouge2"], found["rougeL"]) == (100.0, 50.0, 62.5)
    assert found["score"] == round((100 * 50 * 62.5) ** (1 / 3), 4)
    assert (found["words"], found["reference_words"]) == (4.0, 4.0)


def test_unknown_names_are_scored_by_what_their_lines_say(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "mine.jsonl", [line("a cat", "cat", "f1")])
    assert le.score_file(path)["score"] == 100.0
    with pytest.raises(InputError, match="names no sub-task"):
        le.score_file(write_lines(tmp_path / "other.jsonl", [line("a", "a")]))
    with pytest.raises(ConfigError, match="no sub-task 'x'"):
        le.score_file(path, "x")


def test_bad_prediction_files(tmp_path: Path) -> None:
    def score(*rows: dict[str, Any]) -> dict[str, float]:
        return le.score_file(write_lines(tmp_path / "financial_qa.jsonl", rows))

    with pytest.raises(InputError, match=r"Line 2 .* 'rouge' and the lines before it as 'f1'"):
        score(line("a", "a", "f1"), line("a", "a", "rouge"))
    assert score(line("a", "b", "LLM"), line("cat", "cat", "f1"))["score"] == 100.0
    with pytest.raises(InputError, match="scored by a program"):
        score(line("a", "b", "human"))
    with pytest.raises(InputError, match="'_pred'"):
        score({"query": "q", "gt": "a", "evaluation": "f1"})
    with pytest.raises(InputError, match="no field 'gt'"):
        score({"query": "q", "model_pred": "a", "evaluation": "f1"})
    with pytest.raises(InputError, match="holds no predictions"):
        score()


# -------------------------------------------------------------------------- data and prompts

DOCUMENT = {
    "input": "one two three",
    "instructions": ["What is it based on the world described in the document.", "Why?"],
    "outputs": ["True [fact: False]", "a b c"],
    "source": "x",
    "evaluation": "exam",
}


def load(tmp_path: Path, name: str, *documents: dict[str, Any]) -> list[Sample]:
    folder = tmp_path / "LEval-data" / f"{facts.TASKS[name].group.capitalize()}-ended-tasks"
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder / f"{name}.jsonl", documents)
    source = Source(kind="release", path=str(tmp_path))
    return list(le.TASKS[name].samples(None, 99, source=source))


def test_one_sample_a_question_and_two_for_science_fiction(tmp_path: Path) -> None:
    twice = {**DOCUMENT, "outputs": ["True [fact: False]", "False [fact: True]"]}
    samples = load(tmp_path, "sci_fi", twice)
    assert [s.meta["part"] for s in samples] == ["loyalty", "fact", "loyalty", "fact"]
    assert len({s.id for s in samples}) == 4
    assert samples[0].parts.context == "one two three"
    fact = samples[1].parts
    assert fact.context == ""
    assert prompts.BY_DOCUMENT not in fact.query
    assert "real world" in fact.query
    metric = le.TASKS["sci_fi"].metric
    scores = [metric.score(s, Response(text="true")) for s in samples]
    assert metric.aggregate(scores) == {"score": 50.0, "loyalty": 50.0, "fact": 50.0}


def test_open_tasks_are_told_the_length_of_this_question_s_reference(tmp_path: Path) -> None:
    row = {**DOCUMENT, "evaluation": "f1"}
    samples = load(tmp_path, "financial_qa", row)
    assert "about 3 words" in samples[0].parts.query  # True [fact: False]
    assert "about 3 words" in samples[1].parts.query
    source = Source(kind="release", path=str(tmp_path))
    silent = le.make_task("financial_qa").without_length_instruction()
    assert "words" not in next(iter(silent.samples(None, 1, source=source))).parts.query
    closed = load(tmp_path, "quality", DOCUMENT)
    assert "words" not in closed[0].parts.query


def test_documents_are_chosen_by_their_evaluation(tmp_path: Path) -> None:
    rows = [{**DOCUMENT, "evaluation": kind} for kind in ("f1", "LLM", "human")]
    assert len(load(tmp_path, "financial_qa", *rows)) == 2
    for name, facts_of in facts.TASKS.items():
        if facts_of.group == "open" and name != "financial_qa":
            load(tmp_path, name, rows[0])
    source = Source(kind="release", path=str(tmp_path))
    for subset, wanted in (("judge", 2), ("human", 2), ("cheap-judge", 4)):
        found = list(le.TASKS[f"{subset}-subset"].samples(None, 99, source=source))
        assert len(found) == wanted


def test_system_sentences_differ_where_the_release_s_do() -> None:
    found = {name: prompts.system(name) for name in facts.TASKS}
    assert len(set(found.values())) == 7
    assert found["quality"] == found["tpo"]
    assert "The answer is" in found["gsm100"]
    assert "I would like to discuss the topic of" in found["topic_retrieval_longchat"]


def test_missing_data_says_where_it_is() -> None:
    with pytest.raises(MissingData, match=r"Closed-ended-tasks/tpo\.jsonl of github:OpenLMLab"):
        list(le.TASKS["tpo"].samples(None, 1))


def test_the_pinned_commit_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    import urllib.request

    asked: list[str] = []

    def answer(address: str, timeout: float) -> io.BytesIO:
        asked.append(address)
        return io.BytesIO(json.dumps(DOCUMENT).encode() + b"\n")

    monkeypatch.setenv("UNSPOOL_DATA", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", answer)
    source = Source(kind="release", path="hub")
    for _ in range(2):
        assert len(list(le.TASKS["tpo"].samples(None, 9, source=source))) == 2
    assert asked == [
        "https://raw.githubusercontent.com/OpenLMLab/LEval/"
        f"{facts.REVISION}/LEval-data/Closed-ended-tasks/tpo.jsonl"
    ]

    def refuse(address: str, timeout: float) -> io.BytesIO:
        raise OSError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(BackendError, match=r"no route to host\. Download it"):
        list(le.TASKS["quality"].samples(None, 9, source=source))


@pytest.mark.parametrize(("name", "kept"), [("quality", "w0 w1"), ("codeU", "w1998 w1999")])
def test_documents_lose_words_250_at_a_time(tmp_path: Path, name: str, kept: str) -> None:
    document = " ".join(f"w{i}" for i in range(2000))
    [first, _] = load(tmp_path, name, {**DOCUMENT, "input": document})
    whole = words(first.parts.prefix + document + first.parts.query)
    request = le.TASKS[name].build(first, Room(1000, words))
    size = words(str(request.prompt))
    assert 750 <= size <= 1000
    assert request.dropped_tokens == whole - size
    assert kept in str(request.prompt)
    assert str(request.prompt).endswith(first.parts.query)
    untouched = le.TASKS[name].build(first, Room(None))
    assert untouched.dropped_tokens == 0
    assert document in str(untouched.prompt)
    assert untouched.system == prompts.system(name)


def test_a_window_smaller_than_the_question_is_refused(tmp_path: Path) -> None:
    [first, _] = load(tmp_path, "quality", {**DOCUMENT, "input": "w " * 2000})
    with pytest.raises(OverflowPolicyError, match="no room for its document"):
        le.TASKS["quality"].build(first, Room(5, words))


# ------------------------------------------------------------------------------------ twins


def test_topics_can_be_found_by_a_program() -> None:
    level = LengthLevel("words", 800)
    twin = le.TWIN_TASKS["topic_retrieval"]
    scores = []
    for sample in twin.samples(level, 9, seed=2, size=words):
        prompt = str(twin.build(sample).prompt)
        assert 500 < words(prompt) <= 800
        topics = re.findall(r"discuss the topic of (.+)\.$", prompt, flags=re.M)
        place = ["first", "second", "third"].index(
            re.findall(r"What is the (\w+) topic", prompt)[0]
        )
        scores.append(twin.metric.score(sample, Response(text=f"It is {topics[place]}.")))
    found = twin.metric.aggregate(scores)
    assert found == {"score": 100.0, "topic1": 100.0, "topic2": 100.0, "topic3": 100.0}


def test_summaries_state_the_length_of_their_reference() -> None:
    level = LengthLevel("words", 600)
    twin = le.TWIN_TASKS["summary"]
    for sample in twin.samples(level, 4, seed=2, size=words):
        stated = int(re.findall(r"about (\d+) words", sample.parts.query)[0])
        assert stated == words(sample.references[0])
        assert all(s in sample.parts.context for s in sample.references[0].split(". ")[:1])
        assert twin.metric.score(sample, Response(text=sample.references[0]))["score"] == 1.0
    with pytest.raises(InputError, match="do not fit"):
        next(iter(twin.samples(LengthLevel("words", 20), 1, size=words)))
    with pytest.raises(InputError, match="do not fill"):
        next(iter(twin.samples(LengthLevel("words", 10**7), 1, size=words)))


# ------------------------------------------------------------------------------------ judge


class Judge:
    """A judging model that follows a rule."""

    name = "judge"
    tokenizer = None
    window = None

    def __init__(self, rule: Any) -> None:
        self.rule = rule
        self.calls = 0

    def generate(self, prompts: Sequence[Prompt], **_: Any) -> list[Generation]:
        self.calls += len(prompts)
        found = []
        for messages in prompts:
            text = messages[1]["content"]  # type: ignore[index] # always messages here
            first = text.split("[Answer of A]\n")[1].split("\n[End of A]")[0]
            second = text.split("[Answer of B]\n")[1].split("\n[End of B]")[0]
            found.append(Generation(self.rule(first, second), "stop", Usage()))
        return found

    def logprobs(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


def some_pairs(n: int, seed: int = 0) -> list[le.Pair]:
    draw = random.Random(seed)
    return [
        le.Pair(f"q{i}", "ref", f"x{i} " * draw.randint(1, 9), f"y{i} " * draw.randint(1, 9))
        for i in range(n)
    ]


def test_a_judge_who_always_says_a_gives_everyone_half() -> None:
    found = le.judge(some_pairs(20), Judge(lambda a, b: "so: [[A]]"))
    assert found.win_rate == 0.5
    assert found.first_place == 1.0
    assert (found.pairs, found.wins, found.losses) == (20, 20, 20)
    once = le.judge(some_pairs(20), Judge(lambda a, b: "[[A]]"), swap=False)
    assert once.win_rate == 1.0


def test_a_judge_who_likes_length_is_exposed() -> None:
    def longer(a: str, b: str) -> str:
        return "[[A]]" if len(a) > len(b) else "[[B]]"

    found = le.judge(some_pairs(40), Judge(longer))
    assert found.longer_wins == 1.0
    assert found.length_biased
    assert found.to_json()["length_biased"] is True

    def fair(a: str, b: str) -> str:
        return "[[A]]" if a.startswith("x") else "[[B]]"

    honest = le.judge(some_pairs(40), Judge(fair))
    assert honest.win_rate == 1.0
    assert not honest.length_biased


def test_ties_count_half_and_errors_not_at_all() -> None:
    said = iter(["[[A]]", "[[C]]", "what?", "[[A]] or [[B]]"])
    found = le.judge(some_pairs(2), Judge(lambda a, b: next(said)))
    # first pair: win, tie; second pair: error, then A with the answers exchanged: a loss
    assert (found.wins, found.losses, found.ties, found.errors) == (1, 1, 1, 1)
    assert found.win_rate == 1.5 / 3
    silent = le.judge(some_pairs(1), Judge(lambda a, b: ""))
    assert silent.win_rate is None
    assert silent.longer_interval is None


def test_paid_verdicts_are_not_asked_again(tmp_path: Path) -> None:
    out = tmp_path / "verdicts.jsonl"
    first = Judge(lambda a, b: "[[A]]")
    le.judge(some_pairs(5), first, out=out)
    again = Judge(lambda a, b: "[[B]]")
    found = le.judge(some_pairs(7), again, out=out)
    assert (first.calls, again.calls) == (10, 4)
    assert found.pairs == 7


def test_pairs_of_two_files(tmp_path: Path) -> None:
    ours = [{"query": f"q{i}", "gt": "g", "me_pred": f"a{i}", "evaluation": "LLM"} for i in "123"]
    theirs = [
        {"query": f"q{i}", "gt": "g", "old_pred": "", "it_pred": f"b{i}", "evaluation": "LLM"}
        for i in "234"
    ]
    a = write_lines(tmp_path / "a.jsonl", ours)
    b = write_lines(tmp_path / "b.jsonl", theirs)
    pairs, unmatched = le.read_pairs(a, b)
    assert [(p.answer, p.opponent) for p in pairs] == [("a2", "b2"), ("a3", "b3")]
    assert unmatched == 2
    with pytest.raises(InputError, match="nothing to judge"):
        le.judge([], Judge(lambda a, b: ""))
    with pytest.raises(InputError, match="'_pred'"):
        le.read_pairs(write_lines(tmp_path / "c.jsonl", [{"query": "q", "gt": "g"}]), b)
    with pytest.raises(InputError, match="lacks 'query'"):
        le.read_pairs(write_lines(tmp_path / "c.jsonl", [{"me_pred": "q"}]), b)


def test_scores_of_hard_texts_are_in_range() -> None:
    draw = random.Random(9)
    for name in facts.TASKS:
        metric = le.LEvalMetric.of(name)
        gold = "True [fact: False]" if name == "sci_fi" else "A cat 5"
        sample = Sample(id="1", parts=Parts(), references=(gold,), meta={"index": 0})
        scores = [metric.score(sample, Response(text=hard_text(draw, 20))) for _ in range(50)]
        assert all(0 <= each["score"] <= 1 for each in scores)
        assert 0 <= metric.aggregate(scores)["score"] <= 100
