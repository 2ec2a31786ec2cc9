"""SnapKV, ThinK and Quantise: against brute force, and as a composition on real modules."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.extend.conftest import VOCABULARY, build, left_padded, tokens
from tests.oracles.compression import best_subset, snapkv_kept, think_bound, think_loss
from unspool.attention.dense import Dense
from unspool.caches import think
from unspool.caches.base import KV
from unspool.caches.compressed import CompressedStore
from unspool.caches.quantise import Codes, QuantiseStage
from unspool.caches.snapkv import SnapKVStage
from unspool.caches.stages import split
from unspool.caches.think import ThinKStage, channel_scores, drop_channels
from unspool.errors import ConfigError
from unspool.extension import extend


def random_kv(batch: int, heads: int, length: int, size: int, seed: int = 0) -> KV:
    generator = torch.Generator().manual_seed(seed)
    k, v = torch.randn(2, batch, heads, length, size, generator=generator, dtype=torch.float64)
    return KV(k, v, None)


def generated(model: Any, ids: Any, mask: Any = None, count: int = 6, **options: Any) -> Any:
    """Logits [B, count, V] of a greedy continuation."""
    with torch.no_grad():
        out = model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=count,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
            **options,
        )
    return torch.stack(out.logits, 1)


# ---- SnapKV


@pytest.mark.parametrize("heads", [(2, 2), (1, 3), (2, 4)], ids=str)
@pytest.mark.parametrize("kernel", [1, 5])
def test_snapkv_keeps_what_the_loops_keep(heads: tuple[int, int], kernel: int) -> None:
    num_kv_heads, num_heads = heads
    kv = random_kv(2, num_kv_heads, 41, 8)
    positions = torch.arange(41).repeat(2, 1)
    positions[1] = (positions[1] - 13).clamp(min=-1)
    kv = replace(kv, positions=positions)
    queries = torch.randn(2, num_heads, 7, 8, dtype=torch.float64)
    (kept,) = SnapKVStage(19, 7, kernel)([kv], queries)
    assert kept.origins is not None
    for row in range(2):
        valid = (positions[row] >= 0).numpy()
        expected = snapkv_kept(kv.k[row].numpy(), queries[row].numpy(), 19, kernel, valid, 8**-0.5)
        for head in range(num_kv_heads):
            assert kept.origins[row, head].tolist() == expected[head]
            torch.testing.assert_close(kept.k[row, head], kv.k[row, head, expected[head]])


def test_snapkv_fills_a_short_row_with_padding() -> None:
    kv = random_kv(2, 2, 41, 8)
    positions = torch.arange(41).repeat(2, 1)
    positions[1] = (positions[1] - 30).clamp(min=-1)  # 11 tokens, fewer than are kept
    queries = torch.randn(2, 4, 7, 8, dtype=torch.float64)
    (kept,) = SnapKVStage(19, 7, 5)([replace(kv, positions=positions)], queries)
    assert kept.positions is not None
    assert (kept.positions[1] >= 0).sum() == 11
    assert kept.positions[1].tolist() == [-1] * 8 + list(range(11))


def test_snapkv_follows_the_votes() -> None:
    kv = random_kv(1, 1, 60, 8)
    kv.k.mul_(0.1)
    queries = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    queries[..., 0] = 5.0
    kv.k[0, 0, 17, 0] = 20.0  # what all of the window looks at
    (kept,) = SnapKVStage(12, 8, 1)([kv], queries)
    assert kept.origins is not None
    assert 17 in kept.origins[0, 0].tolist()


# ---- ThinK


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), pruned=st.integers(1, 7))
def test_think_drops_the_best_subset_of_the_bound(seed: int, pruned: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    k = torch.randn(1, 1, 9, 8, generator=generator, dtype=torch.float64)
    queries = torch.randn(1, 1, 5, 8, generator=generator, dtype=torch.float64)
    (narrow,) = drop_channels(KV(k, k, None), channel_scores(k, queries), pruned, recent=0)
    assert narrow.channels is not None
    dropped = tuple(j for j in range(8) if j not in narrow.channels[0, 0].tolist())
    q64, k64 = queries[0, 0].numpy(), k[0, 0].numpy()
    assert dropped == best_subset(lambda s: think_bound(k64, q64, s), 8, pruned)


def test_think_is_optimal_when_channels_are_orthogonal() -> None:
    k = torch.zeros(8, 8, dtype=torch.float64)
    k[torch.arange(8), torch.arange(8)] = torch.tensor([3.0, 1, 4, 1.5, 9, 2, 6, 5]).double()
    queries = torch.randn(5, 8, dtype=torch.float64)
    scores = channel_scores(k[None, None], queries[None, None])[0, 0]
    for pruned in range(1, 8):
        dropped = tuple(sorted(scores.argsort()[:pruned].tolist()))
        loss = lambda s: think_loss(k.numpy(), queries.numpy(), s)  # noqa: E731 - used once
        assert dropped == best_subset(loss, 8, pruned)


def test_query_heads_of_a_group_rank_together() -> None:
    k = torch.randn(2, 2, 11, 6, dtype=torch.float64)
    queries = torch.randn(2, 6, 5, 6, dtype=torch.float64)
    scores = channel_scores(k, queries)
    for row in range(2):
        for head in range(2):
            for channel in range(6):
                used = np.mean(
                    [np.mean(queries[row, head * 3 + m, :, channel].numpy() ** 2) for m in range(3)]
                )
                mean = used * np.mean(k[row, head, :, channel].numpy() ** 2)
                assert scores[row, head, channel] == pytest.approx(mean * 5 * 11)


def test_channels_that_no_query_uses_are_dropped_without_loss() -> None:
    kv = random_kv(1, 2, 70, 8)
    queries = torch.randn(1, 4, 32, 8, dtype=torch.float64)
    queries[..., [1, 4, 6]] = 0
    old, new = ThinKStage(0.4, 32, 32)([kv], queries)
    assert old.channels is not None
    assert old.channels.tolist() == [[[0, 2, 3, 5, 7]] * 2]
    assert old.k.shape == (1, 2, 38, 5)
    assert new.k.shape == (1, 2, 32, 8)


def test_ratio_is_rounded_down_to_whole_channels() -> None:
    kv = random_kv(1, 1, 80, 64)
    old, _ = ThinKStage(0.4, 32, 32)([kv], torch.randn(1, 1, 32, 64, dtype=torch.float64))
    assert old.k.shape[-1] == 64 - 25


def test_a_short_prompt_is_left_alone_and_said_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(think, "_said", False)
    kv = random_kv(1, 1, 63, 8)
    queries = torch.randn(1, 1, 32, 8, dtype=torch.float64)
    with caplog.at_level(logging.WARNING, logger="unspool.caches"):
        for _ in range(3):
            assert ThinKStage(0.4, 32, 32)([kv], queries) == [kv]
    assert len(caplog.records) == 1
    assert "63 tokens" in caplog.text


# ---- Quantise


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("length", [1, 31, 32, 33, 97])
def test_numbers_come_back_within_half_a_step(bits: int, length: int) -> None:
    x = torch.randn(2, 3, 5, length) * 7
    back = Codes.of(x, bits, 32).open(torch.float32)
    assert back.shape == x.shape
    spare = -length % 32  # groups end with the last number
    for first in range(-spare, length, 32):
        run = slice(max(0, first), first + 32)
        part, other = x[..., run], back[..., run]
        step = (part.amax(-1) - part.amin(-1)) / (2**bits - 1)
        rounding = 2e-3 * part.abs().amax(-1)  # of scale and offset to half precision
        assert bool(((part - other).abs().amax(-1) <= step / 2 + rounding).all())


def test_two_to_the_bits_levels_are_used() -> None:
    x = torch.linspace(-1, 1, 32)
    for bits in (2, 4):
        assert len(Codes.of(x, bits, 32).open(torch.float32).unique()) == 2**bits


def test_constant_groups_survive() -> None:
    x = torch.full((1, 1, 4, 40), 3.5)
    torch.testing.assert_close(Codes.of(x, 2, 32).open(torch.float32), x)


def test_packing_takes_the_bytes_it_says() -> None:
    kv = random_kv(1, 2, 128, 64)
    kv = replace(kv, k=kv.k.float(), v=kv.v.float())
    packed, tail = QuantiseStage(4, 32, 32)([kv], kv.k[:, :, :0])
    numbers = 96 * 2 * 64
    for codes in (packed.k, packed.v):
        assert codes.codes.numel() == numbers // 2
        assert codes.scale.numel() == codes.offset.numel() == numbers // 32
    assert len(tail) == 32


# ---- the store


def prompt_of(length: int) -> Any:
    return tokens(1, length, seed=3)


def test_ratio_zero_changes_no_bit() -> None:
    model = build("llama")
    ids = prompt_of(120)
    with extend(model, "dense"):
        expected = generated(model, ids)
    with extend(model, "think:ratio=0"):
        assert torch.equal(generated(model, ids), expected)


def test_narrow_equals_zeros(family: str) -> None:
    model = build(family)
    ids, mask = left_padded([120, 83])
    out = {}
    for mode in ("narrow", "zero"):
        with extend(model, f"think:ratio=0.5,mode={mode}"):
            beams = generated(model, ids, mask, num_beams=3)
            out[mode] = (generated(model, ids, mask), beams)
    torch.testing.assert_close(out["narrow"][0], out["zero"][0], atol=3e-5, rtol=1e-4)
    assert torch.equal(out["narrow"][1].argmax(-1), out["zero"][1].argmax(-1))


@pytest.mark.parametrize(
    "spec",
    [
        "think:window=10,recent=10",
        "snapkv:keep=48",
        "quantise:recent=5",
        "snapkv:keep=40,window=8+think:window=10,recent=10+quantise:bits=8,recent=8",
    ],
)
def test_padded_rows_equal_single_runs(family: str, spec: str) -> None:
    model = build(family)
    ids, mask = left_padded([120, 83, 30])
    with extend(model, spec):
        together = generated(model, ids, mask)
        for row, length in enumerate([120, 83, 30]):
            alone = generated(model, ids[row : row + 1, -length:])
            torch.testing.assert_close(together[row], alone[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("spec", ["think", "snapkv:keep=80+think:ratio=0.5"])
@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_chunks_compress_like_one_pass(spec: str, chunk: int) -> None:
    model = build("llama")
    ids = prompt_of(101)
    with extend(model, spec):
        whole = generated(model, ids, prefill_chunk_size=4096)
        torch.testing.assert_close(
            generated(model, ids, prefill_chunk_size=chunk), whole, atol=2e-5, rtol=1e-4
        )


def test_dropping_channels_matters() -> None:
    model = build("llama")
    ids = prompt_of(120)
    with extend(model, "dense"):
        expected = generated(model, ids)
    for spec in ("think:ratio=0.8", "snapkv:keep=40", "quantise:bits=2"):
        with extend(model, spec):
            assert (generated(model, ids)[:, 1:] - expected[:, 1:]).abs().max() > 1e-3


def test_bytes_are_those_of_the_formula() -> None:
    model = build("llama")
    length, recent, pruned = 200, 32, 4
    with extend(model, "think:ratio=0.5") as extension, torch.no_grad():
        cache = extension.new_cache()
        model(prompt_of(length), past_key_values=cache)
        dense = cache.stores[0].report().bytes_device
        cache.end_prefill()
        size, heads = 8, 2
        old = (length - recent) * heads * (size - pruned + size)
        index = heads * (size - pruned) * 8
        tail = recent * heads * 2 * size
        for store in cache.stores:
            assert store.report().bytes_device == 4 * (old + tail) + index
            assert store.report().bytes_device < dense
            assert store.report().dropped == 0


def test_turns_after_the_first_stay_whole() -> None:
    model = build("llama")
    with extend(model, "snapkv:keep=80+think") as extension:
        stream = extension.stream()
        stream.feed(prompt_of(120)[0].tolist())
        stream.generate(max_new_tokens=3)
        stream.feed(tokens(1, 50, seed=5)[0].tolist())
        stream.generate(max_new_tokens=3)
        lengths = [len(part) for part in stream.cache.stores[0].segments()]
    assert lengths == [48, 32 + 2 + 50 + 1 + 2]


def test_a_later_turn_sees_no_future() -> None:
    model = build("llama")
    first, second = prompt_of(120), tokens(1, 20, seed=5)
    with extend(model, "snapkv:keep=80+think") as extension, torch.no_grad():
        cache = extension.new_cache()
        model(first, past_key_values=cache)
        cache.end_prefill()
        other = cache.copy()
        whole = model(second, past_key_values=cache).logits
        steps = [model(second[:, i : i + 1], past_key_values=other).logits for i in range(20)]
    torch.testing.assert_close(whole, torch.cat(steps, 1), atol=2e-5, rtol=1e-4)


def test_tokens_are_counted_by_the_most_generous_head() -> None:
    model = build("llama")
    with extend(model, "snapkv:keep=48") as extension:
        generated(model, prompt_of(120), count=4)
        report = extension.report()
        stores = extension._last.stores  # type: ignore[union-attr]  # set by generate
    assert report.attended_tokens + report.stored_tokens + report.dropped_tokens == 123
    assert all(48 + 3 <= store.report().attended <= 2 * 48 + 3 for store in stores)


def test_save_and_load_and_fork(tmp_path: Path) -> None:
    model = build("llama")
    for number, spec in enumerate(["think", "snapkv:keep=80+think+quantise"]):
        with extend(model, spec) as extension:
            stream = extension.stream()
            stream.feed(prompt_of(120)[0].tolist())
            for done in (False, True):
                folder = tmp_path / f"{number}{done}"
                stream.save(folder)
                expected = stream.fork().generate([5, 6], max_new_tokens=5)
                again = extension.stream().load(folder)
                reports = [s.cache.stores[0].report() for s in (again, stream)]
                assert reports[0].attended == reports[1].attended
                assert reports[0].bytes_device <= reports[1].bytes_device
                assert torch.equal(again.generate([5, 6], max_new_tokens=5), expected)
                stream.generate([7, 8], max_new_tokens=2)


def test_crop_stops_at_the_boundary() -> None:
    model = build("llama")
    with extend(model, "think") as extension, torch.no_grad():
        cache = extension.new_cache()
        model(prompt_of(120), past_key_values=cache)
        cache.crop(-1)
        model(prompt_of(1), past_key_values=cache)
        cache.end_prefill()
        model(tokens(1, 5), past_key_values=cache)
        cache.crop(-5)
        assert cache.get_seq_length() == 120
        with pytest.raises(ConfigError, match=r"first 120 were compressed.* 0 follow"):
            cache.crop(-1)


@settings(deadline=None, max_examples=25)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    window=st.integers(1, 50),
)
def test_the_ring_holds_the_last_queries(lengths: list[int], window: int) -> None:
    store = CompressedStore([ThinKStage(0.5, window, 0)])
    everything = torch.randn(1, 2, sum(lengths), 4)
    start = 0
    for length in lengths:
        store.observe(everything[:, :, start : start + length])
        start += length
    assert store.queries is not None
    assert torch.equal(store.queries, everything[:, :, -window:])


def test_dense_reads_narrow_segments_like_whole_ones() -> None:
    kv = random_kv(1, 2, 90, 8)
    queries = torch.randn(1, 4, 32, 8, dtype=torch.float64)
    assert Dense().reads_segments
    for count in (0, 1, 58):
        first, rest = split(kv, count)
        assert (len(first), len(rest), rest.start) == (count, 90 - count, count)
    parts = ThinKStage(0.5, 32, 32)([kv], queries)
    assert [len(part) for part in parts] == [58, 32]


# ---- bad input


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("think:ratio=1", "0 <= ratio < 1, got ratio=1"),
        ("think:ratio=-0.1", "got ratio=-0.1"),
        ("think:window=0", "window=0"),
        ("snapkv:keep=32", "keep > window"),
        ("snapkv:kernel=4", "odd kernel"),
        ("quantise:bits=3", "bits of 2, 4 or 8"),
        ("quantise:group=12", "multiple of 8"),
        ("think+snapkv", "in this order"),
        ("think+think", "at most once"),
        ("dense+think", "brings its own store"),
    ],
)
def test_what_cannot_work_is_refused(spec: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        extend(build("llama"), spec)


def test_sliding_layers_are_left_alone_or_refused() -> None:
    model = build("gemma3")
    with extend(model, "think") as extension:
        kinds = [type(store).__name__ for store in extension.new_cache().stores]
        assert kinds == ["SlidingStore", "SlidingStore", "CompressedStore"]
    with pytest.raises(ConfigError, match=r"layer 0 of .* is of type sliding_attention"):
        extend(model, "think:layers=all")


def test_a_foreign_cache_is_refused() -> None:
    from transformers import DynamicCache

    model = build("llama")
    with extend(model, "think"), pytest.raises(ConfigError, match="needs its own store"):
        model(torch.ones(1, VOCABULARY % 7, dtype=torch.long), past_key_values=DynamicCache())
