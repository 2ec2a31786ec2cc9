"""MASFormer: full layers and local ones, against their definition, the stock model and a cache."""

from __future__ import annotations

import copy
import itertools
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.extend.conftest import FAMILIES, VOCABULARY, build, left_padded, tokens
from tests.oracles.spans import meets, softmax_loops
from unspool._facts import read_facts
from unspool.attention import dense, kernel, spans
from unspool.attention.masformer import MASFormer, pick_full
from unspool.attention.span_choice import choose_layers, far_shares
from unspool.attention.span_cost import plan_cost
from unspool.attention.spans import Span, span_attend, tiles
from unspool.caches.spans import SpanStore
from unspool.errors import ConfigError, InputError, Unsupported
from unspool.extension import extend

SPANS = [Span(7), Span(7, previous=0), Span(4, previous=3), Span(7, kind="window"), Span(1, 0)]
IDS = ["block", "own", "three", "window", "itself"]


def _quick(family: str) -> Any:
    return () if family in ("llama", "gemma3") else pytest.mark.slow


def double(family: str) -> Any:
    """In float64, where what is the same is the same to twelve digits."""
    return copy.deepcopy(build(family)).double()


def logits(model: Any, ids: Any, **options: Any) -> Any:
    with torch.no_grad():
        return model(ids, use_cache=False, **options).logits


@pytest.mark.parametrize("span", SPANS, ids=IDS)
@pytest.mark.parametrize("length", [1, 7, 13, pytest.param(64, marks=pytest.mark.slow)])
def test_attention_is_its_definition(span: Span, length: int) -> None:
    torch.manual_seed(length)
    q = torch.randn(1, 4, length, 8)
    k, v = torch.randn(1, 2, length, 8), torch.randn(1, 2, length, 6)
    expected = softmax_loops(q, k, v, lambda i, j: meets(i, j, span.block, span.before, span.kind))
    actual = span_attend(q, k, v, span=span, start=0, scale=8**-0.5)
    torch.testing.assert_close(actual.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("span", SPANS, ids=IDS)
@pytest.mark.parametrize("cut", [1, 6, 7, 20])
def test_later_chunks_need_only_the_keys_in_reach(span: Span, cut: int) -> None:
    torch.manual_seed(cut)
    q, k, v = (torch.randn(1, 2, 41, 8, dtype=torch.float64) for _ in range(3))
    whole = span_attend(q, k, v, span=span, start=0, scale=0.3)
    outs = []
    for start in range(0, 41, cut):
        end, oldest = min(41, start + cut), span.oldest(start)
        part = q[:, :, start:end], k[:, :, oldest:end], v[:, :, oldest:end]
        outs.append(span_attend(*part, span=span, start=start, scale=0.3))
    torch.testing.assert_close(torch.cat(outs, dim=2), whole, atol=1e-12, rtol=0)


@pytest.mark.parametrize("span", SPANS, ids=IDS)
def test_gradients_are_those_of_the_definition(span: Span) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 1, 16, 3, dtype=torch.float64, requires_grad=True) for _ in range(3))

    def function(q: Any, k: Any, v: Any) -> Any:
        return span_attend(q, k, v, span=span, start=0, scale=0.5)

    assert torch.autograd.gradcheck(function, (q, k, v), fast_mode=True)


@pytest.mark.parametrize("span", SPANS, ids=IDS)
@pytest.mark.parametrize("length", [1, 6, 7, 8, 29, 64])
def test_counts_are_those_of_the_mask(span: Span, length: int) -> None:
    pairs = sum(
        meets(i, j, span.block, span.before, span.kind)
        for i, j in itertools.product(range(length), repeat=2)
    )
    assert span.pairs(length) == pairs
    assert sum(rows for rows, _ in tiles(0, length, span)) == length
    computed = sum(rows * columns for rows, columns in tiles(0, length, span))
    assert pairs <= computed <= length * length


