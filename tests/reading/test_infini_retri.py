from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.reading.tiny import QUESTION, TEXT, byte_tokenizer, plain, tiny
from unspool.errors import ConfigError, InputError, OverflowPolicyError
from unspool.extension import extend
from unspool.reading.answering import token_offsets
from unspool.reading.infini_retri import (
    InfiniRetri,
    best_sentences,
    chunks_of,
    row_weights,
    smooth,
    token_scores,
)
from unspool.reading.long_text import LongText
from unspool.reading.reader import Reader
from unspool.reading.retrieval_layer import layer_recalls, retrieval_layer
from unspool.reading.sentences import Sentence, token_sentences
from unspool.types import Document

SMALL = "infini-retri:chunk=200,top_k=12,max_kept=150"


def opened(spec: str, **options: Any) -> Any:
    return extend(tiny(**options), spec, tokenizer=byte_tokenizer())


# ---- scores


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 9))
def test_smoothing_is_a_box_convolution(length: int, span: int, seed: int) -> None:
    row = np.random.default_rng(seed).random(length)
    want = np.convolve(row, np.ones(min(span, length)), mode="same")
    found = smooth(torch.tensor(row), span).numpy()
    np.testing.assert_allclose(found, want, atol=1e-12)


@pytest.mark.parametrize("layer", [0, 1, -1])
@pytest.mark.parametrize("span", [1, 8])
def test_scores_equal_those_of_the_whole_attention_matrix(layer: int, span: int) -> None:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, 250, (300,), generator=generator).tolist()
    first, end = 11, 270
    model = tiny()
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            whole = model(torch.tensor([ids]), output_attentions=True, use_cache=False).attentions
    finally:
        model.set_attn_implementation("sdpa")
    a = whole[layer][0].double().sum(0).numpy()
    weights = a[end:, end:].sum(1)
    want = np.zeros(end - first)
    for row, weight in zip(a[end:, first:end], weights, strict=True):
        want += weight**2 * np.convolve(row, np.ones(span), mode="same")
    with opened("infini-retri") as extension:
        rows = Reader(extension).rows(ids, layer, end)
    found = token_scores(rows[:, first:end], row_weights(rows, end), span)
    np.testing.assert_allclose(found.numpy(), want, rtol=1e-4)


def test_rows_of_a_sliding_layer_are_refused() -> None:
    opening = opened("infini-retri:layer=0,chunk=100", family="gemma3")
    with opening as extension, pytest.raises(ConfigError, match="layer=0"):
        extension.ask(TEXT[:100], QUESTION)
    with opened("infini-retri:chunk=100", family="gemma3") as extension:
        assert extension.ask(TEXT, QUESTION, max_new_tokens=3).evidence


# ---- sentences, chunks, and what is kept


@given(st.text(alphabet="aB .!?。\n\té日1", max_size=300), st.integers(1, 30))
def test_sentences_hold_every_token_once(words: str, most: int) -> None:
    if not words.strip():
        return
    text = LongText([Document("a", words), Document("b", "x. " + words)])
    ids, offsets = token_offsets(byte_tokenizer(), text)
    found = token_sentences(text, offsets, most)
    assert [t for s in found for t in range(s.first, s.last)] == list(range(len(ids)))
    assert all(0 < s.tokens <= most for s in found)
    for s in found:
        for span in text.spans(s.start, s.end):
            data = {"a": words, "b": "x. " + words}[span.document].encode()
            assert data[span.start : span.end].decode() == span.text


def test_a_sentence_is_what_people_call_one() -> None:
    words = "Mr. A. Smith paid 3.14 crowns. Then he left!\n\nA new part begins. 日本。中国。"
    text = LongText(words)
    _, offsets = token_offsets(byte_tokenizer(), text)
    found = [words[s.start : s.end] for s in token_sentences(text, offsets, 100)]
    assert found[:3] == ["Mr. A. Smith paid 3.14 crowns.", "Then he left!", "A new part begins."]
    assert "".join(found[3:]) == "日本。中国。"


