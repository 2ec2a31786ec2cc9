"""Softplus attention and ALiBi on decoders: trained, cached, saved and loaded; never a drop-in."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import unspool
from tests.extend.conftest import build, left_padded, tokens
from unspool.attention.softplus import Softplus, softplus_attention
from unspool.errors import ConfigError


def first_layer(model: Any, ids: Any) -> tuple[Any, Any, Any]:
    """Rotated queries, keys and values of the first layer of a Llama, from its own modules."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    base = model.model
    hidden = base.layers[0].input_layernorm(base.embed_tokens(ids))
    attention = base.layers[0].self_attn
    shape = (*ids.shape, -1, attention.head_dim)
    q, k, v = (
        getattr(attention, f"{name}_proj")(hidden).view(shape).transpose(1, 2) for name in "qkv"
    )
    cos, sin = base.rotary_emb(hidden, torch.arange(ids.shape[1])[None])
    return (*apply_rotary_pos_emb(q, k, cos, sin), v)


def test_every_layer_attends_by_the_formula() -> None:
    """The output of the first layer's attention is that of the tensor function."""
    model, ids = build("llama"), tokens(1, 21)
    seen: list[Any] = []
    with torch.no_grad():
        right = softplus_attention(*first_layer(model, ids), p=3)
        with unspool.extend(model, Softplus(p=3)):
            project = model.model.layers[0].self_attn.o_proj
            hook = project.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
            model(ids)
            hook.remove()
    torch.testing.assert_close(seen[0], right.transpose(1, 2).flatten(2), rtol=0, atol=1e-5)


def test_training_reaches_the_weights_and_differs_from_softmax() -> None:
    model = copy.deepcopy(build("llama")).train()
    ids = tokens(2, 12)
    with torch.no_grad():
        stock = model(ids, use_cache=False).logits
    for spec in ("softplus", "softplus:phi=exp,reweight=false", "alibi"):
        model.zero_grad()
        with unspool.extend(model, spec):
            logits = model(ids, use_cache=False).logits
            F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
        gradient = model.model.layers[0].self_attn.k_proj.weight.grad
        assert torch.isfinite(gradient).all()
        assert gradient.abs().sum() > 0
        assert not torch.allclose(logits, stock, atol=1e-3)


def test_alibi_is_softmax_with_a_slope_and_no_rotation() -> None:
    model = build("llama")
    ids, mask = left_padded([9, 6])
    seen: list[Any] = []
    with torch.no_grad(), unspool.extend(model, "alibi"):
        project = model.model.layers[0].self_attn.o_proj
        hook = project.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        model(ids, attention_mask=mask)
        hook.remove()
        base, attention = model.model, model.model.layers[0].self_attn
        hidden = base.layers[0].input_layernorm(base.embed_tokens(ids[1:, 3:]))
        q, k, v = (getattr(attention, f"{n}_proj")(hidden)[0].view(6, -1, 8) for n in "qkv")
    for head in range(4):
        slope = 2.0 ** (-8 * (head + 1) / 4)
        for i in range(6):
            scores = [
                float(q[i, head] @ k[j, head // 2]) / 8**0.5 - slope * (i - j) for j in range(i + 1)
            ]
            w = torch.softmax(torch.tensor(scores), 0)
            right = sum(w[j] * v[j, head // 2] for j in range(i + 1))
            got = seen[0][1, 3 + i, 8 * head : 8 * head + 8]
            torch.testing.assert_close(got, right, rtol=0, atol=1e-5)


def test_a_checkpoint_remembers_what_it_was_trained_with(tmp_path: Path) -> None:
    model = copy.deepcopy(build("llama"))
    ids = tokens(1, 9)
    with unspool.extend(model, "softplus:p=3") as reader:
        with torch.no_grad():
            right = model(ids).logits
        with pytest.warns(UserWarning, match="plain transformers runs this checkpoint without it"):
            reader.save(tmp_path / "trained")
    assert not hasattr(model.config, "unspool_method")
    loaded = type(model).from_pretrained(tmp_path / "trained").eval()
    assert loaded.config.unspool_method == "softplus:p=3"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with unspool.extend(loaded) as again, torch.no_grad():
            torch.testing.assert_close(model_logits(loaded, ids), right)
            assert again.spec == "softplus:p=3"
    with pytest.raises(ConfigError, match="names no unspool_method"):
        unspool.extend(model)


def model_logits(model: Any, ids: Any) -> Any:
    return model(ids).logits


def test_a_model_from_somewhere_else_is_warned_of(tmp_path: Path) -> None:
    model = build("llama")
    model.save_pretrained(tmp_path / "stock")
    loaded = type(model).from_pretrained(tmp_path / "stock")
    with (
        pytest.warns(UserWarning, match="does not say that it was trained with softplus"),
        unspool.extend(loaded, "softplus"),
    ):
        pass


def test_settings_out_of_range() -> None:
    with pytest.raises(ConfigError, match="p >= 1"):
        Softplus(p=0)
    with pytest.raises(ConfigError, match=r"phi='tanh'|none of"):
        unspool.extend(build("llama"), "softplus:phi=tanh")
