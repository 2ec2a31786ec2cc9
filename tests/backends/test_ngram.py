"""The mixture of ∞-gram and model, against the definition with counts by hand."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backends.tiny import network, saved, tokenizer
from unspool.backends.lookup import Lookup
from unspool.backends.ngram import MixWeights, NgramMix, parse_mix
from unspool.errors import ConfigError
from unspool.index.build import build_index
from unspool.index.open import open_index

TEXTS = ["the fox saw the dog", "the fox saw the cat. the fox ran", "a cat ran"]
WEIGHTS = MixWeights(sparse=0.5, other=0.25)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("ngram")
    model = saved(folder / "model")
    (folder / "t.jsonl").write_text(
        "".join(json.dumps({"id": str(n), "text": t}) + "\n" for n, t in enumerate(TEXTS))
    )
    build_index([folder / "t.jsonl"], folder / "ix", alphabet=f"tokenizer:{model}")
    return open_index(folder / "ix")


def infinity_gram(prompt: list[int], end: int) -> dict[int, Fraction]:
    """What follows the longest suffix of a prompt in the texts, by loops."""
    documents = [tokenizer()(t, add_special_tokens=False).input_ids for t in TEXTS]
    for length in range(len(prompt), -1, -1):
        suffix = prompt[len(prompt) - length :]
        after: list[int] = []
        for ids in documents:
            for at in range(len(ids) - length + 1):
                if ids[at : at + length] == suffix:
                    after.append(ids[at + length] if at + length < len(ids) else end)
        if after:
            return {token: Fraction(after.count(token), len(after)) for token in set(after)}
    raise AssertionError


def mixed_by_hand(prompt: list[int], scores: np.ndarray, weights: MixWeights) -> np.ndarray:
    chances = np.exp(scores - scores.max())
    chances /= chances.sum()
    found = infinity_gram(prompt, tokenizer().eos_token_id)
    found = {t: p for t, p in found.items() if np.isfinite(scores[t])}
    weight = weights.sparse if len(infinity_gram(prompt, 1)) == 1 else weights.other
    out = chances * (1 - weight * float(sum(found.values())))
    for token, p in found.items():
        out[token] += weight * float(p)
    return out


@settings(max_examples=60, deadline=None)
@given(text=st.text("thefoxsawdgcrn .", max_size=30), seed=st.integers(0, 99))
def test_the_mixture_is_the_definition(index: Any, text: str, seed: int) -> None:
    prompt = tokenizer()(text, add_special_tokens=False).input_ids
    size = len(tokenizer())
    scores = np.random.default_rng(seed).normal(size=size)
    scores[seed % size] = -np.inf
    mix = NgramMix(index, tokenizer(), WEIGHTS)
    ids = torch.tensor([prompt], dtype=torch.long).reshape(1, -1)
    found = mix(ids, torch.tensor(scores[None], dtype=torch.float32)).exp()[0].numpy()
    np.testing.assert_allclose(found, mixed_by_hand(prompt, scores, WEIGHTS), atol=1e-6)
    assert found.sum() == pytest.approx(1, abs=1e-5)
    assert found[seed % size] == 0


def test_each_row_has_its_own_context(index: Any) -> None:
    rows = torch.tensor([tokenizer()(t).input_ids[-2:] for t in ("the fox", "a cat")])
    scores = torch.randn(2, len(tokenizer()), generator=torch.Generator().manual_seed(0))
    mix = NgramMix(index, tokenizer(), WEIGHTS)
    both = mix(rows, scores)
    for row in range(2):
        torch.testing.assert_close(mix(rows[row : row + 1], scores[row : row + 1])[0], both[row])


def test_what_was_read_before_counts_as_context(index: Any) -> None:
    ids = tokenizer()("the fox saw the").input_ids
    scores = torch.zeros(1, len(tokenizer()))
    whole = NgramMix(index, tokenizer(), WEIGHTS)(torch.tensor([ids]), scores)
    parted = NgramMix(index, tokenizer(), WEIGHTS, before=ids[:-1])
    torch.testing.assert_close(parted(torch.tensor([ids[-1:]]), scores), whole)
    alone = NgramMix(index, tokenizer(), WEIGHTS)(torch.tensor([ids[-1:]]), scores)
    assert not torch.equal(alone, whole)


def test_no_weight_leaves_the_model_alone(index: Any) -> None:
    model, ids = network(), torch.tensor([tokenizer()("the fox saw").input_ids])
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    options["attention_mask"] = torch.ones_like(ids)
    plain = model.generate(ids, **options)
    none = NgramMix(index, tokenizer(), MixWeights(sparse=0, other=0))
    assert torch.equal(model.generate(ids, logits_processor=[none], **options), plain)
    full = NgramMix(index, tokenizer(), MixWeights(sparse=1, other=1))
    written = model.generate(ids, logits_processor=[full], **options)[0].tolist()
    assert tokenizer().decode(written, skip_special_tokens=True).startswith("the fox saw the ")
    assert written != plain[0].tolist()
    drafted = model.generate(ids, logits_processor=[full], custom_generate=Lookup(), **options)
    assert drafted[0].tolist() == written


def test_sampling_warps_the_mixture(index: Any) -> None:
    """Temperature and top-k come after the mixture, as they would after the model."""
    model, ids = network(), torch.tensor([tokenizer()("the fox").input_ids])
    full = NgramMix(index, tokenizer(), MixWeights(sparse=1, other=1))
    torch.manual_seed(0)
    written = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        logits_processor=[full],
        do_sample=True,
        temperature=0.5,
        top_k=0,
        max_new_tokens=4,
        pad_token_id=0,
    )
    text = tokenizer().decode(written[0], skip_special_tokens=True)
    assert any(each.startswith(text) or text in each for each in TEXTS)


def test_a_byte_index_is_refused(tmp_path: Any) -> None:
    (tmp_path / "t.txt").write_text("some text")
    build_index([tmp_path / "t.txt"], tmp_path / "ix")
    with pytest.raises(ConfigError, match="--alphabet tokenizer"):
        NgramMix(open_index(tmp_path / "ix"), tokenizer())


def test_how_a_mixture_is_typed(tmp_path: Any) -> None:
    assert parse_mix("dir/ix") == ("dir/ix", MixWeights())
    assert parse_mix("ix:0.4") == ("ix", MixWeights(sparse=0.4, other=0.4))
    assert parse_mix("a:b:0.4,0.1") == ("a:b", MixWeights(sparse=0.4, other=0.1))
    assert parse_mix("C:ix")[0] == "C:ix"
    odd = tmp_path / "notes:1"
    odd.mkdir()
    assert parse_mix(str(odd))[0] == str(odd)
    for wrong in ("ix:2", "ix:-0.1", "ix:0.1,0.2,0.3", ":0.5"):
        with pytest.raises(ConfigError):
            parse_mix(wrong)
