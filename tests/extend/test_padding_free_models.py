"""Padding-free encoders against the same model run sentence by sentence, and its training."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

import unspool
from unspool.attention.padding_free import PackingCollator, PaddingFree, encoder_flops
from unspool.errors import ConfigError, OverflowPolicyError, Unsupported

VOCABULARY, WIDTH = 99, 20
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
FAMILIES = ("bert", "roberta", "albert", "distilbert", "modernbert", "electra", "t5", "llama")
QUICK = ("bert", "roberta", "modernbert")
families = pytest.mark.parametrize(
    "family", [f if f in QUICK else pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES]
)


@functools.cache
def build(family: str, dropout: float = 0.0) -> Any:
    torch.manual_seed(0)
    off = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    if family == "bert":
        return transformers.BertModel(transformers.BertConfig(**SHAPE, **off)).eval()
    if family == "roberta":
        config = transformers.RobertaConfig(**SHAPE, **off, pad_token_id=1)
        return transformers.RobertaModel(config).eval()
    if family == "albert":
        config = transformers.AlbertConfig(**SHAPE, embedding_size=16)
        return transformers.AlbertModel(config).eval()
    if family == "electra":
        return transformers.ElectraModel(transformers.ElectraConfig(**SHAPE)).eval()
    if family == "modernbert":
        tokens = dict.fromkeys(("pad", "cls", "bos", "sep", "eos"), 0)
        named = {f"{name}_token_id": i for i, name in enumerate(tokens)}
        config = transformers.ModernBertConfig(
            **SHAPE, **named, local_attention=6, global_attn_every_n_layers=2
        )
        return transformers.ModernBertModel(config).eval()
    if family == "distilbert":
        config = transformers.DistilBertConfig(
            vocab_size=VOCABULARY,
            dim=32,
            n_layers=2,
            n_heads=4,
            hidden_dim=48,
            max_position_embeddings=40,
        )
        return transformers.DistilBertModel(config).eval()
    if family == "t5":
        config = transformers.T5Config(
            vocab_size=VOCABULARY, d_model=32, d_kv=8, num_layers=2, num_heads=4, d_ff=48
        )
        return transformers.T5EncoderModel(config).eval()
    return transformers.LlamaModel(transformers.LlamaConfig(**SHAPE)).eval()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Right and left padding, holes, an empty sentence, a full one; ids at padding are no ids."""
    mask = torch.zeros(6, WIDTH, dtype=torch.long)
    mask[0, :9] = mask[1, -7:] = mask[3] = 1
    mask[4, [2, 3, 7, 11]] = 1
    mask[5, :1] = 1
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, VOCABULARY, (6, WIDTH), generator=generator)
    return ids.masked_fill(mask == 0, -7), mask


def alone(model: Any, ids: Any, mask: Any) -> list[Any]:
    with torch.no_grad():
        return [
            model(row[kept][None]).last_hidden_state[0] if kept.any() else None
            for row, kept in zip(ids, mask.bool(), strict=True)
        ]


@families
def test_packed_sentences_equal_sentences_alone(family: str) -> None:
    model = build(family)
    ids, mask = batch()
    expected = alone(model, ids, mask)
    with unspool.extend(model, "padding-free") as reader, torch.no_grad():
        out = model(ids, attention_mask=mask, output_hidden_states=True)
        report = reader.report()
    states = out.last_hidden_state
    assert states.shape == (*mask.shape, 32)
    for row, kept, right in zip(states, mask.bool(), expected, strict=True):
        if right is not None:
            torch.testing.assert_close(row[kept], right, rtol=0, atol=1e-5)
    assert not states[mask == 0].any()
    assert all(each.shape == states.shape for each in out.hidden_states)
    assert torch.equal(out.hidden_states[-1], states)
    assert (report.tokens, report.padded_tokens) == (int(mask.sum()), mask.numel())
    assert report.sequences == 6


