"""Prompts made to fit: middle truncation to the id, wrappers, policies, units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspool._overflow import shorten
from unspool.backends.scripted import WordTokenizer
from unspool.errors import ConfigError, OverflowPolicyError
from unspool.evaluation.fit import Fitter, cut
from unspool.evaluation.spec import (
    LengthLevel,
    Parts,
    Request,
    Room,
    Sample,
    TaskSpec,
)
from unspool.evaluation.tasks.base import NO_ROOM, Task
from unspool.evaluation.tasks.passkey import KeyFound

SPEC = TaskSpec(
    name="test/words", ability="x", max_new_tokens=4, metric="passkey@1", overflow="ends"
)


def sample(text: str, **parts: str) -> Sample:
    return Sample(id="s", parts=Parts(context=text, **parts), references=("a",))


def words(n: int, start: int = 0) -> str:
    return " ".join(f"w{i}" for i in range(start, start + n))


def fitter(window: int | None, **options: Any) -> Fitter:
    settings: dict[str, Any] = {"chat": "never", **options}
    return Fitter(name="m", tokenizer=WordTokenizer(), window=window, **settings)


def task(**changes: Any) -> Task:
    return Task(spec=replace(SPEC, **changes), metric=KeyFound())


@given(st.integers(0, 60), st.integers(2, 40))
def test_ends_keep_the_first_and_the_last_half(total: int, limit: int) -> None:
    tokenizer = WordTokenizer()
    text = words(total)
    ids = tokenizer(text).input_ids
    kept_text, kept = cut(tokenizer, ids, limit, "ends")
    half = limit // 2
    if total <= 2 * half:
        assert (kept_text, kept) == (text, total)
        return
    again = tokenizer(kept_text).input_ids
    assert again[:half] == ids[:half]
    assert again[-half:] == ids[-half:]
    assert kept == len(again) == 2 * half


@given(st.integers(1, 80), st.integers(10, 60), st.sampled_from(["head", "tail", "ends"]))
def test_what_is_sent_fits_and_what_is_cut_is_counted(total: int, window: int, keep: Any) -> None:
    made = fitter(window, keep=keep)
    fitted = made.fit(task(), sample(words(total)))
    room = window - 4
    assert fitted.prompt_tokens is not None
    assert fitted.prompt_tokens + fitted.reserve <= window
    expected = total if total <= room else 2 * (room // 2) if keep == "ends" else room
    assert fitted.request.dropped_tokens == total - expected
    assert fitted.prompt_tokens == expected


def test_the_thousands_rule_cuts_what_would_fit() -> None:
    """M is 1,000 * window / 1,024 - 500 although window - answer is larger."""
    made = fitter(2048)
    fitted = made.fit(task(limit_rule="thousands"), sample(words(1600)))
    assert fitted.prompt_tokens == 1500
    assert fitted.request.dropped_tokens == 100
    short = made.fit(task(limit_rule="thousands"), sample(words(1500)))
    assert short.request.dropped_tokens == 0


def test_the_wrapper_comes_after_the_cut_and_is_never_cut() -> None:
    made = fitter(40, chat="auto")
    fitted = made.fit(task(), sample(words(100), query=" Q?", answer_prefix=" So:"))
    prompt = fitted.request.prompt
    assert not isinstance(prompt, str)
    assert [turn["role"] for turn in prompt] == ["user", "assistant"]
    assert prompt[0]["content"].startswith("w0 w1")
    assert prompt[0]["content"].endswith(" Q?")
    assert prompt[1]["content"] == "So:"
    assert fitted.prompt_tokens is not None
    assert 38 <= fitted.prompt_tokens + fitted.reserve <= 40
    assert made.count(prompt) == fitted.prompt_tokens


class Growing(WordTokenizer):
    """Decodes to text that encodes to one token more than it had."""

    def decode(self, ids: Any, **options: Any) -> str:
        return super().decode(ids, **options) + " more"


def test_halves_that_grow_are_cut_again() -> None:
    made = Fitter(name="m", tokenizer=Growing(), window=20, chat="never")
    fitted = made.fit(task(), sample(words(50)))
    assert fitted.prompt_tokens is not None
    assert fitted.prompt_tokens + 4 <= 20
    assert fitted.request.dropped_tokens == 50 - 14


def test_no_room_for_both_ends_is_an_error() -> None:
    with pytest.raises(OverflowPolicyError, match="not enough to keep both ends"):
        fitter(5).fit(task(), sample(words(50)))


def test_a_refusal_names_level_limit_lengths_and_policy() -> None:
    with pytest.raises(OverflowPolicyError) as error:
        fitter(20).fit(task(overflow="error"), sample(words(50)))
    for part in ("Sample s of test/words at level all", "50 tokens", "4 for the answer", "20"):
        assert part in str(error.value)


def test_conversations_are_never_cut() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Talk(Task):
        def build(self, sample: Sample, room: Room = NO_ROOM) -> Request:
            turns = ({"role": "user", "content": sample.parts.context},)
            return Request(kind="generate", prompt=turns, max_new_tokens=4)

    talk = Talk(spec=SPEC, metric=KeyFound())
    with pytest.raises(OverflowPolicyError, match=r"takes 52 tokens.*conversation"):
        fitter(20, chat="auto").fit(talk, sample(words(50)))
    assert fitter(60, chat="auto").fit(talk, sample(words(50))).prompt_tokens == 52


def test_own_tasks_are_told_their_room_and_say_what_they_dropped() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Own(Task):
        def build(self, sample: Sample, room: Room = NO_ROOM) -> Request:
            text = sample.parts.context
            total = room.count(text)
            limit = total if room.limit is None else room.limit
            kept = shorten(range(total), limit, "head").ids
            return Request(
                kind="generate",
                prompt=" ".join(text.split(" ")[i] for i in kept),
                max_new_tokens=4,
                dropped_tokens=total - len(kept),
            )

    own = Own(spec=replace(SPEC, overflow="own"), metric=KeyFound())
    fitted = fitter(20).fit(own, sample(words(50)))
    assert (fitted.prompt_tokens, fitted.request.dropped_tokens) == (16, 34)
    assert fitter(None).fit(own, sample(words(50))).request.dropped_tokens == 0


def test_a_system_message_goes_first() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class System(Task):
        def build(self, sample: Sample, room: Room = NO_ROOM) -> Request:
            return Request(kind="generate", prompt=sample.parts.context, system="Be brief.")

    system = System(spec=SPEC, metric=KeyFound())
    raw = fitter(None).fit(system, sample("text")).request.prompt
    assert raw == "Be brief.\n\ntext"
    turns = fitter(None, chat="auto").fit(system, sample("text")).request.prompt
    assert [turn["role"] for turn in turns] == ["system", "user"]  # type: ignore[index] # messages


@pytest.mark.parametrize(
    ("policy", "given", "wrapped"),
    [
        ("auto", "auto", True),
        ("never", "auto", False),
        ("never", "always", True),
        ("auto", "never", False),
    ],
)
def test_chat_policies(policy: Any, given: Any, wrapped: bool) -> None:
    made = Fitter(name="m", tokenizer=WordTokenizer(), window=None, chat=given)
    assert made.wraps(replace(SPEC, chat=policy)) is wrapped


class Plain(WordTokenizer):
    chat_template = ""


def test_a_model_without_a_template() -> None:
    made = Fitter(name="base", tokenizer=Plain(), window=None)
    assert made.fit(task(), sample("text")).request.prompt == "text"
    with pytest.raises(ConfigError, match="base has no chat template"):
        Fitter(name="base", tokenizer=Plain(), window=None, chat="always").fit(
            task(), sample("text")
        )


def test_without_a_tokenizer_nothing_is_guessed() -> None:
    made = Fitter(name="far", tokenizer=None, window=20)
    fitted = made.fit(task(), sample(words(50), answer_prefix=" So:"))
    assert fitted.prompt_tokens is None
    assert fitted.request.prompt[-1]["content"].endswith(" So:")  # type: ignore[index,call-overload] # messages


@pytest.mark.parametrize("chat", ["auto", "never"])
@pytest.mark.parametrize("query", ["", " What now?"])
def test_a_sizer_bounds_what_is_sent(chat: Any, query: str) -> None:
    made = fitter(None, chat=chat)
    size = made.sizer(SPEC, LengthLevel("tokens", 64))
    for total in (1, 7, 30):
        parts = {"query": query, "answer_prefix": " So:"}
        text = words(total) + query + " So:"
        fitted = made.fit(task(), sample(words(total), **parts))
        assert fitted.prompt_tokens is not None
        assert (
            0 <= size(text) - (fitted.prompt_tokens + fitted.reserve) <= 4
        )  # a word tokenizer joins the two turns


def test_sizers_of_other_units() -> None:
    made = Fitter(name="far", tokenizer=None, window=None)
    assert made.sizer(SPEC, LengthLevel("words", 5))("two words") == 2
    assert made.sizer(SPEC, LengthLevel("chars", 5))("two words") == 9
    with pytest.raises(ConfigError, match="--tokenizer"):
        made.sizer(SPEC, LengthLevel("tokens", 5))("two words")


def test_continuations_need_only_their_own_room() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Pick(Task):
        def samples(self, *args: Any, **options: Any) -> Iterator[Sample]:
            yield from ()

    pick = Pick(spec=replace(SPEC, kind="choice", overflow="error"), metric=KeyFound())
    chosen = replace(sample(words(18)), choices=(" a", " b c"))
    assert fitter(20).fit(pick, chosen).reserve == 2
    with pytest.raises(OverflowPolicyError):
        fitter(19).fit(pick, chosen)
