"""The lean decode step: the same numbers as the model, fewer bits when asked, honest refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.extend.conftest import build, left_padded, tokens
from unspool.errors import Unsupported
from unspool.extension import extend

SPECS = ("dense", "dense:late=true", "lm-infinite:local=32,sinks=4", "streaming-llm:window=32")


def written(model: Any, spec: str, weights: Any, prompt: Any, count: int = 20) -> tuple[Any, Any]:
    """Greedy tokens and the logits of each step."""
    with extend(model, spec, weights=weights) as ext, torch.inference_mode():
        cache = ext.new_cache()
        cache.prefill_end = int(prompt.shape[1])
        logits = model(prompt, past_key_values=cache).logits[:, -1]
        ids, rows = [], []
        for _ in range(count):
            ids.append(logits.argmax(-1, keepdim=True))
            logits = model(ids[-1], past_key_values=cache, use_cache=True).logits[:, -1]
            rows.append(logits)
    return torch.cat(ids, 1), torch.stack(rows, 1)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3", "mistral", "phi3"])
def test_the_step_gives_the_models_own_numbers(family: str, spec: str) -> None:
    model = build(family)
    for prompt in (tokens(1, 20), tokens(2, 61)):
        expected, rows = written(model, spec, None, prompt)
        found, ours = written(model, spec, "same", prompt)
        assert torch.equal(found, expected)
        torch.testing.assert_close(ours, rows, rtol=0, atol=1e-4)


def test_eight_bits_are_near_and_not_the_same() -> None:
    model = build("llama")
    _, rows = written(model, "dense", None, tokens(1, 40), 1)
    _, ours = written(model, "dense", "int8", tokens(1, 40), 1)
    apart = float((ours - rows).norm() / rows.norm())
    assert 1e-4 < apart < 0.1


def test_generate_beams_and_padding_go_on_working() -> None:
    model = build("llama")
    ids, mask = left_padded([50, 31])
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    for more in ({}, {"num_beams": 3}):
        with extend(model, "lm-infinite:local=32"):
            expected = model.generate(ids, attention_mask=mask, **options, **more)
            alone = model.generate(ids[:1], **options, **more)
        with extend(model, "lm-infinite:local=32", weights="same"):
            assert torch.equal(
                model.generate(ids, attention_mask=mask, **options, **more), expected
            )
            assert torch.equal(model.generate(ids[:1], **options, **more), alone)


def test_a_model_with_other_layers_is_refused() -> None:
    model = build("gpt-neox")
    with pytest.raises(Unsupported, match="plain list of layers"):
        extend(model, "dense", weights="same")
    extend(model, "dense").remove()  # and left as it was


def test_mixed_layers_are_stepped_through_as_well() -> None:
    from unspool.backends.decode import DecodeStep

    mixed = extend(build("gemma3"), "lm-infinite:local=32", weights="same")
    with mixed as ext, torch.inference_mode():
        cache = ext.new_cache()
        ext.model(tokens(1, 40), past_key_values=cache)
        assert DecodeStep(ext, "same").supports(cache)


def test_the_forward_comes_back() -> None:
    model = build("llama")
    with extend(model, "dense", weights="same"):
        assert "forward" in model.__dict__
    assert "forward" not in model.__dict__
