"""The method `rope` on tiny models: against plain transformers, and its own limits."""

from __future__ import annotations

import typing
from typing import Any

import pytest
import torch

from tests.positions import tiny
from unspool.errors import ConfigError, OverflowPolicyError, Unsupported
from unspool.extension import extend
from unspool.methods import method_class, resolve_method
from unspool.positions import kinds, rope_parameters
from unspool.positions.randomised import randomised_positions
from unspool.positions.rope import Rope, RopeKind

FACTORS = [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5]
SPECS: dict[str, Rope] = {
    "default": Rope(kind="default"),
    "linear": Rope(factor=3),
    "power": Rope(kind="power", power=0.4, factor=2),
    "truncated": Rope(kind="truncated", truncate_at=10**9),
    "ntk": Rope(kind="ntk", factor=4),
    "abf": Rope(kind="abf", base=500_000),
    "dynamic": Rope(kind="dynamic", factor=2),
    "yarn": Rope(kind="yarn", factor=4, beta_fast=16),
    "llama3": Rope(kind="llama3", factor=4),
    "longrope": Rope(
        kind="longrope", short_factor=(1.0,) * 8, long_factor=tuple(FACTORS), factor=4
    ),
}


def plain_config(method: Rope, exported: dict[str, Any]) -> dict[str, Any]:
    # In transformers dynamic reads the trained window from here, yarn and others name it.
    window = 32 if method.kind == "dynamic" else 128
    return {"rope_parameters": exported, "max_position_embeddings": window}


@pytest.mark.parametrize("kind", list(SPECS))
def test_exported_it_gives_the_same_logits_in_plain_transformers(kind: str) -> None:
    method, net, text = SPECS[kind], tiny.network("llama"), tiny.ids(2, 77)
    with extend(net, method) as extension:
        ours = tiny.logits(net, text)
        exported = extension.export()
    plain = tiny.like(net, "llama", **plain_config(method, exported))
    torch.testing.assert_close(ours, tiny.logits(plain, text), atol=1e-4, rtol=1e-4)
    stock = tiny.logits(net, text)
    same = kind in ("default", "truncated")
    assert torch.allclose(ours, stock, atol=1e-3) == same
    assert typing.get_args(RopeKind) == tuple(kinds())


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
@pytest.mark.parametrize("spec", ["rope:factor=3", "rope:kind=dynamic,factor=2"])
def test_every_family_by_its_own_layout_and_base(family: str, spec: str) -> None:
    net, text = tiny.network(family), tiny.ids(2, 61)
    stock = tiny.logits(net, text)
    with extend(net, spec) as extension:
        ours = tiny.logits(net, text)
        exported = extension.export()
    assert torch.equal(tiny.logits(net, text), stock)
    assert (ours - stock).abs().max() > 1e-2
    (method,) = resolve_method(spec)
    assert isinstance(method, Rope)
    if family == "phi3":  # its configuration takes longrope only
        if method.kind == "dynamic":
            return
        exported = rope_parameters("linear", 16, 1e4, as_longrope=True, factor=3, window=32)
    plain = tiny.like(net, family, **plain_config(method, exported))
    torch.testing.assert_close(ours, tiny.logits(plain, text), atol=1e-4, rtol=1e-4)
    if family == "gemma3":  # only the full layers are stretched, each type from its own base
        assert exported["sliding_attention"] == {"rope_type": "default", "rope_theta": 1e4}
        assert exported["full_attention"]["rope_theta"] == 1e6
    if family == "gpt_neox":
        assert exported["partial_rotary_factor"] == 0.25


