"""Pieces of an answer, put together, are the answer."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backends.tiny import full_logits, model, network, tokenizer
from unspool.backends.stream import Cancelled, StreamingModel, Unfolder
from unspool.errors import OverflowPolicyError

PROMPT = "The quick brown fox"


@pytest.mark.parametrize("kind", ["llama", "sliding", "gpt2"])
@pytest.mark.parametrize("temperature", [0.0, 1.3], ids=["greedy", "drawn"])
@pytest.mark.parametrize("stop", [(), ("o",), ("zz", "e f")], ids=["none", "common", "two"])
def test_pieces_are_what_generate_returns(kind: str, temperature: float, stop: tuple) -> None:
    tiny = model(kind)
    assert isinstance(tiny, StreamingModel)
    for seed in range(4):
        options = {"max_tokens": 23, "stop": stop, "temperature": temperature, "seed": seed}
        (whole,) = tiny.generate([PROMPT], **options)
        pieces = list(tiny.generate_stream(PROMPT, **options))
        assert "".join(p.text for p in pieces) == whole.text
        assert pieces[-1].finish_reason == whole.finish_reason
        assert all(p.finish_reason is None and p.usage is None for p in pieces[:-1])
        usage = pieces[-1].usage
        assert usage is not None
        assert usage.output_tokens == whole.usage.output_tokens
        assert usage.read_tokens == whole.usage.read_tokens


def test_logprobs_are_those_of_one_pass() -> None:
    pieces = list(model().generate_stream(PROMPT, max_tokens=7, top_logprobs=3))
    scores = [t for p in pieces for t in p.tokens]
    (whole,) = model().generate([PROMPT], max_tokens=7)
    ids = tokenizer()(PROMPT).input_ids
    text = "".join(p.text for p in pieces)
    assert text == whole.text
    for score in scores:
        table = torch.log_softmax(full_logits(network(), ids)[-1], dim=-1)
        best = table.topk(3)
        assert math.isclose(score.logprob, float(best.values[0]), abs_tol=1e-4)
        found = [value for _, value in score.top]
        torch.testing.assert_close(torch.tensor(found).double(), best.values, atol=1e-4, rtol=0)
        assert score.top[0][0] == score.text
        ids = [*ids, int(best.indices[0])]


def test_a_cancelled_answer_ends_before_the_prompt_is_read() -> None:
    with pytest.raises(Cancelled):
        list(model().generate_stream(PROMPT, max_tokens=5, cancelled=lambda: True))


def test_a_cancelled_answer_ends_at_the_next_token() -> None:
    seen: list[str] = []
    pieces = model().generate_stream(PROMPT, max_tokens=50, cancelled=lambda: len(seen) > 2)
    for piece in pieces:
        seen.append(piece.text)
    assert len(seen) < 6


def test_hooks_are_gone_afterwards() -> None:
    tiny = model()
    list(tiny.generate_stream(PROMPT, max_tokens=2, cancelled=lambda: False))
    assert not any(m._forward_pre_hooks for m in tiny.model.modules())


def test_a_long_prompt_is_refused_before_anything_is_read() -> None:
    with pytest.raises(OverflowPolicyError):
        list(model(window=32).generate_stream(PROMPT * 20, max_tokens=5))


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=40), stop=st.lists(st.text(min_size=1, max_size=4), max_size=3))
def test_text_by_bytes_comes_out_whole_and_ends_before_a_stop(text: str, stop: list[str]) -> None:
    data = text.encode("utf-8", "replace")
    expected = data.decode("utf-8", "replace")

    def decode(ids: list[int]) -> str:
        return bytes(ids).decode("utf-8", "replace")

    unfolder = Unfolder(decode, stop)
    sent = ""
    for byte in data:
        sent += unfolder.add(byte)
        if unfolder.stopped:
            break
    if not unfolder.stopped:
        sent += unfolder.rest()
    ends = [expected.find(s) for s in stop if s in expected]
    if "�" not in expected:
        assert sent == (expected[: min(ends)] if ends else expected)