@pytest.mark.parametrize("option", ["full=all", "block=64", "block=64,kind=window", "full=0-2"])
@pytest.mark.parametrize("family", [pytest.param(f, marks=_quick(f)) for f in FAMILIES])
def test_spans_that_hold_the_text_are_the_base_model(option: str, family: str) -> None:
    model, ids = build(family), tokens(2, 45)
    expected = logits(model, ids)
    if option == "full=0-2" and family == "gemma3":
        option = "full=2"  # its other layers are sliding ones, and stay as they are
    spec = f"masformer:full=none,{option}" if "full" not in option else f"masformer:{option}"
    with extend(model, spec):
        torch.testing.assert_close(logits(model, ids), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["block", "window"])
def test_switched_off_it_would_differ(kind: str) -> None:
    model, ids = build("llama"), tokens(1, 45)
    with extend(model, f"masformer:full=bottom:1,block=8,kind={kind}"):
        assert (logits(model, ids) - logits(model, ids[:, :20])[0, -1]).abs().max() > 0
        local = logits(model, ids)
    assert (local - logits(model, ids)).abs().max() > 0.05


def test_padding_on_either_side_changes_nothing() -> None:
    model = double("llama")
    ids, mask = left_padded([45, 29])
    right, right_mask = ids.roll(-16, 1), mask.roll(-16, 1)  # of the second row only
    with extend(model, "masformer:full=1,block=8"), torch.no_grad():
        alone = logits(model, ids[1:, -29:])[0]
        left = model(ids, attention_mask=mask, use_cache=False).logits[1, -29:]
        torch.testing.assert_close(left, alone, atol=1e-5, rtol=0)
        behind = model(right[1:], attention_mask=right_mask[1:], use_cache=False).logits[0, :29]
        torch.testing.assert_close(behind, alone, atol=1e-5, rtol=0)


def test_packed_documents_do_not_meet() -> None:
    """Blocks are counted along the row, and a document sees nothing of the one before."""
    model = build("qwen3")
    ids = tokens(1, 40)
    where = torch.cat([torch.arange(21), torch.arange(19)])[None]
    other = ids.clone()
    other[0, 5] = (other[0, 5] + 3) % VOCABULARY
    with extend(model, "masformer:full=none,block=6,previous_blocks=1"), torch.no_grad():
        first = model(ids, position_ids=where, use_cache=False).logits
        second = model(other, position_ids=where, use_cache=False).logits
    assert torch.equal(first[:, 21:], second[:, 21:])
    assert not torch.equal(first[:, 5:12], second[:, 5:12])


@pytest.mark.parametrize("previous", [0, 1])
def test_information_travels_a_span_a_layer_and_everywhere_through_one_full_layer(
    previous: int,
) -> None:
    model, block, length = build("llama"), 4, 60
    ids, layers = tokens(1, length), 3

    def moved(spec: str) -> Any:
        with extend(model, spec):
            embeds = model.get_input_embeddings()(ids).detach().requires_grad_()
            model(inputs_embeds=embeds, use_cache=False).logits[0, -1].sum().backward()
        assert embeds.grad is not None
        return embeds.grad[0].abs().sum(-1) > 0

    option = f"block={block},previous_blocks={previous}"
    # A layer reaches (previous + 1) * block - 1 tokens back at most; here by the mask, exactly.
    reached = {length - 1}
    for _ in range(layers):
        reached |= {j for i in reached for j in range(length) if meets(i, j, block, previous)}
    found = moved(f"masformer:full=none,{option}")
    assert {i for i in range(length) if bool(found[i])} == reached
    assert min(reached) >= length - 1 - layers * ((previous + 1) * block - 1)
    assert bool(moved(f"masformer:full=1,{option}").all())


