"""HyperAttention in a model: which layers, what is exact, padding, training, losses of a text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.extend.conftest import build, left_padded, tokens
from unspool.errors import ConfigError
from unspool.extension import extend
from unspool.reading.losses import method_losses

SMALL = "hyper:min_seq_len=32,block=8,samples=12,lsh_bits=4"


def logits(model: Any, ids: Any, **options: Any) -> Any:
    with torch.no_grad():
        return model(ids, use_cache=False, **options).logits


def test_only_the_named_layers_change() -> None:
    model, ids = build("llama"), tokens(1, 90)
    expected = logits(model, ids)
    seen = []
    for layers in ("first:1", "last:1", "full"):
        with extend(model, f"{SMALL},layers={layers}"):
            seen.append(logits(model, ids))
    assert not any(torch.allclose(x, expected, atol=1e-3) for x in seen)
    assert not torch.equal(seen[0], seen[1])
    with extend(model, f"{SMALL},layers=1", tokenizer=None) as ext:
        kinds = [type(ext.plan_of(n).attend).__name__ for n in range(3)]
    assert kinds == ["Dense", "Hyper", "Dense"]


def test_a_seed_gives_the_same_bits_and_layers_draw_their_own() -> None:
    model, ids = build("llama"), tokens(2, 90)
    found = []
    for spec in (SMALL, SMALL, f"{SMALL},seed=1"):
        with extend(model, spec):
            found.append(logits(model, ids))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    with extend(model, SMALL):  # a row of a batch is what it is alone
        torch.testing.assert_close(logits(model, ids[1:]), found[0][1:], rtol=0, atol=1e-5)


def test_padded_rows_are_read_as_they_are_alone() -> None:
    model = build("llama")
    ids, mask = left_padded([90, 71, 20])
    with extend(model, SMALL):
        # Positions as `generate` gives them: the hash sees keys after their rotation.
        places = (mask.cumsum(1) - 1).clamp(min=0)
        together = logits(model, ids, attention_mask=mask, position_ids=places)
        for row, length in enumerate((90, 71, 20)):
            alone = logits(model, ids[row : row + 1, -length:])
            torch.testing.assert_close(together[row, -length:], alone[0], rtol=0, atol=1e-4)


def test_written_tokens_and_packed_rows_are_exact() -> None:
    model, ids = build("llama"), tokens(1, 90)
    packed = torch.cat([torch.arange(50), torch.arange(40)])[None]
    stock = logits(model, ids, position_ids=packed)
    with extend(model, SMALL) as ext:
        torch.testing.assert_close(
            logits(model, ids, position_ids=packed), stock, rtol=0, atol=1e-4
        )
        read, exact = ext.new_cache(), ext.new_cache()
        with torch.no_grad():
            model(ids[:, :64], past_key_values=read)
            hyper = model(ids[:, 64:65], past_key_values=read).logits
    with extend(model, "dense"), torch.no_grad():
        for store, other in zip(exact.stores, read.stores, strict=True):
            store.load_state(other.state())
        for store in exact.stores:
            store.crop(-1)
        dense = model(ids[:, 64:65], past_key_values=exact).logits
    torch.testing.assert_close(hyper, dense, rtol=0, atol=1e-4)


@pytest.mark.parametrize("spec", [f"{SMALL}+snapkv:keep=40,window=8", f"{SMALL},sinks=4"])
def test_it_stands_beside_compression(spec: str) -> None:
    model, ids = build("llama"), tokens(1, 96)
    with extend(model, spec) as ext:
        out = model.generate(ids, max_new_tokens=4, do_sample=False)
        assert out.shape == (1, 100)
        assert bool(ext.report().dropped_tokens) == ("snapkv" in spec)


def test_training_gives_gradients_with_and_without_checkpoints() -> None:
    import copy

    found = []
    for checkpoints in (False, True):
        model = copy.deepcopy(build("llama")).train()
        if checkpoints:
            older = model.gradient_checkpointing_enable  # the older name
            getattr(model, "activation_checkpointing_enable", older)()
        with extend(model, f"{SMALL},sinks=2"):
            ids = tokens(2, 90)
            model(ids, labels=ids, use_cache=False).loss.backward()
        found.append([p.grad for p in model.parameters() if p.grad is not None])
    assert found[0]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_losses_are_read_in_whole_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many logits at a time as memory allows, but the text in one piece."""
    monkeypatch.setattr("unspool.reading.losses._rows", lambda model: 16)
    model, ids = build("llama"), tokens(1, 90)
    with extend(model, SMALL) as ext:
        found = method_losses(ext, ids[0].tolist())
        whole = logits(model, ids)[0]
    expected = torch.nn.functional.cross_entropy(whole[:-1], ids[0, 1:], reduction="none")
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_a_layer_takes_one_mechanism() -> None:
    with pytest.raises(ConfigError, match="both fill slot 'attend' of layer 2"):
        extend(build("llama"), f"{SMALL},layers=last:1+lm-infinite:local=48")
