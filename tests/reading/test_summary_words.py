"""What is taken of a small model's summary: no circles, and nothing that the text does not say."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unspool.backends.scripted import ScriptedModel
from unspool.errors import ConfigError
from unspool.reading.summarize import default_settings, summarize
from unspool.reading.summary.quoted import central, hold, readable, unwrapped
from unspool.reading.summary.tidy import alike, loops, tidy
from unspool.reading.summary.workflow import SMALL, SummarySettings
from unspool.reading.terms import terms
from unspool.types import Document

SOURCE = (
    "NAME keeper\n\n"
    "The keeper of the tower lights the lamp at dusk every day. "
    "Ships that pass the tower steer by the lamp at night.\n\n"
    "+---+\n| x |\n+---+\n\n"
    "A log of the ships that pass is kept in the tower. "
    "The mayor reads the log of the tower once a month."
)


def words(text: str) -> int:
    return len(text.split())


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("One is here. Two is there.", "One is here. Two is there."),
        ("  One is here.\n\n- a list\n- of two  ", "One is here.\n\n- a list\n- of two"),
        ("One is here. One is here. One is here.", "One is here."),
        ("One is here. Two is there. One is", "One is here. Two is there."),
        ("no end", "no end"),
        ("", ""),
        ("A red house stands near rivers. A red house stands near rivers again. So.",
         "A red house stands near rivers. So."),
        ("天很冷。他在家。天很冷。", "天很冷。 他在家。"),
    ],
)  # fmt: skip
def test_what_is_said_twice_goes(said: str, kept: str) -> None:
    assert tidy(said) == kept


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["Ann is home.", "Bob left.", "It rains", "So?"]), max_size=8))
def test_tidying_twice_changes_nothing_and_adds_nothing(pieces: list[str]) -> None:
    said = " ".join(pieces)
    once = tidy(said)
    assert tidy(once) == once
    assert not set(once.split()) - set(said.split())


def test_circles_are_seen_the_third_time() -> None:
    turn = "the text is about the text and its "
    assert not loops(turn * 2)
    assert loops(turn * 3)
    assert not loops(" ".join(f"word{i}" for i in range(100)))
    assert not loops("")


@pytest.mark.parametrize(
    ("line", "reads"),
    [
        ("The keeper lights the lamp daily.", True),
        ('"The keeper lights the lamp daily."', True),
        ("lights the lamp daily at dusk.", False),
        ("Too short.", False),
        ("The keeper lights the lamp daily", False),
        ("| a | b | c | d | e | f.", False),
        ("Word " * 61 + "end.", False),
        ("There are many of these, e.g.", False),
    ],
)
def test_sentences_that_can_stand_in_a_summary(line: str, reads: bool) -> None:
    assert readable(line) == reads


def test_what_the_text_does_not_say_gives_way_to_its_own_sentences() -> None:
    said = "The keeper of the tower lights the lamp at noon. The moon is a big green cheese ball."
    held = hold(said, SOURCE, 0.6, 40, words)
    assert "moon" not in held.text
    assert "The keeper of the tower lights the lamp at noon." in held.text
    assert held.filled >= 1
    assert words(held.text) <= 40
    assert hold(said, SOURCE, 1.0, 40, words).text.count("noon") == 0
    nothing = hold("Made up from start to end.", "| a | b |\n\n| c | d |", 0.6, 40, words)
    assert nothing == ("", 0)


def test_filled_sentences_stand_in_the_order_of_the_text() -> None:
    held = hold("", SOURCE, 0.6, 200, words)
    assert held.filled == 4
    assert held.text == " ".join(
        line for part in SOURCE.split("\n\n") if part[0] in "TA" for line in [part]
    )


@settings(max_examples=40, deadline=None)
@given(st.text(st.sampled_from("Aab .\n|"), max_size=200), st.integers(1, 30))
def test_the_limit_is_kept(said: str, limit: int) -> None:
    assert words(hold(said, SOURCE + "\n" + said, 0.5, limit, words).text) <= limit


def test_central_sentences_equal_the_definition() -> None:
    lines = [
        "The lamp of the tower is lit.",
        "The tower of the town holds a lamp and a log.",
        "Ships steer by the lamp.",
        "Cheese ripens slowly in cellars.",
        "A log of ships is kept in the tower.",
    ]
    bags = [Counter(terms(line)) for line in lines]
    idf = {w: math.log(len(lines) / sum(w in b for b in bags)) for b in bags for w in b}

    def cosine(a: Counter[str], b: Counter[str]) -> float:
        dot = sum(a[w] * b[w] * idf[w] ** 2 for w in a)
        norms = [math.sqrt(sum((x[w] * idf[w]) ** 2 for w in x)) for x in (a, b)]
        return dot / (norms[0] * norms[1])

    n = len(lines)
    early = [1 / math.sqrt(i + 1) for i in range(n)]
    early = [each / sum(early) for each in early]
    weight = list(early)
    for _ in range(200):
        new = [0.3 * each for each in early]
        for i in range(n):
            row = [cosine(bags[i], bags[j]) if i != j else 0.0 for j in range(n)]
            total = sum(row)
            for j in range(n):
                new[j] += 0.7 * weight[i] * (row[j] / total if total > 1e-6 else 1 / n)
        weight = new
    short = [len(line.split()) < 9 for line in lines]
    assert short == [True, False, True, True, False]
    assert central(lines) == sorted(range(n), key=lambda i: (short[i], -weight[i]))
    assert central([]) == []
    assert central(["same words here"] * 3) == [0, 1, 2]


def test_sentences_are_alike_by_their_content_words() -> None:
    assert alike(frozenset("abcd"), frozenset("abcd"))
    assert alike(frozenset("abcd"), frozenset("abcde"))
    assert not alike(frozenset("abcd"), frozenset("abef"))
    assert not alike(frozenset("ab"), frozenset("abc"))
    assert not alike(frozenset(), frozenset())


def test_a_model_that_goes_in_circles_still_gives_a_summary() -> None:
    documents = [Document("tower", "\n\n".join([SOURCE] * 1))]
    model = ScriptedModel(lambda prompt: "The text says. " * 20, window=2000)
    asked = SummarySettings(**{**SMALL, "chunk_size": 40, "max_summary": 40})
    made = summarize(documents=documents, model=model, settings=asked, evidence=False)
    assert made.invalid == 0
    assert made.filled
    assert "The text says" not in made.text
    assert all(line in " ".join(SOURCE.split()) for line in made.text.split(". ")[:-1])
    free = summarize(documents=documents, model=model, chunk_size=400, evidence=False)
    assert free.text == "The text says."


def test_settings_follow_the_size_of_the_model() -> None:
    class Sized(ScriptedModel):
        def __init__(self, size: int) -> None:
            super().__init__([])
            self.model = type("Inner", (), {"num_parameters": lambda self: size})()

    assert default_settings(Sized(135_000_000)) == SummarySettings(**SMALL)
    assert default_settings(Sized(7_000_000_000)) == SummarySettings()
    assert default_settings(ScriptedModel([])) == SummarySettings()
    with pytest.raises(ConfigError, match=r"quoted must be in 0-1, got 1\.5"):
        SummarySettings(quoted=1.5)


def test_indented_paragraphs_are_joined_and_nothing_else() -> None:
    page = (
        "NAME\n"
        "       The keeper of the tower is the one who lights the old\n"
        "       lamp, and who keeps the log of the ships in the tow\u2010\n"
        "       er.\n"
        "\n"
        "       - an item that is as long as any other line of this page\n"
        "       - another item\n"
        "         deeper\n"
    )
    assert unwrapped(page).splitlines() == [
        "NAME",
        "       The keeper of the tower is the one who lights the old lamp, and who keeps the log "
        "of the ships in the tower.",
        "",
        "       - an item that is as long as any other line of this page",
        "       - another item",
        "         deeper",
    ]
    flat = "One line that is long enough to have been broken here\nand another one.\n"
    assert unwrapped(flat).rstrip() == flat.rstrip()  # the sentence rules join these
    assert unwrapped("") == ""
