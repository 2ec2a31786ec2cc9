"""A shared prefix is read once and changes no number."""

from __future__ import annotations

import pytest

from tests.backends.tiny import model
from unspool.backends.prefix import LEAST, SharedPrefix
from unspool.backends.scripted import ScriptedModel
from unspool.errors import ConfigError

HEAD = "The quick brown fox jumps over the lazy dog. " * 12
ASKED = [HEAD + tail for tail in ("To be", "To be, or", "not", "To be", "x" * 40)]
LABELS = [" or", " not to be", "1 2 3"]


@pytest.mark.parametrize("kind", ["llama", "sliding"])
def test_numbers_are_those_of_reading_anew(kind: str) -> None:
    plain, shared = model(kind, 600), SharedPrefix.of(model(kind, 600))
    for number, prompt in enumerate(ASKED):
        expected = plain.logprobs(prompt, LABELS)
        found = shared.logprobs(prompt, LABELS)
        for a, b in zip(expected, found, strict=True):
            assert b.total == pytest.approx(a.total, abs=1e-4)
            assert b.per_token == pytest.approx(a.per_token, abs=1e-4)
        read = expected[0].usage.read_tokens - found[0].usage.read_tokens
        assert read == shared.reused
        assert found[0].usage.input_tokens == expected[0].usage.input_tokens
        if kind == "llama":
            assert (shared.reused >= LEAST) == (number > 0)
        else:
            assert shared.reused == 0
    expected_texts = plain.generate(ASKED, max_tokens=6)
    texts = shared.generate(ASKED, max_tokens=6)
    assert [t.text for t in texts] == [t.text for t in expected_texts]


def test_other_prompts_and_short_ones_are_read_anew() -> None:
    shared = SharedPrefix.of(model(window=600))
    shared.logprobs(HEAD, LABELS)
    shared.logprobs("Something else entirely", LABELS)
    assert shared.reused == 0
    shared.logprobs("Something else entirely", LABELS)
    assert shared.reused == 0  # shorter than is worth keeping
    shared.logprobs(HEAD, LABELS)
    shared.logprobs(HEAD, LABELS)
    tokens = len(shared.tokenizer(HEAD).input_ids)
    assert shared.reused == tokens - 1  # the last token is read for its logits


def test_only_plain_models_share() -> None:
    with pytest.raises(ConfigError, match="plain transformers model"):
        SharedPrefix.of(ScriptedModel([]))
