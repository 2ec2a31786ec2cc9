"""Conversion of short encoders, and checkpoints that transformers wrote or reads."""

import json

import pytest
import torch

from unspool.errors import ConfigError, InputError, PathNotFound
from unspool.models.long_encoder.checkpoint import load, save
from unspool.models.long_encoder.conversion import convert

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "type_vocab_size": 2,
}


def _short(kind, folder):
    import transformers

    torch.manual_seed(0)
    if kind == "bert":
        config = transformers.BertConfig(**SIZES, max_position_embeddings=32, pad_token_id=0)
        model = transformers.BertForMaskedLM(config)
    else:
        config = transformers.RobertaConfig(**SIZES, max_position_embeddings=34, pad_token_id=1)
        model = transformers.RobertaForMaskedLM(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    if kind == "roberta":  # as any trained one: the row of padding is never read
        with torch.no_grad():
            model.roberta.embeddings.position_embeddings.weight[1] = 0
    model.save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize("kind", ["longformer", "bigbird"])
@pytest.mark.parametrize("short", ["bert", "roberta"])
def test_a_converted_model_reads_short_texts_like_the_short_one(kind, short, tmp_path):
    theirs = _short(short, tmp_path)
    model, fresh, unused = convert(tmp_path, kind=kind, max_length=100, window=64, block=4)
    assert set(fresh) == {"pooler.dense.weight", "pooler.dense.bias"}
    assert not unused
    assert model.config.max_length == 100
    ids = torch.randint(5, 60, (2, 32))
    mask = torch.ones_like(ids)
    pad = 0 if short == "bert" else 1
    ids[1, 20:], mask[1, 20:] = pad, 0
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask).logits
        hidden = model(ids, mask).last_hidden_state
        actual = model.masked_scores(hidden)
    torch.testing.assert_close(actual[mask > 0], expected[mask > 0], atol=1e-4, rtol=1e-4)
    with torch.no_grad():  # positions are copied one behind the other, so longer texts are read
        assert model(torch.randint(5, 60, (1, 100))).last_hidden_state.isfinite().all()
    table = model.embeddings.position_embeddings.weight[model.config.first_position :]
    torch.testing.assert_close(table[:32], table[32:64])
    torch.testing.assert_close(table[:4], table[96:])


@pytest.mark.parametrize("kind", ["longformer", "bigbird"])
def test_a_saved_model_is_read_by_transformers_and_by_us(kind, tmp_path):
    import transformers

    _short("bert", tmp_path / "short")
    model = convert(
        tmp_path / "short", kind=kind, max_length=100, window=8, block=8, random_blocks=1
    ).model
    save(model, tmp_path / "long")
    again, fresh, unused = load(tmp_path / "long")
    assert not fresh
    assert not unused
    assert again.config.to_hf() == model.config.to_hf()
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    ids = torch.randint(5, 60, (1, 40))
    with torch.no_grad():
        ours = model.masked_scores(model(ids).last_hidden_state)
        if kind == "longformer":
            theirs = transformers.LongformerForMaskedLM.from_pretrained(tmp_path / "long").eval()
            is_global = torch.zeros_like(ids)
            is_global[:, 0] = 1
            expected = theirs(
                ids, attention_mask=torch.ones_like(ids), global_attention_mask=is_global
            ).logits[:, :40]
        else:
            theirs = transformers.BigBirdForMaskedLM.from_pretrained(tmp_path / "long").eval()
            expected = theirs(ids, attention_mask=torch.ones_like(ids)).logits
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_native_checkpoints_of_either_kind_are_read(tmp_path):
    import transformers

    config = transformers.BigBirdConfig(**SIZES, max_position_embeddings=40)
    transformers.BigBirdForMaskedLM(config).save_pretrained(tmp_path / "bird")
    assert set(load(tmp_path / "bird").fresh) <= {"pooler.dense.weight", "pooler.dense.bias"}
    config = transformers.LongformerConfig(**SIZES, attention_window=4, max_position_embeddings=40)
    theirs = transformers.LongformerForSequenceClassification(config)
    theirs.save_pretrained(tmp_path / "former")
    loaded = load(tmp_path / "former")
    assert all(name.startswith("classifier.") for name in loaded.unused)
    assert loaded.unused


def test_what_is_no_encoder_is_refused(tmp_path):
    with pytest.raises(PathNotFound, match="neither a folder"):
        load(tmp_path / "nothing")
    with pytest.raises(InputError, match="holds no model"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ConfigError, match=r"is 'llama'"):
        convert(tmp_path)
    with pytest.raises(ConfigError, match="encoder convert"):
        load(tmp_path)
    _short("bert", tmp_path / "short")
    with pytest.raises(ConfigError, match="must be even"):
        convert(tmp_path / "short", window=5)
    (tmp_path / "short" / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match="cannot be read"):
        convert(tmp_path / "short")
