"""Summaries: chunks lose nothing, the workflows follow hand-computed tables, runs go on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unspool.backends.scripted import ScriptedModel
from unspool.errors import BackendError, ConfigError, InputError, RunConflict
from unspool.reading.summarize import plan_summary, summarize
from unspool.reading.summary import incremental
from unspool.reading.summary.chunk import chunk
from unspool.reading.summary.hierarchical import estimate_levels
from unspool.reading.summary.prompts import fill
from unspool.reading.summary.workflow import SummarySettings, Tools
from unspool.types import Document

TEXT = "\n".join(f"On day {i} the keeper of the tower saw {i} ships go by." for i in range(60))
DOCS = [Document("log.txt", TEXT)]


def words(text: str) -> int:
    return len(text.split())


def first_words(prompt: str) -> str:
    held = re.search(r"---\n(.*?)\n---", prompt, re.DOTALL)
    assert held
    return " ".join(held[1].split()[:12]).rstrip(".") + "."


@settings(max_examples=80, deadline=None)
@given(st.text(st.sampled_from("ab .?!,\"'\n"), max_size=300), st.integers(1, 12), st.booleans())
def test_chunks_lose_nothing_but_newlines(text: str, size: int, divide: bool) -> None:
    found = chunk(text, size, words, divide=divide)
    assert "".join(found).replace("\n", "") == text.replace("\n", "")
    if divide:
        assert all(words(each) <= size for each in found)


def test_chunks_by_hand() -> None:
    assert chunk("a b\nc d\n\ne", 4, words) == ["a b\nc d", "e"]
    assert chunk("a b c. d e f. g h i. j", 7, words) == ["a b c. d e f.", " g h i. j"]
    assert chunk("a b, c d, e f", 3, words)[0] == "a b,"
    assert chunk("", 5, words) == []
    assert chunk("one two three four", 2, words) == ["one two three four"]
    assert chunk("one two three four", 2, words, divide=True) == ["one two ", "three four"]
    with pytest.raises(ConfigError, match="size=0"):
        chunk("a", 0, words)


@pytest.mark.parametrize(
    ("chunks", "window", "levels", "limits"),
    [(40, 8192, 2, (585, 900)), (1, 8192, 0, (900,)), (3, 8192, 1, (900,)),
     (400, 8192, 3, (380, 585, 900))],
)  # fmt: skip
def test_levels_by_hand(chunks: int, window: int, levels: int, limits: tuple[int, ...]) -> None:
    assert estimate_levels(chunks, 2048, window, 100, 900, 0.65) == (levels, limits)


def test_a_window_that_cannot_merge_is_refused_with_the_least() -> None:
    with pytest.raises(ConfigError, match="at least 4,216"):
        estimate_levels(2, 2048, 4000, 100, 900, 0.65)
    with pytest.raises(ConfigError, match="needs a window of at least"):
        summarize(documents=DOCS, model=ScriptedModel(first_words, window=300), chunk_size=100)


@pytest.mark.parametrize("workflow", ["hierarchical", "incremental"])
def test_valid_answers_take_one_call_a_chunk_and_one_a_merge(workflow: str) -> None:
    model = ScriptedModel(first_words, window=2000)
    made = summarize(documents=DOCS, model=model, workflow=workflow, chunk_size=100, max_summary=80)
    merges = sum(node.level > 0 for node in made.tree)
    assert made.calls == len(model.prompts) == len(made.chunks) + merges
    assert (merges == 0) == (workflow == "incremental")
    assert made.invalid == made.usage.dropped_tokens == 0
    read = "".join(model.prompts)
    assert all(each in read for each in made.chunks)
    spans = [p.span for s in made.sentences for p in s.evidence]
    assert spans
    assert all(TEXT.encode()[s.start : s.end].decode() == s.text for s in spans)
    plan = plan_summary(
        documents=DOCS, model=model, workflow=workflow, chunk_size=100, max_summary=80
    )
    assert plan.chunks == len(made.chunks)
    assert plan.calls >= made.calls


def test_invalid_answers_are_asked_for_six_times_more() -> None:
    model = ScriptedModel(lambda prompt: "no end", window=2000)
    made = summarize(documents=[Document("a", "One. Two.")], model=model, evidence=False)
    assert (made.calls, made.invalid, made.text) == (7, 1, "no end")
    limits = [int(re.findall(r"at most (\d+) words", prompt)[0]) for prompt in model.prompts]
    assert limits == [585, 585, 526, 421, 295, 177, 88]


def test_a_bad_update_is_made_again_from_a_shorter_summary() -> None:
    asked: list[str] = []
    answers = iter(["a b c d.", "no end", "x y z w.", "good update."])

    def ask(prompt: str, limit: int, temperature: float | int) -> str:
        asked.append(prompt)
        return next(answers)

    # 2 chunks, budget int(16 * 0.65) = 10 words: after one of them 5, give or take one.
    tools = Tools(ask, words, 1000)
    made = incremental.summarise(
        ["one", "two"], SummarySettings(workflow="incremental", max_summary=16), tools
    )
    assert [node.text for node in made] == ["x y z w.", "good update."]
    assert "about 5 words" in asked[2]


def test_an_interrupted_summary_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    options = {"chunk_size": 100, "max_summary": 80}
    whole = ScriptedModel(first_words, window=2000)
    summarize(documents=DOCS, model=whole, out=tmp_path / "whole", **options)
    calls = 0

    def dies(prompt: str) -> str:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise BackendError("gone")
        return first_words(prompt)

    with pytest.raises(BackendError):
        summarize(
            documents=DOCS, model=ScriptedModel(dies, window=2000), out=tmp_path / "b", **options
        )
    journal = tmp_path / "b" / "calls.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"call": "half')
    again = ScriptedModel(first_words, window=2000)
    made = summarize(documents=DOCS, model=again, out=tmp_path / "b", **options)
    assert made.replayed == 3
    assert len(again.prompts) == made.calls - 3
    for name in ("summary.json", "calls.jsonl", "plan.json"):
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with pytest.raises(RunConflict, match="max_summary=80"):
        summarize(documents=DOCS, model=again, out=tmp_path / "b", chunk_size=100, max_summary=70)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        summarize(documents=DOCS, model=again, out=tmp_path / "other", **options)
    assert json.loads((tmp_path / "b" / "summary.json").read_text())["summary"] == made.text


def test_bad_settings_and_empty_texts() -> None:
    model = ScriptedModel(first_words)
    with pytest.raises(ConfigError, match="workflow"):
        summarize(documents=DOCS, model=model, workflow="sideways")
    with pytest.raises(ConfigError, match="no setting"):
        summarize(documents=DOCS, model=model, chunks=3)
    with pytest.raises(InputError, match="no text"):
        summarize(documents=[Document("a", " \n")], model=model)


@given(st.text("{}textwords ", max_size=40))
def test_what_is_filled_in_is_never_a_field(value: str) -> None:
    assert fill("<{text}|{words}>", text=value, words=3) == f"<{value}|3>"
