"""A model that keeps what it has read: the same answers, whatever was asked before."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.backends import tiny
from unspool.backends.prefix import PrefixModel, _common, keep_prefixes
from unspool.backends.scripted import ScriptedModel
from unspool.errors import ConfigError

DEMONSTRATIONS = "The quick brown fox jumps over the lazy dog. " * 4


def model(block: int = 8, kind: str = "llama") -> PrefixModel:
    return PrefixModel(tiny.network(kind), tiny.tokenizer(), name="tiny@0", block=block)


def prompts() -> list[str]:
    draw = random.Random(3)
    beginnings = [DEMONSTRATIONS, DEMONSTRATIONS[:50], "To be, or not to be: "]
    return [draw.choice(beginnings) + f"{draw.random()}"[:5] for _ in range(12)]


@pytest.mark.parametrize("block", [1, 7, 8, 64, 1000])
def test_answers_do_not_depend_on_what_was_asked_before(block: int) -> None:
    kept = model(block)
    for prompt in prompts():
        fresh = model(block)
        assert kept.generate([prompt], max_tokens=5)[0].text == (
            fresh.generate([prompt], max_tokens=5)[0].text
        )
        mine, theirs = (m.logprobs(prompt, [" a", " the dog"]) for m in (kept, fresh))
        assert [s.per_token for s in mine] == [s.per_token for s in theirs]
        assert [s.greedy for s in mine] == [s.greedy for s in theirs]


def test_it_is_the_same_model() -> None:
    plain, kept = tiny.model(), model()
    for prompt in prompts():
        expected = plain.generate([prompt], max_tokens=6)[0]
        found = kept.generate([prompt], max_tokens=6)[0]
        assert (found.text, found.finish_reason) == (expected.text, expected.finish_reason)
        one, other = (m.logprobs(prompt, [" fox"])[0] for m in (plain, kept))
        assert other.total == pytest.approx(one.total, abs=1e-4)


def test_what_was_kept_is_counted_as_not_read() -> None:
    kept = model(block=8)
    first = kept.generate([DEMONSTRATIONS + "one"], max_tokens=3)[0].usage
    assert first.read_tokens == first.input_tokens
    second = kept.generate([DEMONSTRATIONS + "two"], max_tokens=3)[0].usage
    assert kept.reused > 0
    assert kept.reused % 8 == 0
    assert second.read_tokens == second.input_tokens - kept.reused < first.read_tokens / 2
    third = kept.logprobs(DEMONSTRATIONS + "two", [" a", " b"])
    assert third[0].usage.read_tokens < second.input_tokens / 2
    kept.forget()
    again = kept.generate([DEMONSTRATIONS + "two"], max_tokens=3)[0].usage
    assert again.read_tokens == again.input_tokens


def test_the_last_token_is_always_read() -> None:
    kept = model(block=1)
    for _ in range(2):
        usage = kept.generate([DEMONSTRATIONS], max_tokens=1)[0].usage
    assert usage.read_tokens == 1


def test_layers_that_cannot_go_back_are_read_anew() -> None:
    kept = model(block=8, kind="sliding")
    texts = []
    for _ in range(2):
        answer = kept.generate([DEMONSTRATIONS + "x"], max_tokens=4)[0]
        assert answer.usage.read_tokens == answer.usage.input_tokens
        texts.append(answer.text)
    assert (
        texts[0]
        == texts[1]
        == (tiny.model("sliding").generate([DEMONSTRATIONS + "x"], max_tokens=4)[0].text)
    )


def test_a_failure_leaves_nothing_half_read(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, calls = model(block=8), [0]
    expected = model(block=8).generate([DEMONSTRATIONS + "two"], max_tokens=3)[0].text
    kept.generate([DEMONSTRATIONS + "one"], max_tokens=3)
    forward = kept._forward

    def fail(*args: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == 1:
            raise MemoryError
        return forward(*args, **options)

    monkeypatch.setattr(kept, "_forward", fail)
    with pytest.raises(MemoryError):
        kept.generate([DEMONSTRATIONS + "two"], max_tokens=3)
    answer = kept.generate([DEMONSTRATIONS + "two"], max_tokens=3)[0]
    assert answer.text == expected
    assert answer.usage.read_tokens == answer.usage.input_tokens


def test_names_and_wrong_settings() -> None:
    assert model().name == "tiny@0 [block=8]"
    wrapped = keep_prefixes(tiny.model())
    assert isinstance(wrapped, PrefixModel)
    assert keep_prefixes(wrapped) is wrapped
    scripted = ScriptedModel("")
    assert keep_prefixes(scripted) is scripted
    with pytest.raises(ConfigError, match="block"):
        model(block=0)


@pytest.mark.parametrize(
    ("a", "b", "length"), [([], [], 0), ([1], [], 0), ([1, 2], [1, 3], 1), ([1, 2], [1, 2, 3], 2)]
)
def test_common_beginnings(a: list[int], b: list[int], length: int) -> None:
    assert _common(a, b) == _common(b, a) == length
