"""HiP in a model: the choice that a layer remembers, and what leaves a layer dense."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from tests.extend.conftest import VOCABULARY, build, left_padded, tokens
from unspool.attention.hip.recall import picture, recall
from unspool.caches.chosen import ChosenStore
from unspool.errors import ConfigError, InputError
from unspool.extension import extend

SIZES = "block_q=8,k_tokens=8,window=8,sink=4,dense_layers=,dense_below=0"
HIP = f"hip:{SIZES},refresh=4"


def step(ext: Any, cache: Any, ids: Any, mask: Any = None) -> Any:
    with torch.no_grad():
        return ext.model(ids, attention_mask=mask, past_key_values=cache).logits[:, -1]


def stores(cache: Any) -> list[ChosenStore]:
    found = [store for store in cache.stores if isinstance(store, ChosenStore)]
    assert found
    return found


def test_a_choice_serves_its_tokens_and_is_then_made_anew() -> None:
    ids = tokens(1, 120)
    with extend(build("llama"), HIP) as ext:
        cache = ext.new_cache()
        step(ext, cache, ids[:, :100])
        assert all(store.choices == [] for store in stores(cache))
        seen = []
        for at in range(100, 109):
            step(ext, cache, ids[:, at : at + 1])
            choice = stores(cache)[0].choice(0)
            assert choice is not None
            seen.append((choice.age, choice.near, choice.k.data_ptr()))
    assert [age for age, _, _ in seen] == [1, 2, 3, 4, 1, 2, 3, 4, 1]
    assert len({near for _, near, _ in seen[:4]}) == 1
    assert seen[4][1] == seen[3][1] + 4  # the window moves on when the choice is made anew


def test_giving_tokens_back_forgets_the_choice() -> None:
    ids = tokens(1, 112)
    with extend(build("llama"), HIP) as ext:
        cache, other = ext.new_cache(), ext.new_cache()
        step(ext, cache, ids[:, :100])
        for at in range(100, 106):
            step(ext, cache, ids[:, at : at + 1])
        for store in stores(cache):
            store.crop(-3)
            assert store.choices == []
        step(ext, other, ids[:, :100])
        for at in range(100, 103):
            step(ext, other, ids[:, at : at + 1])
        for store in stores(other):
            store.choices = []
        for at in range(103, 112):
            one = ids[:, at : at + 1]
            torch.testing.assert_close(
                step(ext, cache, one), step(ext, other, one), rtol=0, atol=1e-4
            )


def test_beams_carry_their_choice_along() -> None:
    """Rows of a batch, exchanged in the middle of a choice, go on as they would have alone."""
    ids = tokens(3, 110)
    order = torch.tensor([2, 0, 0])
    with extend(build("llama"), HIP) as ext:
        cache = ext.new_cache()
        step(ext, cache, ids[:, :100])
        for at in range(100, 102):
            step(ext, cache, ids[:, at : at + 1])
        cache.reorder_cache(order)
        mixed = [step(ext, cache, ids[order, at : at + 1]) for at in range(102, 110)]
        for row, source in enumerate(order.tolist()):
            alone = ext.new_cache()
            one = ids[source : source + 1]
            step(ext, alone, one[:, :100])
            for at in range(100, 102):
                step(ext, alone, one[:, at : at + 1])
            for at in range(102, 110):
                expected = step(ext, alone, one[:, at : at + 1])
                torch.testing.assert_close(mixed[at - 102][row], expected[0], rtol=0, atol=1e-4)


def test_padded_rows_refresh_one_by_one() -> None:
    """Rows that pass the crossover at different times hold choices of different ages."""
    ids, mask = left_padded([60, 40])
    spec = f"hip:{SIZES.replace('dense_below=0', 'dense_below=48')},refresh=4"
    written = tokens(2, 20, seed=9)
    with extend(build("llama"), spec) as ext:
        cache = ext.new_cache()
        step(ext, cache, ids, mask)
        together, ages = [], []
        for at in range(20):
            mask = torch.cat((mask, mask.new_ones(2, 1)), 1)
            together.append(step(ext, cache, written[:, at : at + 1], mask))
            store = stores(cache)[0]
            ages.append([None if c is None else c.age for c in (store.choice(0), store.choice(1))])
        cache.reorder_cache(torch.tensor([1, 0]))
        swapped = stores(cache)[0]
        assert [c.age for c in swapped.choices if c is not None] == ages[-1][::-1]
        for row, length in enumerate((60, 40)):
            alone = ext.new_cache()
            step(ext, alone, ids[row : row + 1, -length:])
            for at in range(20):
                expected = step(ext, alone, written[row : row + 1, at : at + 1])
                torch.testing.assert_close(together[at][row], expected[0], rtol=0, atol=1e-4)
    assert ages[0] == [1, None]
    assert ages[8] == [1, 1]
    assert ages[9] == [2, 2]


def test_dense_layers_and_the_crossover_are_exact() -> None:
    model, ids = build("llama"), tokens(1, 90)
    with torch.no_grad():
        expected = model(ids).logits
    every = SIZES.replace("dense_layers=", "dense_layers=0,1,2")
    for spec in (f"hip:{every}", f"hip:{SIZES.replace('dense_below=0', 'dense_below=96')}"):
        said = pytest.warns(UserWarning, match="are all") if every in spec else nullcontext()
        with said, extend(model, spec) as ext, torch.no_grad():
            out = model(ids, past_key_values=ext.new_cache()).logits
            assert ext.exact_within == (None if every in spec else 96)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-4)
    with extend(model, f"hip:{SIZES}") as ext, torch.no_grad():
        out = model(ids, past_key_values=ext.new_cache()).logits
    assert (out - expected).abs().max() > 1e-2  # the idea switched on


@pytest.mark.parametrize("layers", ["-1", "0,3", "99"])
def test_dense_layers_that_are_none_are_named(layers: str) -> None:
    number = layers.split(",")[-1]
    with pytest.raises(ConfigError, match=f"layer {number}; LlamaForCausalLM.*layers 0 to 2"):
        extend(build("llama"), f"hip:dense_layers={layers}")


def test_the_crossover_is_a_position_not_a_chunk() -> None:
    ids = tokens(1, 96)
    spec = f"hip:{SIZES.replace('dense_below=0', 'dense_below=40')}"
    with extend(build("llama"), spec) as ext, torch.no_grad():
        whole = ext.model(ids, past_key_values=ext.new_cache()).logits
        cache = ext.new_cache()
        pieces = ids.split(24, dim=1)
        parts = [ext.model(piece, past_key_values=cache).logits for piece in pieces]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore:hip.*are all:UserWarning")  # of three layers
def test_defaults_are_filled_in_and_said() -> None:
    model = build("llama")
    with extend(model, "hip") as ext:
        assert ext.spec == "hip:k_tokens=512,window=256,sink=16,dense_below=64"
    with pytest.warns(UserWarning, match="window=10"), extend(model, "hip:window=9") as ext:
        assert "window=10" in ext.spec
    with extend(model, "hip:variant=multistage") as ext:
        assert "k_tokens=2048,window=1024,sink=256,block_k=8" in ext.spec


def test_attended_and_stored_tokens_are_counted() -> None:
    with extend(build("llama"), HIP) as ext:
        stream = ext.stream().feed(tokens(1, 128)[0].tolist())
        stream.generate(max_new_tokens=2, do_sample=False)
        report = stream.report()
    assert report.attended_tokens == 4 + 8 + 8 + 1 or report.attended_tokens <= 4 + 8 + 9 + 1
    assert report.stored_tokens > 100
    assert report.dropped_tokens == 0


def capped() -> Any:
    """A tiny Gemma-2: capped scores, sliding layers beside full ones."""
    import transformers

    torch.manual_seed(0)
    config = transformers.Gemma2Config(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=256,
        pad_token_id=0, bos_token_id=1, eos_token_id=None, initializer_range=0.5,
        attn_logit_softcapping=2.0, sliding_window=16, query_pre_attn_scalar=8,
    )  # fmt: skip
    model = transformers.Gemma2ForCausalLM(config).eval()
    model.set_attn_implementation("eager")
    return model


def test_capped_scores_are_capped_in_every_path() -> None:
    model, ids = capped(), tokens(2, 60)
    with torch.no_grad():
        expected = model(ids).logits
    spec = "hip:block_q=8,k_tokens=64,window=8,sink=4,dense_layers=,dense_below=0"
    for method in ("dense", spec):
        with extend(model, method) as ext, torch.no_grad():
            out = model(ids, past_key_values=ext.new_cache()).logits
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-4)
    tight = "hip:block_q=8,k_tokens=8,window=8,sink=4,dense_layers=,dense_below=0,refresh=1"
    outs = []
    for cap in (2.0, None):
        model.config.attn_logit_softcapping = cap
        for layer in model.model.layers:
            layer.self_attn.attn_logit_softcapping = cap
        with extend(model, tight) as ext:
            cache = ext.new_cache()
            step(ext, cache, ids[:, :50])
            outs.append(step(ext, cache, ids[:, 50:51]))
    assert (outs[0] - outs[1]).abs().max() > 1e-2


def test_capped_scores_are_refused_where_a_method_has_none() -> None:
    model = capped()
    with (
        extend(model, "self-extend:neighbours=48,group=4,layers=all") as ext,
        pytest.raises(ConfigError, match="softcap"),
    ):
        model(tokens(1, 9), past_key_values=ext.new_cache())


def test_sliding_layers_and_packed_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match="full-attention"):
        extend(build("gemma3"), f"hip:{SIZES},layers=all")
    model = build("llama")
    with extend(model, f"hip:{SIZES}"), pytest.raises(ConfigError, match="one text a row"):
        model(
            tokens(1, 12), attention_mask=torch.ones(1, 1, 12, 12, dtype=torch.bool).tril(),
            use_cache=False,
        )  # fmt: skip


def test_recall_lies_between_chance_and_the_best() -> None:
    ids = tokens(1, 200)[0].tolist()
    held: dict[str, float] = {}
    for name in ("hip", "random-blocks", "oracle-top-k"):
        with extend(build("llama"), f"{name}:{SIZES}") as ext:
            rows = recall(ext, ids)
        assert [row.layer for row in rows] == [0, 1, 2]
        for row in rows:
            assert all(x <= y + 1e-5 for x, y in zip(row.held, row.best, strict=True))
            assert all(len(keys) == 4 for keys in row.chosen)
        held[name] = sum(sum(row.held) for row in rows)
        if name == "oracle-top-k":
            assert all(x == pytest.approx(1) for row in rows for x in row.found)
    assert held["random-blocks"] < held["hip"] < held["oracle-top-k"] + 1e-6
    with extend(build("llama"), f"hip:{SIZES}") as ext, pytest.raises(InputError, match="longer"):
        recall(ext, ids[:15])
    with extend(build("llama"), "dense") as ext, pytest.raises(ConfigError, match="chooses blocks"):
        recall(ext, ids)


def test_the_picture_is_the_mechanism_s_own() -> None:
    seen = picture(160)
    assert seen.shape == (160, 160)
    assert seen.diagonal().all()
    assert seen[:, :8].tril().sum() == torch.ones(160, 8).tril().sum()
    assert not seen.triu(1).any()
    assert seen.float().mean() < 0.4


def test_training_goes_through_the_chosen_keys() -> None:
    import copy

    model = copy.deepcopy(build("llama")).train()
    with extend(model, f"hip:{SIZES}"):
        loss = model(tokens(1, 60), labels=tokens(1, 60), use_cache=False).loss
        loss.backward()
    grads = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(g is not None and torch.isfinite(g).all() for g in grads)
