"""Packed rows on a GPU: every back-end against sentence by sentence, and a compiled model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from unspool.attention.padding_free.layout import flat
from unspool.attention.padding_free.varlen import varlen_attend
from unspool.extension import extend

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

LENGTHS = (300, 300, 1, 77, 64, 64, 2)


@pytest.mark.parametrize("backend", ["flash", "triton", "lengths"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 20])
def test_sentences_do_not_see_each_other(backend: Any, causal: bool, window: int | None) -> None:
    torch.manual_seed(0)
    shape = (1, 4, sum(LENGTHS), 64)
    given = [torch.randn(shape, device="cuda", dtype=torch.float16) for _ in range(3)]
    grads = torch.randn(shape, device="cuda", dtype=torch.float16)
    layout = flat(LENGTHS, torch.device("cuda"))
    inputs = [x.clone().requires_grad_() for x in given]
    got = varlen_attend(*inputs, layout, causal=causal, window=window, backend=backend)
    got.backward(grads)
    exact = [x.double().requires_grad_() for x in given]
    outs, start = [], 0
    for n in LENGTHS:
        at = torch.arange(n, device="cuda")
        distance = at[:, None] - at[None]
        seen = torch.ones(n, n, dtype=torch.bool, device="cuda")
        if window is not None:
            seen &= distance.abs() < window
        if causal:
            seen &= distance >= 0
        part = [x[:, :, start : start + n] for x in exact]
        outs.append(F.scaled_dot_product_attention(*part, attn_mask=seen))
        start += n
    right = torch.cat(outs, dim=2)
    right.backward(grads.double())
    assert float((got.double() - right).abs().max()) < 0.01
    for a, b in zip(inputs, exact, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert float((a.grad.double() - b.grad).abs().max()) < 0.02


@pytest.mark.parametrize("options", ["", ":compile=true", ":graphs=true"])
def test_a_half_precision_model_equals_its_sentences(options: str) -> None:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(num_hidden_layers=3, vocab_size=500)
    model = BertModel(config).half().cuda().eval()
    mask = torch.arange(90)[None] < torch.tensor([90, 3, 0, 41, 41])[:, None]
    for seed in range(3):  # several lengths through one compilation
        torch.manual_seed(seed)
        ids = torch.randint(3, 500, mask.shape, device="cuda")
        turned = mask.roll(seed, 0)
        with torch.inference_mode():
            alone = [
                model(row[kept.cuda()][None]).last_hidden_state[0] if kept.any() else None
                for row, kept in zip(ids, turned, strict=True)
            ]
            with extend(model, "padding-free" + options) as reader:
                out = model(ids, attention_mask=turned).last_hidden_state
                assert reader.report().seconds > 0
        for row, right in zip(out, alone, strict=True):
            if right is not None:
                assert float((row[: len(right)] - right).abs().max()) < 0.02