@given(st.lists(st.integers(1, 20), max_size=40), st.integers(20, 60))
def test_chunks_hold_whole_sentences_in_order(sizes: list[int], chunk: int) -> None:
    places = [0, *np.cumsum(sizes).tolist()]
    sentences = [Sentence(a, b, a, b) for a, b in pairwise(places)]
    groups = chunks_of(sentences, chunk)
    assert [n for group in groups for n in group] == list(range(len(sizes)))
    totals = [sum(sizes[n] for n in group) for group in groups]
    assert all(0 < total <= chunk for total in totals)


def test_a_short_last_chunk_shares_with_the_one_before() -> None:
    sentences = [Sentence(i * 10, i * 10 + 10, 0, 1) for i in range(11)]
    groups = chunks_of(sentences, 100)
    assert [len(group) for group in groups] == [5, 6]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(1, 40), st.integers(1, 30))
def test_kept_sentences_hold_the_best_tokens_and_stay_small(
    sizes: list[int], top_k: int, most: int
) -> None:
    scores = np.random.default_rng(sum(sizes)).integers(0, 9, sum(sizes)).astype(float)
    found = best_sentences(torch.tensor(scores), sizes, top_k, most)
    owner = [place for place, size in enumerate(sizes) for _ in range(size)]
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:top_k]
    ranked = list(dict.fromkeys(owner[i] for i in order))
    while sum(sizes[p] for p in ranked) > most and len(ranked) > 1:
        ranked.pop()
    assert [place for place, _ in found] == sorted(ranked)
    for place, score in found:
        assert score == max(scores[i] for i in range(len(scores)) if owner[i] == place)


# ---- through the extension


def test_keeping_everything_is_the_plain_model() -> None:
    words = TEXT[:150]
    with opened("infini-retri:chunk=240,top_k=999") as extension:
        answer = extension.ask(words, QUESTION, max_new_tokens=6)
    assert answer.text == plain(tiny(), f"{words}\n\n{QUESTION}\nAnswer:", 6)
    assert answer.usage.dropped_tokens == 0


def test_evidence_quotes_bytes_and_counts_add_up() -> None:
    data = TEXT.encode()
    tokenizer = byte_tokenizer()
    tail = len(tokenizer.encode(f"\n\n{QUESTION}\nAnswer:"))
    with opened(SMALL) as extension:
        answer = extension.ask(TEXT, QUESTION, max_new_tokens=5)
        selected = extension.select(TEXT, QUESTION, max_new_tokens=5)
    assert answer.evidence
    for passage in answer.evidence:
        span = passage.span
        assert data[span.start : span.end].decode() == span.text
        assert span.text == span.text.strip()
    assert {p.span for p in selected} == {p.span for p in answer.evidence}
    assert [p.span.start for p in selected] == sorted(p.span.start for p in selected)
    assert answer.usage.input_tokens == len(data) + tail
    assert 0 < len(data) - answer.usage.dropped_tokens <= 150


def test_evidence_of_documents_names_them() -> None:
    documents = [Document("one.txt", "Nothing here. " * 9), Document("two.txt", TEXT[:400])]
    with opened("infini-retri:chunk=200,top_k=200,max_kept=200") as extension:
        found = extension.select(documents, QUESTION)
    assert {p.span.document for p in found} <= {"one.txt", "two.txt"}
    texts = {d.id: d.text.encode() for d in documents}
    for p in found:
        quoted = texts[p.span.document][p.span.start : p.span.end]
        assert quoted.decode() == p.span.text


@pytest.mark.parametrize("size", [1, 7, 100])
def test_any_cutting_of_the_input_gives_the_same(size: int, tmp_path: Path) -> None:
    with opened(SMALL) as extension:
        want = extension.select(TEXT, QUESTION)
        pieces = [TEXT[i : i + size] for i in range(0, len(TEXT), size)]
        assert extension.select(iter(pieces), QUESTION) == want
        place = tmp_path / "context"
        place.write_bytes(TEXT.encode())
        assert extension.select(place, QUESTION) == want


def test_generate_shortens_what_does_not_fit() -> None:
    ids = torch.tensor([byte_tokenizer().encode(TEXT)])
    with opened(SMALL) as extension:
        out = extension.generate(ids, max_new_tokens=4)
    assert out.shape[1] <= 150 + 128 + 4
    assert torch.equal(out[0, -132:-4], ids[0, -128:])


