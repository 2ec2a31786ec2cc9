"""The method `xpos` on tiny models, against its definition written out for one layer."""

from __future__ import annotations

import math

import pytest
import torch

from tests.positions import tiny
from unspool.errors import ConfigError, Unsupported
from unspool.extension import extend


def by_definition(net: torch.nn.Module, text: torch.Tensor, scale_base: float) -> torch.Tensor:
    """Hidden states after one attention layer, one pair of tokens at a time, in float64."""
    layer = net.model.layers[0]
    hidden = net.model.embed_tokens(text)
    x = layer.input_layernorm(hidden)[0].double()
    heads, dim, length = 2, 16, text.shape[1]
    project = {n: getattr(layer.self_attn, f"{n}_proj").weight.double() for n in "qkvo"}
    q, k, v = ((x @ project[n].T).view(length, -1, dim) for n in "qkv")
    out = torch.zeros(length, heads, dim, dtype=torch.float64)
    for h in range(heads):
        for i in range(length):
            logits = []
            for j in range(i + 1):
                total = 0.0
                for n in range(dim // 2):
                    a, b = q[i, h, n], q[i, h, n + dim // 2]
                    c, d = k[j, 0, n], k[j, 0, n + dim // 2]
                    angle = (i - j) * 1e4 ** (-2 * n / dim)
                    zeta = (2 * n + 0.4 * dim) / (1.4 * dim)
                    fade = zeta ** ((i - j) / scale_base)
                    total += fade * float(
                        (a * c + b * d) * math.cos(angle) + (a * d - b * c) * math.sin(angle)
                    )
                logits.append(total / math.sqrt(dim))
            weights = torch.softmax(torch.tensor(logits, dtype=torch.float64), 0)
            out[i, h] = weights @ v[: i + 1, 0]
    return (hidden[0].double() + out.reshape(length, -1) @ project["o"].T).float()


def test_one_layer_matches_the_definition() -> None:
    net, text = tiny.network("llama", num_hidden_layers=1), tiny.ids(1, 12)
    seen = {}
    layer = net.model.layers[0]
    handle = layer.post_attention_layernorm.register_forward_pre_hook(
        lambda module, args: seen.update(x=args[0])
    )
    with extend(net, "xpos:scale_base=4"):
        tiny.logits(net, text)
    with torch.no_grad():
        expected = by_definition(net, text, 4)
    torch.testing.assert_close(seen["x"][0], expected, atol=2e-5, rtol=2e-5)
    with extend(net, "xpos:scale_base=40"):
        tiny.logits(net, text)
    assert (seen["x"][0] - expected).abs().max() > 1e-2
    handle.remove()


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "cohere", "gemma3", "qwen3"])
def test_chunks_padding_and_the_limit(family: str) -> None:
    net, text = tiny.network(family), tiny.ids(1, 40)
    stock = tiny.logits(net, text)
    with extend(net, "xpos:scale_base=1e12"):
        torch.testing.assert_close(tiny.logits(net, text), stock, atol=2e-4, rtol=2e-4)
    with extend(net, "xpos:scale_base=16") as extension:
        whole = tiny.logits(net, text)[0]
        assert (whole - stock[0]).abs().max() > 1e-2
        cache = extension.new_cache()
        with torch.no_grad():
            steps = [net(text[:, a : a + 9], past_key_values=cache).logits for a in range(0, 36, 9)]
            steps += [net(text[:, i : i + 1], past_key_values=cache).logits for i in range(36, 40)]
        torch.testing.assert_close(torch.cat(steps, 1)[0], whole, atol=2e-4, rtol=2e-4)
        padded = torch.cat([torch.zeros(1, 5, dtype=torch.long), text], dim=1)
        mask = (padded != 0).long()
        shifted = tiny.logits(net, padded, attention_mask=mask)[0, 5:]
        torch.testing.assert_close(shifted, whole, atol=2e-4, rtol=2e-4)
        with pytest.raises(Unsupported, match="rope_parameters cannot say that"):
            extension.export()
    assert torch.equal(tiny.logits(net, text), stock)


def test_trains_and_takes_low_precision() -> None:
    net, text = tiny.network("llama"), tiny.ids(2, 24)
    with extend(net, "xpos"):
        net.train()
        net(text, labels=text, use_cache=False).loss.backward()
        gradient = net.model.layers[0].self_attn.k_proj.weight.grad
        assert gradient is not None
        assert bool(torch.isfinite(gradient).all())
        assert bool(gradient.abs().sum() > 0)
    low = tiny.network("llama").bfloat16()
    with extend(low, "xpos:scale_base=8"):
        assert tiny.logits(low, text).dtype == torch.bfloat16


def test_settings() -> None:
    net = tiny.network("llama")
    with pytest.raises(ConfigError, match="scale_base above 0 tokens, got -1"):
        extend(net, "xpos:scale_base=-1")
    with extend(net, "rope:factor=2+xpos") as both:  # the stretch first, the fading on top
        assert both.capacity is None
        assert bool(torch.isfinite(tiny.logits(net, tiny.ids(1, 50))).all())
