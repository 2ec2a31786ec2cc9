"""Generating behind what a cache holds gives what generating from the whole text gives."""

from __future__ import annotations

import pytest
import torch
import transformers

from tests.extend.conftest import build, tokens
from unspool.extension import extend


@pytest.mark.parametrize("release", [transformers.__version__, "5.17.0"])
def test_positions_go_on_behind_a_cache(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method without positions of its own relies on those that transformers counts."""
    monkeypatch.setattr(transformers, "__version__", release)
    model, ids = build("llama"), tokens(1, 60)
    options = {"max_new_tokens": 6, "do_sample": False}
    with extend(model, "dense") as extension, torch.no_grad():
        whole = extension.generate(ids, attention_mask=torch.ones_like(ids), **options)
        cache = extension.new_cache()
        model(ids[:, :40], past_key_values=cache, use_cache=True)
        found = extension.generate(
            ids[:, 40:], past_key_values=cache, attention_mask=torch.ones_like(ids), **options
        )
    assert found[0, 20:].tolist() == whole[0, 60:].tolist()