def test_without_row_weights_the_choice_is_another_one() -> None:
    with opened(SMALL) as extension:
        weighted = [p.score for p in extension.select(TEXT, QUESTION)]
    with opened(f"{SMALL},row_weights=none") as extension:
        plain_sums = [p.score for p in extension.select(TEXT, QUESTION)]
    assert weighted != plain_sums


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("infini-retri:chunk=0", "chunk >= 1"),
        ("infini-retri:max_kept=0", "max_kept=0"),
        ("infini-retri:layer=best", "layer='best'"),
    ],
)
def test_settings_that_cannot_work(spec: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        opened(spec)


def test_prompts_that_cannot_work() -> None:
    for spec, said in (("chunk=400,max_kept=100", r"400.*512"), ("layer=9,chunk=100", "layer=9")):
        opening = opened(f"infini-retri:{spec}")
        with opening as extension, pytest.raises(ConfigError, match=said):
            extension.ask(TEXT, QUESTION)
    with opened(SMALL) as extension:
        with pytest.raises(InputError, match="question"):
            extension.ask(TEXT, "")
        with pytest.raises(ConfigError, match=r"stream\(question"):
            extension.stream()


# ---- layer="auto"


class _OneLayerLooks(Reader):
    """A reader in which one layer attends from the question to the planted fact."""

    calls = 0

    def rows_of_layers(
        self, ids: Sequence[int], layers: Sequence[int], first_row: int
    ) -> list[torch.Tensor]:
        self.calls += 1
        text = bytes(byte_tokenizer().decode(ids), "utf-8")
        at = text.index(b"The password of the")
        rows = torch.rand(3, len(ids) - first_row, len(ids), generator=torch.Generator())
        rows[1, :, at : at + 30] += 5
        return list(rows)


def test_auto_takes_the_layer_that_finds_planted_facts(cache: Path) -> None:
    ids = byte_tokenizer().encode("a quiet filler of plain words. " * 40)
    with opened("infini-retri:layer=auto") as extension:
        reader = _OneLayerLooks(extension)
        method = InfiniRetri(layer="auto", chunk=300)
        assert retrieval_layer(reader, method, ids) == 1
        asked = reader.calls
        assert retrieval_layer(reader, method, ids) == 1
        assert reader.calls == asked  # kept
        kept = next(cache.glob("layers/*.json"))
        assert json.loads(kept.read_text())["layer"] == 1
        kept.write_text("{")
        assert retrieval_layer(reader, method, ids) == 1
        shares = layer_recalls(reader, method, ids)
        assert shares[1] > 2 * max(shares[0], shares[2])


def test_auto_works_through_ask() -> None:
    with opened("infini-retri:layer=auto,chunk=200,top_k=12") as extension:
        assert extension.ask(TEXT, QUESTION, max_new_tokens=2).evidence


# ---- methods that read everything


def test_dense_asks_about_the_whole_text() -> None:
    with opened("dense") as extension:
        answer = extension.ask(TEXT[:200], QUESTION, max_new_tokens=6)
        with pytest.raises(NotImplementedError, match="selects"):
            extension.select(TEXT[:200], QUESTION)
    assert answer.text == plain(tiny(), f"{TEXT[:200]}\n\n{QUESTION}\nAnswer:", 6)
    assert answer.usage.dropped_tokens == 0


def test_a_text_that_a_method_cannot_take_is_refused_before_it_is_read() -> None:
    told: list[int] = []
    with opened("dense") as extension, pytest.raises(OverflowPolicyError, match="512 in all"):
        extension.ask(TEXT, QUESTION, tell=lambda done, total: told.append(done))
    assert not told


def test_a_bounded_method_says_what_it_dropped() -> None:
    with opened("lm-infinite:local=64,sinks=4") as extension:
        usage = extension.ask(TEXT, QUESTION, max_new_tokens=4).usage
    assert usage.input_tokens == usage.read_tokens > 512
    assert usage.input_tokens - 68 <= usage.dropped_tokens + 8 <= usage.input_tokens
