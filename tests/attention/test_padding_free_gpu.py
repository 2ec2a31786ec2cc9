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


def small(pooler: bool = False) -> Any:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        num_hidden_layers=2,
        vocab_size=500,
        hidden_size=128,
        num_attention_heads=2,
        intermediate_size=256,
    )
    return BertModel(config, add_pooling_layer=pooler).half().cuda().eval()


def batch_of(lengths: tuple[int, ...], seed: int) -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(60)[None] < torch.tensor(lengths)[:, None]
    return torch.randint(3, 500, mask.shape, generator=generator).cuda(), mask


@pytest.mark.parametrize("pooler", [False, True])
def test_one_graph_serves_all_batches_of_a_size(pooler: bool) -> None:
    model = small(pooler=pooler)
    turns = [(60, 40, 1, 9), (1, 60, 9, 40), (30, 30, 50, 0), (60, 50, 0, 0), (28, 27, 28, 27)]
    with torch.inference_mode():
        right = []
        for seed, lengths in enumerate(turns):
            ids, mask = batch_of(lengths, seed)
            right.append(model(ids, attention_mask=mask.cuda(), output_hidden_states=True))
        with extend(model, "padding-free:graphs=true") as reader:
            for _ in range(2):
                kept = []
                for seed, lengths in enumerate(turns):
                    ids, mask = batch_of(lengths, seed)
                    kept.append(model(ids, attention_mask=mask, output_hidden_states=True))
                for lengths, ours, stock in zip(turns, kept, right, strict=True):
                    mask = batch_of(lengths, 0)[1].cuda()
                    for a, b in zip(ours.hidden_states, stock.hidden_states, strict=True):
                        assert float((a[mask] - b[mask]).abs().max()) < 0.02
                        assert not a[~mask].any()
                    if pooler:
                        there = torch.tensor(lengths) > 0
                        apart = ours.pooler_output[there] - stock.pooler_output[there]
                        assert float(apart.abs().max()) < 0.02
            held = reader._replays._graphs  # type: ignore[attr-defined]  # of this extension
            assert len(held) == 1
            assert all(each.graph is not None for each in held.values())


def test_weights_that_change_or_move_are_seen_by_graphs() -> None:
    model = small()
    ids, mask = batch_of((60, 40, 1, 9), 0)
    with extend(model, "padding-free:graphs=true"), torch.no_grad():
        for change in ("none", "in place", "moved"):
            weight = model.encoder.layer[0].output.dense.weight
            if change == "in place":
                weight.mul_(-1)
            if change == "moved":
                weight.data = weight.data * 3
            outs = [model(ids, attention_mask=mask).last_hidden_state for _ in range(4)]
            assert all(torch.equal(outs[1], out) for out in outs[2:])
            alone = model(ids[1:2, :40]).last_hidden_state
            assert float((outs[3][1, :40] - alone[0]).abs().max()) < 0.02
    ids.fill_(0)
    model.train()
    with extend(model, "padding-free:graphs=true"):  # training is compiled, never replayed
        model(ids, attention_mask=mask).last_hidden_state.sum().backward()
    assert model.encoder.layer[0].output.dense.weight.grad is not None


def test_what_no_graph_can_hold_runs_without_one() -> None:
    model = small().float()
    ids, mask = batch_of((60, 40, 1, 9), 0)
    with torch.no_grad():
        stock = model(ids, attention_mask=mask.cuda()).last_hidden_state
        with extend(model, "padding-free:graphs=true"):
            with pytest.warns(RuntimeWarning, match="without a CUDA graph.*dtype is torch.float32"):
                out = model(ids, attention_mask=mask).last_hidden_state
            again = model(ids, attention_mask=mask).last_hidden_state
    assert float((out[mask.cuda()] - stock[mask.cuda()]).abs().max()) < 1e-3
    assert torch.equal(out, again)
