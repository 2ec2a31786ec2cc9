"""The store of a sliding layer: what a window of full attention gives, in bounded memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.extend.conftest import build, tokens
from unspool.attention.call import Call
from unspool.attention.dense import Dense
from unspool.attention.spec import Spec
from unspool.caches.base import KV
from unspool.caches.sliding import SlidingStore
from unspool.extension import extend

HEADS, SIZE = 2, 4


def rows(real: list[list[bool]], seed: int = 0) -> tuple[Any, Any, Any, Any]:
    """Random q, k, v for columns of a batch, and the position of each (-1: padding)."""
    torch.manual_seed(seed)
    mask = torch.tensor(real)
    shape = (len(real), HEADS, mask.shape[1], SIZE)
    q, k, v = (torch.randn(shape, dtype=torch.float64) for _ in range(3))
    positions = (mask.long().cumsum(1) - 1).masked_fill(~mask, -1)
    return q, k, v, positions


def read(store: SlidingStore, parts: Any, cuts: list[int], padded: bool) -> Any:
    """Attention of every column, chunk by chunk."""
    q, k, v, positions = parts
    outs, start = [], 0
    for end in cuts:
        at = slice(start, end)
        where = positions[:, at] if padded else None
        store.seen += end - start
        store.append(KV(k[:, :, at], v[:, :, at], where, start))
        call = Call(
            q=q[:, :, at], k=k[:, :, at], v=v[:, :, at], positions=where, start=start,
            spec=Spec(window=store.window), rotate=lambda x, _: x, store=store, phase="prefill",
            layer=0, scale=0.5, seed=0, answers=True,
        )  # fmt: skip
        outs.append(Dense()(call))
        store.settle()
        start = end
    return torch.cat(outs, dim=2)


def by_hand(parts: Any, window: int) -> Any:
    """The same, one pair at a time over everything."""
    q, k, v, positions = (x.numpy() for x in parts)
    out = np.zeros_like(q)
    for b, h, t in np.ndindex(*q.shape[:3]):
        here = positions[b, t]
        if here < 0:
            continue
        seen = [
            s for s in range(q.shape[2]) if 0 <= positions[b, s] <= here < positions[b, s] + window
        ]
        scores = np.array([0.5 * q[b, h, t] @ k[b, h, s] for s in seen])
        p = np.exp(scores - scores.max())
        out[b, h, t] = (p / p.sum()) @ v[b, h, seen]
    return torch.from_numpy(out)


@given(st.integers(1, 12), st.integers(1, 30), st.data())
def test_chunks_give_what_a_window_of_everything_gives(
    window: int, length: int, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, length)))) or [length]
    cuts = cuts if cuts[-1] == length else [*cuts, length]
    parts = rows([[True] * length])
    found = read(SlidingStore(window), parts, cuts, padded=False)
    torch.testing.assert_close(found, by_hand(parts, window), rtol=0, atol=1e-12)


@given(st.integers(1, 8), st.lists(st.booleans(), min_size=24, max_size=24), st.integers(1, 9))
def test_padding_anywhere_counts_for_nothing(window: int, real: list[bool], step: int) -> None:
    parts = rows([real, [True] * 24])
    store = SlidingStore(window)
    found = read(store, parts, [*range(step, 24, step), 24], padded=True)
    torch.testing.assert_close(found, by_hand(parts, window), rtol=0, atol=1e-12)
    assert store.report().seen == sum(real)


def test_what_is_kept_is_bounded_and_counted() -> None:
    store = SlidingStore(16)
    parts = rows([[True] * 3000])
    read(store, parts, list(range(100, 3001, 100)), padded=False)
    store.finish_prefill()
    report = store.report()
    assert (report.seen, report.attended, report.stored, report.dropped) == (3000, 16, 0, 2984)
    assert len(store.kept) == 15
    assert report.bytes_device == 15 * 2 * HEADS * SIZE * 8


def test_a_written_token_copies_nothing_of_the_window() -> None:
    store = SlidingStore(64)
    parts = rows([[True] * 300])
    read(store, parts, [100, *range(101, 300)], padded=False)
    places = set()
    for number in range(120):
        _, k, v, _ = rows([[True]], seed=number)
        store.append(KV(k, v, None, 299 + number))
        store.settle()
        places.add(store.kept.tensors()[0].untyped_storage().data_ptr())  # type: ignore[union-attr]  # held
    assert len(places) <= 2


def test_saved_and_taken_up_it_goes_on() -> None:
    parts = rows([[False, False, *[True] * 40], [True] * 42])
    store, other = SlidingStore(8), SlidingStore(8)
    read(store, parts, [30], padded=True)
    other.load_state(store.state())
    other.reorder_cache(torch.tensor([1, 0]))
    other.reorder_cache(torch.tensor([1, 0]))
    for each in (store, other):
        each.append(KV(*(x[:, :, 30:] for x in parts[1:3]), parts[3][:, 30:], 30))
        each.settle()
    assert torch.equal(store.segments()[0].k, other.segments()[0].k)
    ours, theirs = store.report(), other.report()
    assert (ours.seen, ours.attended) == (theirs.seen, theirs.attended) == (28, 8)
    store.reset()
    assert store.seen == len(store.kept) == 0
    assert store.window == 8


@pytest.mark.parametrize("spec", ["dense", "infllm:local=32,init=2,block=8,top_k=2"])
def test_sliding_layers_of_a_mixed_model_keep_their_window(spec: str) -> None:
    with extend(build("gemma3"), spec) as ext:
        stream = ext.stream().feed(tokens(1, 200)[0].tolist())
        stream.fix()
        sizes = [len(s.kept) for s in stream.cache.stores if isinstance(s, SlidingStore)]
    assert sizes == [15, 15]  # two of three layers, a window of 16