@families
def test_whatever_lies_at_padding_changes_nothing(family: str) -> None:
    model = build(family)
    ids, mask = batch()
    embeds = model.get_input_embeddings()(ids.clamp(min=0)).detach()
    outs = []
    with unspool.extend(model, "padding-free"), torch.no_grad():
        for garbage in (0.0, float("nan"), 1e30):
            given = embeds.masked_fill(mask[..., None] == 0, garbage)
            outs.append(model(inputs_embeds=given, attention_mask=mask).last_hidden_state)
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[0], outs[2])


@families
def test_the_model_comes_back(family: str) -> None:
    model = build(family)
    ids, mask = batch()
    ids = ids.clamp(min=0)
    with torch.no_grad():
        before = model(ids, attention_mask=mask).last_hidden_state
        state = set(model.state_dict())
        attributes = {name: set(m.__dict__) for name, m in model.named_modules()}
        hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
        with unspool.extend(model, "padding-free"):
            assert set(model.state_dict()) == state
        assert torch.equal(model(ids, attention_mask=mask).last_hidden_state, before)
    assert {name: set(m.__dict__) for name, m in model.named_modules()} == attributes
    assert hooks == [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]


def test_a_padded_run_agrees_on_real_tokens_and_pools_the_same() -> None:
    model = build("bert")
    ids, mask = batch()
    rows = [0, 3, 5]  # padded on the right, as the stock model wants it
    ids, mask = ids[rows].clamp(min=0), mask[rows]
    with torch.no_grad():
        stock = model(ids, attention_mask=mask)
        with unspool.extend(model, "padding-free:multiple=16") as reader:
            ours = model(ids, attention_mask=mask)
            as_tuple = model(ids, attention_mask=mask, return_dict=False)
            assert reader.report().filled_tokens == 2 * (-int(mask.sum()) % 16)
    torch.testing.assert_close(ours.pooler_output, stock.pooler_output, rtol=0, atol=1e-5)
    assert torch.equal(as_tuple[0], ours.last_hidden_state)
    real = mask.bool()
    torch.testing.assert_close(
        ours.last_hidden_state[real], stock.last_hidden_state[real], rtol=0, atol=1e-5
    )


def test_heads_and_weight_gradients_are_those_of_padded_training() -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        **SHAPE, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    model = transformers.BertForMaskedLM(config).train()
    ids, mask = batch()
    rows = [0, 3, 5]
    ids, mask = ids[rows].clamp(min=0), mask[rows]
    labels = ids.masked_fill(mask == 0, -100)

    def gradients(**given: Any) -> dict[str, Any]:
        model.zero_grad()
        model(**given).loss.backward()
        found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        assert len(found) > 20
        return found

    stock = gradients(input_ids=ids, attention_mask=mask, labels=labels)
    features = [
        {"input_ids": row[kept].tolist(), "labels": row[kept].tolist()}
        for row, kept in zip(ids, mask.bool(), strict=True)
    ]
    with unspool.extend(model, PaddingFree()):
        padded = gradients(input_ids=ids, attention_mask=mask, labels=labels)
        packed = gradients(**PackingCollator()(features))
    for found in (padded, packed):
        for name, right in stock.items():
            torch.testing.assert_close(found[name], right, rtol=1e-4, atol=1e-6, msg=name)


def test_a_decoder_trains_on_packed_rows() -> None:
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE))
    rows = [[5, 6, 7, 8], [9, 10], [11, 12, 13]]
    total, count = 0.0, 0
    with torch.no_grad():
        for row in rows:
            given = torch.tensor([row])
            total += float(model(given, labels=given).loss) * (len(row) - 1)
            count += len(row) - 1
        with unspool.extend(model, "padding-free"):
            batch_ = PackingCollator(causal=True)([{"input_ids": row} for row in rows])
            loss = float(model(**batch_).loss)
    assert loss == pytest.approx(total / count, abs=1e-5)


def test_dropout_is_drawn_in_training_only() -> None:
    model = build("bert", 0.3)
    ids, mask = batch()
    with unspool.extend(model, "padding-free"), torch.no_grad():
        model.train()
        first = model(ids, attention_mask=mask).last_hidden_state
        second = model(ids, attention_mask=mask).last_hidden_state
        model.eval()
    assert not torch.equal(first, second)
    assert torch.isfinite(first).all()


