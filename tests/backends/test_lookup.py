"""Drafts change how fast a text is written, never what is written."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backends.tiny import SENTENCES, network, saved, tokenizer
from unspool.backends.drafts import Draft, IndexDrafts, TextDrafts
from unspool.backends.lookup import Lookup
from unspool.backends.ngram import MixWeights, NgramMix
from unspool.errors import ConfigError
from unspool.extension import extend
from unspool.index.build import build_index
from unspool.index.open import open_index

KINDS = ("llama", "sliding", "gpt2")
PROMPT = SENTENCES[0] + " " + SENTENCES[0]


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The sentences as an index of tokens and as one of bytes."""
    folder = tmp_path_factory.mktemp("drafts")
    model = saved(folder / "model")
    (folder / "text.jsonl").write_text(
        "".join(json.dumps({"id": str(n), "text": t}) + "\n" for n, t in enumerate(SENTENCES))
    )
    for name, alphabet in (("tokens", f"tokenizer:{model}"), ("bytes", "bytes")):
        build_index([folder / "text.jsonl"], folder / name, alphabet=alphabet)
    return {name: open_index(folder / name) for name in ("tokens", "bytes")}


class Oracle:
    """Guesses right up to a wrong token at chosen places."""

    def __init__(self, truth: list[int], wrong: int) -> None:
        self.truth, self.wrong = truth, wrong

    def draft(self, ids: list[int], most: int) -> Draft:
        guess = self.truth[len(ids) : len(ids) + most]
        if self.wrong:
            for place in range(self.wrong, len(guess), self.wrong):
                guess[place] = (guess[place] + 1) % len(tokenizer())
        return Draft(guess, len(ids))


def ids_of(text: str = PROMPT) -> torch.Tensor:
    return torch.tensor([tokenizer()(text).input_ids])


def write(model: Any, ids: torch.Tensor, **options: Any) -> list[int]:
    settings = {"max_new_tokens": 40, "do_sample": False, "pad_token_id": 0}
    out = model.generate(ids, attention_mask=torch.ones_like(ids), **{**settings, **options})
    return out[0].tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", [0, 1, 2, 3, 7])
def test_the_text_is_the_same_whatever_is_guessed(kind: str, wrong: int) -> None:
    model = network(kind)
    plain = write(model, ids_of(), eos_token_id=None)
    lookup = Lookup(Oracle(plain, wrong), most=5)
    assert write(model, ids_of(), custom_generate=lookup, eos_token_id=None) == plain
    assert lookup.report.written == 40
    assert lookup.report.kept <= lookup.report.drafted
    if not wrong:  # every guess held: at most one of six tokens took a pass
        assert lookup.report.kept == lookup.report.drafted
        assert lookup.report.passes <= 10
    assert lookup.report.written == lookup.report.passes + lookup.report.kept


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, 1])
def test_sampled_text_is_that_of_the_seed(kind: str, seed: int) -> None:
    model = network(kind)
    sampling = {"do_sample": True, "temperature": 0.7, "top_k": 20}
    torch.manual_seed(seed)
    plain = write(model, ids_of(), **sampling)
    for drafter in (TextDrafts(), Oracle(plain, 3)):
        torch.manual_seed(seed)
        assert write(model, ids_of(), custom_generate=Lookup(drafter), **sampling) == plain


@pytest.mark.parametrize("most", [1, 2, 39, 40, 41])
def test_it_ends_where_the_plain_text_ends(most: int) -> None:
    model = network()
    plain = write(model, ids_of(), eos_token_id=None)
    for length in (1, 2, most):
        found = write(
            model,
            ids_of(),
            custom_generate=Lookup(Oracle(plain, 0)),
            max_new_tokens=length,
            eos_token_id=None,
        )
        assert found == write(model, ids_of(), max_new_tokens=length, eos_token_id=None)
    end = plain[ids_of().shape[1] + 5]  # a token that is written is made the end
    for drafter in (Oracle(plain, 0), Oracle(plain, 2), TextDrafts()):
        assert write(model, ids_of(), custom_generate=Lookup(drafter), eos_token_id=end) == write(
            model, ids_of(), eos_token_id=end
        )


def test_processors_see_every_token_with_what_came_before() -> None:
    model = network()
    options = {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3}
    plain = write(model, ids_of(), **options)
    assert write(model, ids_of(), custom_generate=Lookup(Oracle(plain, 4)), **options) == plain


@pytest.mark.parametrize("weights", [None, "same"])
def test_an_extended_model_goes_on_from_its_stream(weights: Any) -> None:
    model = network()
    ids = ids_of()[0].tolist()
    with extend(model, "dense", tokenizer=tokenizer(), weights=weights) as extension:
        plain = extension.stream().feed(ids).generate(max_new_tokens=20, do_sample=False)
        stream = extension.stream().feed(ids)
        lookup = Lookup(TextDrafts())
        found = stream.generate(max_new_tokens=20, do_sample=False, custom_generate=lookup)
        assert found == plain
        report = stream.report().usage
        assert report.input_tokens == len(ids) + lookup.report.written
        more = stream.generate(max_new_tokens=5, do_sample=False)
        once = extension.stream().feed(ids)
        assert plain + more == once.generate(max_new_tokens=25, do_sample=False)