@pytest.mark.parametrize("kind", ["block", "window"])
def test_decoding_step_by_step_is_the_full_forward_and_the_cache_is_as_said(kind: str) -> None:
    model, ids = double("llama"), tokens(2, 70)
    spec = f"masformer:full=1,block=8,kind={kind}"
    with extend(model, spec) as ext, torch.no_grad():
        whole = logits(model, ids)
        cache = ext.new_cache()
        cache.prefill_end = 13
        outs = [model(ids[:, :13], past_key_values=cache).logits]
        reach = ext.methods[0].span.reach  # type: ignore[attr-defined]  # of MASFormer
        for at in range(13, 70):
            outs.append(model(ids[:, at : at + 1], past_key_values=cache).logits)
            held = [sum(map(len, store.segments())) for store in cache.stores]
            assert held[1] == at + 1
            assert max(held[0], held[2]) <= reach
        torch.testing.assert_close(torch.cat(outs, dim=1), whole, atol=1e-10, rtol=0)
        per_token = ext.facts.bytes_per_token
        local = cache.reports()[0].bytes_device / (2 * per_token)  # of two sequences
        assert local <= reach + 129


def test_a_store_goes_on_after_padding_and_a_block_of_its_own() -> None:
    """With no block before, the last token of a block is met by nobody, and still says where."""
    model = double("llama")
    ids, mask = left_padded([32, 24])
    with extend(model, "masformer:full=none,block=8,previous_blocks=0") as ext, torch.no_grad():
        cache = ext.new_cache()
        model(ids, attention_mask=mask, past_key_values=cache)
        assert isinstance(cache.layers[0], SpanStore)
        new = tokens(2, 3, seed=5)
        grown = torch.cat([mask, torch.ones_like(new)], dim=1)
        got = model(new, attention_mask=grown, past_key_values=cache).logits
        alone = logits(model, torch.cat([ids[1:, -24:], new[1:]], dim=1))
    torch.testing.assert_close(got[1], alone[0, -3:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["qwen3"])
def test_the_window_kind_is_transformers_own_sliding_layers(family: str) -> None:
    model, ids = build(family), tokens(2, 50)
    with extend(model, "masformer:full=1,block=12,kind=window") as ext:
        changed = ext.export()
        ours = logits(model, ids)
    assert changed["layer_types"] == ["sliding_attention", "full_attention", "sliding_attention"]
    config = type(model.config)(**{**model.config.to_dict(), **changed})
    plain = type(model)(config).eval()
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(ours, logits(plain, ids), atol=1e-5, rtol=0)


def test_what_plain_transformers_cannot_run_is_not_written_down() -> None:
    with (
        extend(build("llama"), "masformer:full=1,block=12,kind=window") as ext,
        pytest.raises(Unsupported, match="one span"),
    ):
        ext.export()
    with (
        extend(build("qwen3"), "masformer:full=1,block=12") as ext,
        pytest.raises(Unsupported, match="kind=window"),
    ):
        ext.export()


@pytest.mark.parametrize("option", ["full=1,block=16", "full=none,block=32,previous_blocks=0"])
def test_counted_operations_are_those_of_the_plan(
    option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What PyTorch counts of the products, tile by tile, and what a plan says of the pairs."""
    from torch.utils.flop_counter import FlopCounterMode

    model, length = build("llama"), 256
    method = MASFormer(**_fields(option))
    cost = plan_cost(model.config, length, method)
    span, layers = method.span, len(cost.full) + len(cost.local)
    assert layers == 3
    rectangles = len(cost.full) * length * length + len(cost.local) * sum(
        rows * columns for rows, columns in tiles(0, length, span)
    )

    def written_out(*tensors: Any, **options: Any) -> Any:
        return kernel.attend(*tensors, **{**options, "backend": "reference"})

    for module in (spans, dense):  # plain products, which PyTorch counts one by one
        monkeypatch.setattr(module, "attend", written_out)
    with (
        extend(model, method),
        FlopCounterMode(display=False) as counter,
        torch.no_grad(),
    ):
        model(tokens(1, length), use_cache=False)
    counts = counter.get_flop_counts()["Global"]
    counted = sum(n for op, n in counts.items() if "bmm" in str(op))
    assert counted == pytest.approx(4 * 4 * 8 * rectangles, rel=0.02)
    heads, width = 4, 8
    masks = [
        meets(i, j, span.block, span.before, span.kind)
        for i, j in itertools.product(range(length), repeat=2)
    ]
    visible = len(cost.full) * length * (length + 1) // 2 + len(cost.local) * sum(masks)
    assert cost.pairs == visible
    assert cost.flops == 4 * heads * width * visible


def _fields(option: str) -> dict[str, Any]:
    pairs = dict(part.split("=") for part in option.split(","))
    return {key: int(value) if key != "full" else value for key, value in pairs.items()}


def test_cost_of_the_papers_model() -> None:
    """24 layers, 8,192 tokens, blocks of 1,024, 4 full layers: the abstract's 75% is the account
    of spans of one block; with the block before it is about half."""
    from transformers import LlamaConfig

    config = LlamaConfig(num_hidden_layers=24)
    cost = plan_cost(config, 8192, MASFormer())
    by_hand = (4 * 8192 / 2 + 20 * 1.5 * 1024) / (24 * 8192 / 2)
    assert cost.ratio == pytest.approx(by_hand, rel=0.06)
    own = plan_cost(config, 8192, MASFormer(previous_blocks=0))
    assert own.dense_ratio == pytest.approx(4 / 24 + 20 / 24 / 8)
    assert own.kv_ratio == own.dense_ratio
    assert cost.kv_ratio == pytest.approx(4 / 24 + 20 / 24 * 2 / 8)
    assert plan_cost(config, 600, MASFormer()).note
    assert plan_cost(config, 600, MASFormer()).ratio == 1
    with pytest.raises(ConfigError, match="at least 1"):
        plan_cost(config, 0)


def test_far_attention_is_measured_and_chooses_the_layers() -> None:
    model, span = build("llama"), Span(8)
    ids = tokens(1, 64)[0].tolist()
    shares = far_shares(model, [ids], span)
    weights = _weights(model, ids)
    rows = torch.linspace(16, 63, 48).long()
    for layer, p in enumerate(weights):
        far = torch.stack([p[:, i, : span.oldest(int(i))].sum(-1) for i in rows])
        assert shares[layer] == pytest.approx(float(far.mean()), abs=1e-5)
    best = max(shares, key=lambda layer: shares[layer])
    assert choose_layers(model, [ids], 1, span=span) == (best,)
    with pytest.raises(InputError, match="longer texts"):
        far_shares(model, [ids[:16]], span)
    with pytest.raises(ConfigError, match="cannot stay full"):
        choose_layers(model, [ids], 4, span=span)


def _weights(model: Any, ids: list[int]) -> Any:
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            found = model(torch.tensor([ids]), output_attentions=True, use_cache=False)
        return [layer[0] for layer in found.attentions]
    finally:
        model.set_attn_implementation("sdpa")


def test_auto_measures_with_the_tokenizer_that_it_is_given() -> None:
    model = build("llama")

    def tokenizer(text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [3 + ord(c) % 100 for c in text]}

    with extend(model, "masformer:full=auto:1,block=16", tokenizer=tokenizer) as ext:
        (chosen,) = (int(n) for n in ext.methods[0].full.split(","))  # type: ignore[attr-defined]
    from unspool.attention.span_choice import reference_ids

    assert (chosen,) == choose_layers(model, [reference_ids(tokenizer, 256)], 1, span=Span(16))
    with pytest.raises(ConfigError, match="tokenizer"):
        extend(model, "masformer:full=auto:1,block=16")
    with pytest.raises(ConfigError, match="measured"):
        MASFormer(full="auto:2", block=16).resolve(read_facts(model))


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("bottom:2", (0, 1)),
        ("top:2", (8, 9)),
        ("middle:3", (3, 4, 5)),
        ("uniform:2", (2, 7)),
        ("every:4", (0, 4, 8)),
        ("0-2,7", (0, 1, 2, 7)),
        ("all", tuple(range(10))),
        ("none", ()),
        ("bottom:0", ()),
    ],
)
def test_placements(text: str, layers: tuple[int, ...]) -> None:
    assert pick_full(text, range(10)) == layers


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("masformer:full=bottom:x", "number of layers"),
        ("masformer:full=left:1", "none of bottom"),
        ("masformer:full=x", "none of bottom:N"),
        ("masformer:full=7", "names layer 7"),
        ("masformer:full=2-1", "2-1 runs backwards; write 1-2"),
        ("masformer:layers=2-1", "2-1 runs backwards; write 1-2"),
        ("masformer:full=every:0", "at least 1"),
        ("masformer:block=0", "block >= 1"),
        ("masformer:previous_blocks=-1", "previous_blocks >= 0"),
        ("masformer:kind=tile", "block or window"),
        ("masformer:full=0,block=9+lm-infinite", "both fill slot"),
    ],
)
def test_what_is_wrong_is_named(spec: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        extend(build("llama"), spec)


@pytest.mark.parametrize(("block", "previous"), [(0, 1), (4, -1)])
def test_a_span_is_no_smaller_than_a_token(block: int, previous: int) -> None:
    with pytest.raises(ConfigError, match=f"block={block} and previous={previous}"):
        Span(block, previous)


def test_a_span_as_long_as_the_window_is_noted() -> None:
    model = build("llama")
    with pytest.warns(UserWarning, match="every layer is full"):
        extend(model, "masformer:full=0,block=128").remove()
    with pytest.warns(UserWarning, match="model as it was"):
        extend(model, "masformer:block=16").remove()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extend(model, "masformer:full=0,block=127").remove()


def test_sliding_layers_are_left_alone_and_never_widened() -> None:
    model, ids = build("gemma3"), tokens(1, 60)
    expected = logits(model, ids)
    with extend(model, "masformer:full=all,layers=all,block=4"):
        torch.testing.assert_close(logits(model, ids), expected, atol=1e-5, rtol=0)
    with extend(model, "masformer:full=none,block=100") as ext:
        torch.testing.assert_close(logits(model, ids), expected, atol=1e-5, rtol=0)
        assert set(ext.facts.pick_layers("full")) == {2}


def test_it_trains_under_checkpointing() -> None:
    model = copy.deepcopy(build("llama"))
    ids = tokens(2, 50)
    with extend(model, "masformer:full=1,block=8"):
        model.train()
        plain = torch.autograd.grad(model(ids, labels=ids, use_cache=False).loss, _first(model))
        # Its name in transformers before 5.20
        older = getattr(model, "gradient_checkpointing_enable", None)
        getattr(model, "activation_checkpointing_enable", older)({"use_reentrant": False})
        again = torch.autograd.grad(model(ids, labels=ids, use_cache=False).loss, _first(model))
    torch.testing.assert_close(again, plain)


def _first(model: Any) -> Any:
    return model.model.layers[0].self_attn.k_proj.weight


def test_a_saved_model_names_its_spans_and_gets_them_back(tmp_path: Path) -> None:
    model, ids = build("llama"), tokens(1, 40)
    with extend(model, "masformer:full=1,block=8") as ext:
        expected = logits(model, ids)
        with pytest.warns(UserWarning, match="unspool_method"):
            ext.save(tmp_path / "kept")
    again = type(model).from_pretrained(tmp_path / "kept")
    assert (logits(again, ids) - expected).abs().max() > 0.05
    with extend(again):
        torch.testing.assert_close(logits(again, ids), expected, atol=1e-5, rtol=0)