def test_operations_are_those_of_the_real_tokens() -> None:
    """PyTorch's own counter, while the attention is written out."""
    model = build("bert")
    ids, mask = batch()
    lengths = mask.sum(1).tolist()
    with (
        unspool.extend(model, "padding-free"),
        torch.no_grad(),
        FlopCounterMode(display=False) as counter,
    ):
        model(ids, attention_mask=mask)
    pooler = 2 * len(mask) * 32 * 32
    ours = encoder_flops(lengths, hidden=32, layers=2, inner=48)
    counted = counter.get_total_flops() - pooler
    # Some releases do not count the CPU's fused attention; its share is known exactly.
    fused = 2 * 4 * 32 * sum(n * n for n in lengths)
    assert counted in (ours, ours - fused)


def test_empty_batches_and_batches_without_padding() -> None:
    model = build("bert")
    ids, mask = batch()
    with unspool.extend(model, "padding-free") as reader, torch.no_grad():
        nothing = model(ids, attention_mask=torch.zeros_like(mask)).last_hidden_state
        assert not nothing.any()
        whole = model(ids.clamp(min=0)).last_hidden_state
        assert reader.report().removed_tokens == mask.numel()
        one = model(ids[3:4], attention_mask=mask[3:4]).last_hidden_state
    torch.testing.assert_close(whole[3], alone(model, ids, mask)[3], rtol=0, atol=1e-5)
    torch.testing.assert_close(one[0], whole[3], rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # transformers 5.17
@pytest.mark.parametrize("family", ["deberta", "mpnet"])
def test_a_model_with_attention_of_its_own_is_refused(family: str) -> None:
    small = {name: value for name, value in SHAPE.items() if name != "vocab_size"}
    if family == "deberta":
        config = transformers.DebertaV2Config(
            vocab_size=99, **small, relative_attention=True, pos_att_type=["p2c", "c2p"]
        )
        model: Any = transformers.DebertaV2Model(config).eval()
        said = "DisentangledSelfAttention"
    else:
        model = transformers.MPNetModel(transformers.MPNetConfig(vocab_size=99, **small)).eval()
        said = "MPNetSelfAttention"
    with pytest.raises(ConfigError, match=said):
        unspool.extend(model, "padding-free")
    assert "forward" not in model.__dict__
    with pytest.raises(ConfigError, match=said):  # the first try left nothing behind
        unspool.extend(model, "padding-free")


def test_what_it_cannot_do_says_what_to_do() -> None:
    model = build("bert")
    ids, mask = batch()
    with pytest.raises(ConfigError, match="stands alone"):
        unspool.extend(model, "padding-free+softplus")
    with pytest.raises(ConfigError, match="layers must be all"):
        unspool.extend(model, "padding-free:layers=last:1")
    with pytest.raises(ConfigError, match="multiple >= 1"):
        PaddingFree(multiple=0)
    with unspool.extend(model, "padding-free") as reader:
        with pytest.raises(ConfigError, match="extended already"):
            unspool.extend(model, "padding-free")
        with pytest.raises(ConfigError, match="output_attentions"):
            model(ids, attention_mask=mask, output_attentions=True)
        with pytest.raises(ConfigError, match="mask of shape"):
            model(ids, attention_mask=torch.ones(6, 1, WIDTH, WIDTH))
        with pytest.raises(ConfigError, match="one value a token"):
            model(ids, attention_mask=mask, token_type_ids=torch.zeros(1, 5, dtype=torch.long))
        with pytest.raises(OverflowPolicyError, match="45 tokens, and BertModel has positions"):
            model(torch.ones(1, 45, dtype=torch.long))
        with pytest.raises(Unsupported, match="encoders and for training"):
            reader.generate(ids)
        with pytest.raises(ConfigError, match="pools the first token"):
            model(**PackingCollator()([{"input_ids": [1, 2]}]))
        assert "40 tokens" in reader.explain()
        assert reader.capacity == 40
    config = transformers.T5Config(vocab_size=99, d_model=32, d_kv=8, num_layers=1, num_heads=4)
    with pytest.raises(ConfigError, match="get_encoder"):
        unspool.extend(transformers.T5Model(config), "padding-free")