@pytest.mark.parametrize("spec", ["rope:factor=3", "rope:kind=yarn,factor=4", "giraffe-power"])
def test_left_padding_chunks_and_generate(spec: str) -> None:
    net, text = tiny.network("llama"), tiny.ids(1, 50)
    with extend(net, spec) as extension:
        whole = tiny.logits(net, text)[0]
        padded = torch.cat([torch.zeros(1, 7, dtype=torch.long), text], dim=1)
        mask = (padded != 0).long()
        torch.testing.assert_close(
            tiny.logits(net, padded, attention_mask=mask)[0, 7:], whole, atol=2e-4, rtol=2e-4
        )
        cache = extension.new_cache()
        with torch.no_grad():
            parts = [net(text[:, a : a + 17], past_key_values=cache).logits for a in (0, 17, 34)]
        torch.testing.assert_close(torch.cat(parts, 1)[0], whole, atol=2e-4, rtol=2e-4)
        written = net.generate(text, max_new_tokens=6, do_sample=False, eos_token_id=None)
        grown = text
        for _ in range(6):
            grown = torch.cat([grown, tiny.logits(net, grown)[:, -1:].argmax(-1)], dim=1)
        assert torch.equal(written, grown)


@pytest.mark.parametrize("method", [SPECS["dynamic"], SPECS["longrope"]], ids=["dyn", "longrope"])
def test_frequencies_that_change_turn_cached_keys_too(method: Rope) -> None:
    """One layer, so that nothing but rotation depends on the length: a text read token by token
    ends as one read at once. In plain transformers, cached keys keep their old frequencies."""
    net, text = tiny.network("llama", num_hidden_layers=1), tiny.ids(1, 70)
    with extend(net, method) as extension:
        whole = tiny.logits(net, text)[:, -1]
        cache = extension.new_cache()
        with torch.no_grad():
            for i in range(70):
                last = net(text[:, i : i + 1], past_key_values=cache).logits
        torch.testing.assert_close(last[:, -1], whole, atol=1e-4, rtol=1e-4)
        exported = extension.export()
    plain = tiny.like(net, "llama", num_hidden_layers=1, **plain_config(method, exported))
    with torch.no_grad():
        past = None
        for i in range(70):
            out = plain(text[:, i : i + 1], past_key_values=past, use_cache=True)
            past = out.past_key_values
    assert (out.logits[:, -1] - whole).abs().max() > 1e-2


def test_dynamic_within_the_window_is_the_stock_model() -> None:
    net, text = tiny.network("llama"), tiny.ids(2, 32)
    stock = tiny.logits(net, text)
    with extend(net, "rope:kind=dynamic"):
        torch.testing.assert_close(tiny.logits(net, text), stock, atol=1e-4, rtol=1e-4)


def test_truncated_stops_what_never_turned() -> None:
    net, text = tiny.network("llama"), tiny.ids(1, 64)
    with extend(net, "rope:kind=truncated") as extension:
        assert extension.spec == "rope:kind=truncated,truncate_at=32"
        with pytest.raises(Unsupported, match=r"frequencies that are 0.*truncate_at=32"):
            extension.export()
        frequency = extension.methods[0].frequency(extension.facts, "full_attention")
        assert int((frequency(0)[0] == 0).sum()) > 0
        assert bool(torch.isfinite(tiny.logits(net, text)).all())


def test_linear_goes_on_top_of_a_trained_stretch() -> None:
    trained = {
        "rope_type": "llama3",
        "rope_theta": 1e4,
        "factor": 2.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }
    net, text = tiny.network("llama", rope_parameters=trained), tiny.ids(1, 40)
    own = net.model.rotary_emb.inv_freq.clone()
    with extend(net, "rope:factor=2") as extension:
        frequency = extension.methods[0].frequency(extension.facts, "full_attention")
        torch.testing.assert_close(frequency(0)[0], own / 2)
        stretched = tiny.logits(net, text)
        with pytest.raises(ConfigError, match="cannot say 'rope:factor=2' on top"):
            extension.export()
    net.model.rotary_emb.inv_freq.copy_(own / 2)
    torch.testing.assert_close(tiny.logits(net, text), stretched, atol=1e-4, rtol=1e-4)
    net.model.rotary_emb.inv_freq.copy_(own)
    with pytest.raises(ConfigError, match=r"rope_type 'llama3' already.*give base="):
        extend(net, "rope:kind=yarn,factor=2")
    with extend(net, "rope:kind=yarn,factor=2,base=10000"):
        assert (tiny.logits(net, text) - stretched).abs().max() > 1e-3