def test_the_cache_is_left_as_after_plain_writing() -> None:
    model = network()
    plain = write(model, ids_of(), eos_token_id=None)
    for wrong in (0, 1, 3):
        out = model.generate(
            ids_of(),
            attention_mask=torch.ones_like(ids_of()),
            max_new_tokens=17,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            custom_generate=Lookup(Oracle(plain, wrong)),
            return_dict_in_generate=True,
        )
        assert out.past_key_values.get_seq_length() == out.sequences.shape[1] - 1


def test_what_it_cannot_do_is_refused() -> None:
    model, ids = network(), ids_of()
    with pytest.raises(ConfigError, match="one sequence"):
        write(model, ids.repeat(2, 1), custom_generate=Lookup())
    with pytest.raises(ConfigError, match="beams"):
        write(model, ids, custom_generate=Lookup(), num_beams=2)
    with pytest.raises(ConfigError, match="scores"):
        write(
            model,
            ids,
            custom_generate=Lookup(),
            output_scores=True,
            return_dict_in_generate=True,
        )
    with (
        extend(model, "streaming-llm:window=16", tokenizer=tokenizer()) as extension,
        pytest.raises(ConfigError, match="cannot give tokens back"),
    ):
        extension.stream().feed(ids[0].tolist()).generate(custom_generate=Lookup())
    for call in (lambda: Lookup(most=0), lambda: TextDrafts(0)):
        with pytest.raises(ConfigError, match="at least 1"):
            call()


def longest_earlier(ids: list[int], least: int) -> tuple[int, int]:
    """By loops: the longest match of the end that ends earlier, and where the latest such ends."""
    best, place = 0, 0
    for after in range(1, len(ids)):
        length = 0
        while length < after and ids[after - 1 - length] == ids[len(ids) - 1 - length]:
            length += 1
        if length >= least and length >= best:
            best, place = length, after
    return best, place


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 2), max_size=40), st.integers(1, 4), st.integers(0, 6))
def test_text_drafts_follow_the_latest_longest_match(ids: list[int], match: int, most: int) -> None:
    drafter = TextDrafts(match)
    drafter.draft(ids[: len(ids) // 2], 1)  # grows with the text
    found = drafter.draft(ids, most)
    length, place = longest_earlier(ids, match)
    if not length or not most:
        assert found == Draft([], 0)
    else:
        assert found == Draft(ids[place : place + most], length)


def test_a_text_that_is_no_continuation_is_learnt_anew() -> None:
    drafter = TextDrafts(1)
    drafter.draft([1, 2, 3, 1], 2)
    assert drafter.draft([4, 5, 4], 2).tokens == [5, 4]


@pytest.mark.parametrize("name", ["tokens", "bytes"])
def test_index_drafts_are_what_the_corpus_says(indexes: dict[str, Any], name: str) -> None:
    drafter = IndexDrafts(indexes[name], tokenizer())
    ids = tokenizer()("Look: The quick brown fox jumps").input_ids
    found = drafter.draft(ids, 20)
    text = tokenizer().decode(ids + found.tokens)
    assert found.tokens
    assert SENTENCES[0].startswith(text.removeprefix("Look: "))
    assert found.match >= 3
    assert drafter.draft(tokenizer()("zq zq").input_ids, 5).tokens == []
    assert drafter.draft(ids, 0) == drafter.draft([], 5) == Draft([], 0)


def test_an_unlikely_chain_ends_early(indexes: dict[str, Any]) -> None:
    ids = tokenizer()("The quick brown").input_ids
    sure = IndexDrafts(indexes["tokens"], tokenizer(), chance=1.0)
    assert sure.draft(ids, 30).tokens  # the corpus has one continuation
    half = tokenizer()("o").input_ids  # what follows differs
    assert (
        len(IndexDrafts(indexes["tokens"], tokenizer(), chance=1.0, match=1).draft(half, 30).tokens)
        < 30
    )


@pytest.mark.parametrize("name", ["tokens", "bytes"])
def test_drafts_from_an_index_leave_the_text_alone(indexes: dict[str, Any], name: str) -> None:
    model, ids = network(), ids_of("The quick brown fox")
    drafter = IndexDrafts(indexes[name], tokenizer(), match=1, chance=0.05)
    assert write(model, ids, custom_generate=Lookup(drafter)) == write(model, ids)
    # A model that writes what stands in the corpus, so that guesses hold.
    corpus = NgramMix(indexes["tokens"], tokenizer(), MixWeights(sparse=1, other=1))
    plain = write(model, ids, logits_processor=[corpus])
    lookup = Lookup(drafter)
    assert write(model, ids, logits_processor=[corpus], custom_generate=lookup) == plain
    assert lookup.report.kept >= 4


def test_the_longest_match_is_followed() -> None:
    class Fixed:
        def __init__(self, token: int, match: int) -> None:
            self.given = Draft([token], match)

        def draft(self, ids: list[int], most: int) -> Draft:
            return self.given

    lookup = Lookup(Fixed(1, 2), Fixed(2, 5), Fixed(3, 5))
    assert lookup._draft([0], 4).tokens == [2]


def test_an_index_of_another_tokenizer_is_refused(indexes: dict[str, Any]) -> None:
    other = tokenizer().__class__(tokenizer_object=tokenizer().backend_tokenizer)
    other.add_tokens(["<another>"])
    with pytest.raises(ConfigError, match="another tokenizer"):
        IndexDrafts(indexes["tokens"], other)
    with pytest.raises(ConfigError, match="chance"):
        IndexDrafts(indexes["bytes"], tokenizer(), chance=2.0)
