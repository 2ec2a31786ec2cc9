"""Adapting an encoder by masked tokens: it learns, it packs without loss, it resumes exactly."""

import pytest
import torch

from unspool.errors import ConfigError, InputError, RunConflict
from unspool.models.long_encoder import LongEncoder, LongEncoderConfig
from unspool.models.long_encoder.adapt import AdaptSettings, adapt, mask_tokens, pack

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", *"abcdefghij"]


def _tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        unk_token="[UNK]",
    )


def _model(kind="longformer"):
    torch.manual_seed(0)
    return LongEncoder(
        LongEncoderConfig(
            kind=kind,
            vocab_size=len(WORDS),
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=40,
            pad_token_id=0,
            window=4,
            block=2,
            random_blocks=1,
            initializer_range=0.1,
        )
    )


def test_packing_keeps_every_token():
    texts = ["a b c", "", "d e f g h i j", "a"]
    rows, tokens = pack(texts, _tokenizer(), 6)
    assert tokens == 11
    assert (rows[:, 0] == 1).all()
    assert rows[:, 1:].flatten().tolist() == [
        WORDS.index(w)
        for w in [
            "a",
            "b",
            "c",
            "[SEP]",
            "d",
            "e",
            "f",
            "g",
            "h",
            "i",
            "j",
            "[SEP]",
            "a",
            "[SEP]",
            "[PAD]",
        ]
    ]
    with pytest.raises(InputError, match="no text"):
        pack([""], _tokenizer(), 6)


def test_masks_follow_the_shares_of_bert_and_spare_special_tokens():
    rows = torch.randint(5, 15, (50, 200))
    rows[:, 0] = 1
    special = torch.arange(5)
    hidden, chosen = mask_tokens(
        rows, share=0.15, special=special, mask_id=3, vocab_size=15, seed=1
    )
    assert not chosen[:, 0].any()
    assert torch.equal(hidden[~chosen], rows[~chosen])
    assert abs(chosen.float().mean() - 0.15) < 0.01
    assert abs((hidden[chosen] == 3).float().mean() - 0.8) < 0.04
    again = mask_tokens(rows, share=0.15, special=special, mask_id=3, vocab_size=15, seed=1)
    assert torch.equal(again[0], hidden)


@pytest.mark.parametrize("kind", ["longformer", "bigbird"])
def test_an_interrupted_run_ends_where_one_run_does(kind, tmp_path):
    texts = ["a b c d e f g h i j " * 8] * 4
    settings = AdaptSettings(steps=8, length=24, batch=2, learning_rate=5e-3, save_every=3)
    whole = _model(kind)
    first = adapt(whole, _tokenizer(), texts, tmp_path / "whole", settings, device="cpu")

    def stop(step, loss):
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapt(
            _model(kind),
            _tokenizer(),
            texts,
            tmp_path / "parts",
            settings,
            device="cpu",
            on_step=stop,
        )
    other = _model(kind)
    again = adapt(other, _tokenizer(), texts, tmp_path / "parts", settings, device="cpu")
    assert again.resumed_at == 3
    assert again.losses == pytest.approx(first.losses[3:], abs=1e-5)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, atol=1e-5, rtol=1e-4)
    with pytest.raises(RunConflict, match="other texts"):
        adapt(_model(kind), _tokenizer(), ["a b"], tmp_path / "parts", settings, device="cpu")


def test_it_learns_the_order_of_a_text(tmp_path):
    settings = AdaptSettings(steps=120, length=32, batch=4, learning_rate=1e-2, warmup=5)
    model = _model()
    done = adapt(
        model, _tokenizer(), ["a b c d e f g h i j " * 30], tmp_path, settings, device="cpu"
    )
    assert sum(done.losses[-10:]) < 0.6 * sum(done.losses[:10])


def test_settings_that_cannot_work_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="masked must lie"):
        AdaptSettings(masked=1.5)
    with pytest.raises(ConfigError, match="more than the 39 tokens"):
        adapt(_model(), _tokenizer(), ["a"], tmp_path, AdaptSettings(length=64))
