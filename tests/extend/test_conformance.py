"""One suite, every method on every family: the laws of running a model past its window."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.extend.conftest import VOCABULARY, build, left_padded, tokens
from tests.extend.methods import ELSEWHERE, EXEMPT, LAWS, Laws
from tests.extend.suite import FULL, opened, pairs, read, stock
from unspool.errors import ConfigError, InputError, UnspoolError
from unspool.extension import extend
from unspool.methods import method_class, method_names, resolve_method


def test_every_registered_method_answers_to_the_laws() -> None:
    held = {type(m) for laws in LAWS.values() for m in resolve_method(laws.spec)}
    left = {name for name in method_names() if method_class(name) not in held}
    assert left == set(ELSEWHERE)
    for name in left:  # a method that fills a layer by a way of its own has laws of its own
        kind = method_class(name)
        assert kind.slots in (("prompt",), ("layout",)) or issubclass(kind, tuple(held)), name


def test_every_exception_is_in_the_table() -> None:
    said = {law: set(names) for law, names in EXEMPT.items()}
    assert said == {
        "equals the stock model": {n for n, laws in LAWS.items() if not laws.exact_within},
        "any chunks": {n for n, laws in LAWS.items() if laws.chunk != 1},
        "whole chunks": {n for n, laws in LAWS.items() if not laws.chunk},
        "half precision": {"softplus"},
        "bounded memory": {n for n, laws in LAWS.items() if not laws.bounded},
    }
    assert all(reason for names in EXEMPT.values() for reason in names.values())


@pairs("equals the stock model")
def test_short_prompts_equal_the_stock_model(name: str, family: str) -> None:
    laws, model = FULL[name], build(family)
    ids = tokens(2, min(laws.exact_within, 45))
    expected = stock(model, ids)
    with opened(model, laws) as ext:
        torch.testing.assert_close(read(ext, ids, [ids.shape[1]]), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", [n for n in FULL if not FULL[n].slow])
def test_how_far_a_method_says_it_is_the_stock_model(name: str) -> None:
    laws, model, ids = FULL[name], build("llama"), tokens(1, 100)
    with opened(model, laws) as ext:
        said = ext.exact_within
        if said is None:
            return
        assert said == laws.exact_within  # up to which the test above found it so
        found = read(ext, ids, [100])
        compresses = "compress" in ext.methods[0].slots  # after the prompt
    assert torch.allclose(found, stock(model, ids), atol=1e-3) == compresses


@pairs()
def test_the_model_comes_back_bit_for_bit(name: str, family: str) -> None:
    model = build(family)
    ids = tokens(1, 30)
    before = stock(model, ids)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    trained = [p.requires_grad for p in model.parameters()]
    buffers = {key: value.clone() for key, value in model.named_buffers()}
    config, attributes = model.config.to_dict(), set(model.__dict__)
    with contextlib.suppress(ZeroDivisionError), opened(model, FULL[name]) as ext:
        assert set(model.state_dict()) == set(state)
        model.generate(ids, max_new_tokens=3, do_sample=False)
        ext.new_cache()
        raise ZeroDivisionError  # leaving by an exception restores just as well
    assert torch.equal(stock(model, ids), before)
    assert model.config.to_dict() == config
    assert set(model.__dict__) == attributes
    assert [p.requires_grad for p in model.parameters()] == trained
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(torch.equal(value, buffers[key]) for key, value in model.named_buffers())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pairs("whole chunks")
def test_chunks_equal_one_pass(name: str, family: str) -> None:
    laws, model = FULL[name], build(family)
    ids = tokens(1, 144 if laws.chunk > 1 else 131)
    length, step = int(ids.shape[1]), laws.chunk
    with opened(model, laws) as ext:
        whole = read(ext, ids, [length])
        for size in (max(step, 16 // step * step), max(step, 48 // step * step)):
            cuts = [*range(size, length, size), length]
            torch.testing.assert_close(read(ext, ids, cuts), whole, rtol=0, atol=1e-4)
        if step == 1:
            one_by_one = read(ext, ids, list(range(1, length + 1)))
            torch.testing.assert_close(one_by_one, whole, rtol=0, atol=1e-4)


@pairs()
def test_a_future_token_never_changes_a_past_logit(name: str, family: str) -> None:
    laws, model = FULL[name], build(family)
    ids = tokens(1, 96)
    other = ids.clone()
    other[0, 80:] = (other[0, 80:] + 5) % (VOCABULARY - 3) + 3
    with opened(model, laws) as ext:
        cuts = [64, 80, 96]
        first, second = read(ext, ids, cuts), read(ext, other, cuts)
    assert torch.equal(first[:, :80], second[:, :80])
    assert not torch.equal(first[:, 80:], second[:, 80:])


@pairs()
def test_left_padded_batches_equal_single_runs(name: str, family: str) -> None:
    laws, model = FULL[name], build(family)
    rows = (90, 37, 61)
    ids, mask = left_padded(list(rows))
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    with opened(model, laws):
        together = model.generate(ids, attention_mask=mask, **options)
        for row, length in enumerate(rows):
            alone = model.generate(ids[row : row + 1, -length:], **options)
            assert together[row, -6:].tolist() == alone[0, -6:].tolist()


@pairs()
def test_nan_at_padding_changes_nothing(name: str, family: str) -> None:
    """Whatever a padded row computes, also NaN, never reaches a real one."""
    laws, model = FULL[name], build(family)
    ids, mask = left_padded([60, 33])
    embeds = model.get_input_embeddings()(ids).detach()
    poisoned = embeds.clone()
    poisoned[mask == 0] = float("nan")
    with opened(model, laws) as ext, torch.no_grad():
        real = mask.bool()
        outs = []
        for given in (embeds, poisoned):
            cache = ext.new_cache()
            cache.prefill_end = 60
            outs.append(
                model(inputs_embeds=given, attention_mask=mask, past_key_values=cache).logits[real]
            )
    assert torch.isfinite(outs[1]).all()
    torch.testing.assert_close(outs[1], outs[0], rtol=0, atol=1e-5)


@pairs()
def test_generate_equals_a_loop(name: str, family: str) -> None:
    laws, model = FULL[name], build(family)
    ids = tokens(1, 75)
    with opened(model, laws) as ext, torch.no_grad():
        expected = model.generate(ids, max_new_tokens=8, do_sample=False)[0, 75:].tolist()
        cache = ext.new_cache()
        cache.prefill_end = 75
        logits = model(ids, past_key_values=cache).logits
        written = []
        for _ in range(8):
            written.append(int(logits[0, -1].argmax()))
            logits = model(torch.tensor([written[-1:]]), past_key_values=cache).logits
    assert written == expected


@pairs()
def test_beams_and_several_answers(name: str, family: str) -> None:
    laws, model = FULL[name], build(family)
    ids, mask = left_padded([70, 52])
    with opened(model, laws):
        out = model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=5,
            num_beams=3,
            num_return_sequences=2,
            do_sample=False,
            pad_token_id=0,
        )
        assert out.shape == (4, 75)
        alone = model.generate(
            ids[1:, -52:], max_new_tokens=5, num_beams=3, do_sample=False, pad_token_id=0
        )
    assert out[2, -5:].tolist() == alone[0, -5:].tolist()


@pairs("bounded memory")
def test_ten_windows_are_read_and_counted(name: str, family: str) -> None:
    laws, model = FULL[name], build(family)
    ids = tokens(1, 10 * 256)
    with opened(model, laws) as ext:
        stream = ext.stream().feed(ids[0, :1500].tolist())
        halfway = stream.report()
        stream.feed(ids[0, 1500:].tolist())
        stream.generate(max_new_tokens=2, do_sample=False)
        report = stream.report()
    assert report.usage.input_tokens == 10 * 256 + 2
    unread = report.usage.input_tokens - report.usage.read_tokens
    counted = report.attended_tokens + report.stored_tokens + report.dropped_tokens
    assert counted + unread == report.usage.input_tokens
    assert report.bytes_device <= halfway.bytes_device  # read much more, holds no more


@pairs()
def test_reported_bytes_are_those_of_reachable_storage(name: str, family: str) -> None:
    import gc

    laws, model = FULL[name], build(family)
    with opened(model, laws) as ext, torch.no_grad():
        cache = ext.new_cache()
        cache.prefill_end = 100
        model(tokens(1, 100), past_key_values=cache)
        gc.collect()
        storages = {}
        seen: set[int] = set()
        todo: list[Any] = list(cache.stores)
        while todo:
            thing = todo.pop()
            if id(thing) in seen:
                continue
            seen.add(id(thing))
            if isinstance(thing, torch.Tensor):
                storage = thing.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
            elif isinstance(thing, (list, tuple, set)):
                todo.extend(thing)
            elif isinstance(thing, dict):
                todo.extend(thing.values())
            elif type(thing).__module__.startswith("unspool."):
                names = {*getattr(thing, "__dict__", {}), *getattr(type(thing), "__slots__", ())}
                todo.extend(getattr(thing, n) for n in names if hasattr(thing, n))
        held = sum(
            r.bytes_device + r.bytes_host
            for r, layer in zip(cache.reports(), cache.layers, strict=True)
            if layer in cache.stores
        )
    assert held == pytest.approx(sum(storages.values()), abs=4096)


@pairs()
def test_save_load_and_fork_go_on_as_if_nothing_happened(
    name: str, family: str, tmp_path: Path
) -> None:
    laws, model = FULL[name], build(family)
    ids = tokens(1, 200)[0].tolist()
    options = {"max_new_tokens": 6, "do_sample": False}
    with opened(model, laws) as ext:
        stream = ext.stream().feed(ids[:120])
        fork = stream.fork()
        expected = fork.feed(ids[120:180]).generate(**options)
        stream.save(tmp_path / "kept")
        other = ext.stream().load(tmp_path / "kept")
        again = other.feed(ids[120:180]).generate(**options)
        undisturbed = stream.feed(ids[120:180]).generate(**options)
    assert torch.equal(again, expected)
    assert torch.equal(undisturbed, expected)
    data = (tmp_path / "kept" / "stream.safetensors").read_bytes()
    (tmp_path / "kept" / "stream.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with opened(model, laws) as ext, pytest.raises(InputError, match="damaged"):
        ext.stream().load(tmp_path / "kept")


@pairs("half precision")
def test_half_precision_is_no_worse_than_in_the_stock_model(name: str, family: str) -> None:
    """Against the same method in float64, beside what half precision does to the stock model."""
    import copy

    laws, model = FULL[name], build(family)
    ids = tokens(1, min(45, laws.exact_within or 45))
    double, half = copy.deepcopy(model).double(), copy.deepcopy(model).bfloat16()
    error = (stock(half, ids).double() - stock(double, ids)).abs().mean()
    with opened(double, laws) as exact, opened(half, laws) as ext:
        cuts = [int(ids.shape[1])]
        ours = (read(ext, ids, cuts).double() - read(exact, ids, cuts)).abs().mean()
    assert ours <= 2 * error


@pairs()
def test_two_streams_on_one_model_do_not_meet(name: str, family: str) -> None:
    laws, model = FULL[name], build(family)
    texts = [tokens(1, 150, seed)[0].tolist() for seed in (1, 2)]
    options = {"max_new_tokens": 5, "do_sample": False}
    with opened(model, laws) as ext:
        expected = [ext.stream().feed(text).generate(**options) for text in texts]
        found: dict[int, Any] = {}

        def work(number: int) -> None:
            stream = ext.stream()
            for start in range(0, 150, 30):
                stream.feed(texts[number][start : start + 30])
            found[number] = stream.generate(**options)

        threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(torch.equal(found[n], expected[n]) for n in (0, 1))


def test_a_foreign_cache_is_refused_where_a_store_is_needed() -> None:
    from transformers import DynamicCache

    model = build("llama")
    with extend(model, "lm-infinite:local=48"), pytest.raises(ConfigError, match="new_cache"):
        model(tokens(1, 9), past_key_values=DynamicCache())


def test_extending_twice_is_refused_and_undone_by_remove() -> None:
    model = build("llama")
    ext = extend(model, "dense")
    with pytest.raises(ConfigError, match="extended already"):
        extend(model, "dense")
    ext.remove()
    extend(model, "dense").remove()


def test_another_attention_function_is_noticed() -> None:
    model = build("llama")
    with extend(model, "dense") as ext:
        cache = ext.new_cache()
        model.config._attn_implementation_internal = "sdpa"
        model(tokens(1, 5), past_key_values=cache)
        with pytest.raises(UnspoolError, match="stored but never attended"):
            model(tokens(1, 5), past_key_values=cache)
        model.config._attn_implementation_internal = "unspool"


def test_two_methods_for_one_slot_are_named() -> None:
    with pytest.raises(ConfigError, match="lm-infinite and self-extend both fill slot 'store'"):
        extend(build("llama"), "lm-infinite+self-extend")


def test_without_the_registered_mask_padding_would_leak() -> None:
    """The mask function is what keeps padding out: taking it away changes the logits."""
    from transformers import AttentionMaskInterface

    model = build("llama")
    ids, mask = left_padded([40, 20])
    with extend(model, "dense") as ext, torch.no_grad():
        right = model(ids, attention_mask=mask, past_key_values=ext.new_cache()).logits[1, -20:]
        table = AttentionMaskInterface._global_mapping
        function = table.pop("unspool")
        try:
            wrong = model(ids, attention_mask=mask, past_key_values=ext.new_cache()).logits
        finally:
            table["unspool"] = function
    assert (wrong[1, -20:] - right).abs().max() > 1e-3


def test_laws_are_settings_that_parse() -> None:
    for laws in LAWS.values():
        assert isinstance(laws, Laws)
        assert resolve_method(laws.spec)
