"""Randomised training positions: their order, their end, their mean, their seed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from unspool.errors import ConfigError
from unspool.positions.randomised import randomised_positions


@given(st.integers(1, 4), st.sampled_from([1, 2, 17, 129, 4097]), st.integers(0, 2**31))
def test_increasing_and_never_past_the_length(batch: int, length: int, seed: int) -> None:
    drawn = randomised_positions(batch, length, seed=seed)
    assert drawn.shape == (batch, length)
    assert bool((drawn.diff(dim=-1) > 0).all())
    assert bool((drawn > 0).all())
    assert bool((drawn[:, -1] <= length).all())
    assert torch.equal(drawn, randomised_positions(batch, length, seed=seed))
    if length > 1:
        assert not torch.equal(drawn, randomised_positions(batch, length, seed=seed + 1))


def test_steps_have_the_mean_and_spread_of_the_definition() -> None:
    """Steps are U(0, 2), mean 1 and variance 1/3, in rows that end early and so are not scaled."""
    drawn = randomised_positions(400, 4096, seed=0)
    unscaled = drawn[drawn[:, -1] < 4095.9]
    assert 0.35 < len(unscaled) / 400 < 0.65
    steps = unscaled.diff(dim=-1)
    assert abs(float(steps.mean()) - 0.993) < 0.004  # rows that end early have steps below 1
    assert abs(float(steps.var()) - 1 / 3) < 0.005
    assert float(steps.max()) <= 2
    means = drawn[:, -1] / 4096
    assert abs(float(means.mean()) - 1) < 0.01


def test_rows_differ_and_empty_is_empty() -> None:
    first, second = randomised_positions(2, 64, seed=3)
    assert not torch.equal(first, second)
    assert randomised_positions(2, 0, seed=0).shape == (2, 0)
    with pytest.raises(ConfigError, match="got 1 and -1"):
        randomised_positions(1, -1, seed=0)


def test_a_model_takes_them_with_a_mask() -> None:
    """Without the mask transformers would see packed documents: this is why the docs ask for it."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.5,
    )
    model = LlamaForCausalLM(config).eval()
    ids = torch.randint(16, (2, 12))
    positions = randomised_positions(2, 12, seed=1)
    with torch.no_grad():
        out = model(ids, position_ids=positions, attention_mask=torch.ones_like(ids)).logits
        alone = model(ids[:, :1], position_ids=positions[:, :1]).logits
        whole = model(ids, attention_mask=torch.ones_like(ids)).logits
    assert (out[:, -1] - alone[:, -1]).abs().max() > 1e-3
    assert (out - whole).abs().max() > 1e-3