def test_training_with_randomised_positions() -> None:
    net, text = tiny.network("llama"), tiny.ids(2, 24)
    positions = randomised_positions(2, 24, seed=0)
    mask = torch.ones_like(text)
    net.model.rotary_emb.inv_freq.div_(2)
    expected = tiny.logits(net, text, position_ids=positions, attention_mask=mask)
    net.model.rotary_emb.inv_freq.mul_(2)
    with extend(net, "rope:factor=2"):
        net.train()
        out = net(text, position_ids=positions, attention_mask=mask, use_cache=False, labels=text)
        out.loss.backward()
        torch.testing.assert_close(out.logits.detach(), expected, atol=1e-4, rtol=1e-4)
        gradient = net.model.layers[0].self_attn.q_proj.weight.grad
        assert gradient is not None
        assert bool(gradient.abs().sum() > 0)


def test_length_that_makes_sense() -> None:
    net = tiny.network("llama")
    for spec, tokens in (
        ("rope:factor=3", 96),
        ("rope:kind=dynamic", None),
        ("giraffe-power", None),
    ):
        with extend(net, spec) as extension:
            assert extension.capacity == tokens
    with (
        extend(net, "rope:factor=3"),
        pytest.raises(OverflowPolicyError, match=r"rope:factor=3: the prompt is 100 tokens"),
    ):
        net.generate(tiny.ids(1, 100), max_new_tokens=5)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("rope", "needs factor: how many times"),
        ("rope:factor=0.5", "factor >= 1, got 0.5"),
        ("rope:kind=yran,factor=2", "kind='yran' is not default or linear"),
        ("rope:kind=abf", "needs base, the new one"),
        ("rope:kind=ntk,factor=2,power=3", "does not read power=3"),
        ("rope:kind=xpos", "kind='xpos' is not"),
        ("rope:factr=2", "no option 'factr'"),
        ("rope:factor=two", "factor='two' is not a number or none"),
        ("xpos:scale_base=0", "scale_base above 0 tokens, got 0"),
    ],
)
def test_spelling_mistakes(spec: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        resolve_method(spec)


def test_some_layers_of_one_rotary_embedding_are_refused() -> None:
    net = tiny.network("llama")
    with pytest.raises(ConfigError, match=r"one rotary embedding serves them all. Use layers=full"):
        extend(net, "rope:factor=2,layers=first:1")
    assert tiny.logits(net, tiny.ids(1, 5)).shape == (1, 5, 64)  # nothing was left behind
    mixed = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
    net = tiny.network("qwen3", use_sliding_window=True, **mixed)
    text = tiny.ids(1, 40)
    with extend(net, "rope:factor=2,layers=all") as extension:
        ours, exported = tiny.logits(net, text), extension.export()
    plain = tiny.like(net, "qwen3", use_sliding_window=True, **mixed, rope_parameters=exported)
    torch.testing.assert_close(ours, tiny.logits(plain, text), atol=1e-4, rtol=1e-4)
    with extend(net, "rope:factor=2"), pytest.raises(ConfigError, match="layers=all"):
        tiny.logits(net, text)


def test_models_without_rotary_positions_are_refused() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    net = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_embd=8, n_layer=1, n_head=2)).eval()
    for spec in ("rope:factor=2", "xpos"):
        with pytest.raises(ConfigError, match="has no rotary embedding"):
            extend(net, spec)


def test_names() -> None:
    for name, kind in (("linear", "linear"), ("power", "power"), ("truncated", "truncated")):
        made = method_class(f"giraffe-{name}")
        assert issubclass(made, Rope)
        assert made(factor=2).kind == kind
        assert made(factor=2).spec() == f"giraffe-{name}:factor=2"
