"""The scripted model keeps the protocol: exact counts, stops, overflow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspool.backends.scripted import ScriptedModel, WordTokenizer
from unspool.errors import ConfigError, OverflowPolicyError
from unspool.types import LanguageModel


@given(st.text())
def test_tokens_decode_to_the_text(text: str) -> None:
    tokenizer = WordTokenizer()
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_answers_come_in_order_and_are_counted() -> None:
    model = ScriptedModel(["one two three", "yes. No"])
    assert isinstance(model, LanguageModel)
    first, second = model.generate(["a b", "c"], max_tokens=2, stop=["."])
    assert (first.text, first.finish_reason) == ("one two", "length")
    assert (second.text, second.finish_reason) == ("yes", "stop")
    assert first.usage.input_tokens == 2
    assert model.prompts == ["a b", "c"]
    with pytest.raises(ConfigError, match="2 answers"):
        model.generate(["d"], max_tokens=1)


def test_overflow_is_refused_or_counted() -> None:
    model = ScriptedModel(lambda prompt: prompt, window=4)
    with pytest.raises(OverflowPolicyError):
        model.generate(["a b c d"], max_tokens=1)
    (got,) = model.generate(["a b c d"], max_tokens=1, on_overflow="truncate")
    assert got.usage.dropped_tokens == 1


def test_scores_are_the_scripts() -> None:
    model = ScriptedModel([], score=lambda prompt, token: -float(len(token)))
    one, two = model.logprobs("a", [" bb c", ""])
    assert one.per_token == (-3.0, -2.0)
    assert two.total == 0
    assert one.usage.read_tokens == 3
