"""Blocks on shelves and at hand: against an ordered dictionary, and byte for byte."""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unspool.caches.blocks import Residents, Shelf, check_place, slabs_of
from unspool.errors import ConfigError, StorageError

REQUESTS = st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=4, unique=True), max_size=40)


def load(number: int) -> tuple[Any, Any]:
    return torch.tensor(number), torch.tensor(-number)


@given(requests=REQUESTS, capacity=st.integers(4, 7))
def test_lru_equals_an_ordered_dictionary(requests: list[list[int]], capacity: int) -> None:
    residents = Residents(capacity, "lru", 0.1)
    model: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for wanted in requests:
        got = residents.fetch(wanted, load)
        assert {n: int(k) for n, (k, _) in got.items()} == {n: n for n in wanted}
        present = [n for n in wanted if n in model]
        hits += len(present)
        for n in present:
            del model[n]
            model[n] = None
        for n in wanted:
            model[n] = None  # at the end, if it is new
        while len(model) > capacity:
            model.popitem(last=False)
        assert list(residents.held) == list(model)
    assert residents.hits == hits
    assert residents.hits + residents.misses == sum(map(len, requests))


@given(requests=REQUESTS, capacity=st.integers(4, 6), seed=st.integers(0, 99))
def test_lru_s_evicts_what_received_least(
    requests: list[list[int]], capacity: int, seed: int
) -> None:
    residents = Residents(capacity, "lru-s", 0.5)
    scores: dict[int, float] = {}
    age: dict[int, int] = {}
    generator = torch.Generator().manual_seed(seed)
    for time, wanted in enumerate(requests):
        residents.fetch(wanted, load)
        for n in [n for n in wanted if n in scores] + [n for n in wanted if n not in scores]:
            age.pop(n, None)
            age[n] = time
        free = sorted(
            (n for n in scores if n not in wanted), key=lambda n: (scores[n], [*age].index(n))
        )
        over = len(scores.keys() | set(wanted)) - capacity
        for n in free[: max(0, over)]:
            del scores[n]
            del age[n]
        for n in wanted:
            scores.setdefault(n, 0.0)
        assert set(residents.held) == set(scores)
        mass = {n: float(torch.rand((), generator=generator)) for n in wanted}
        residents.credit(mass)
        scores = {n: 0.5 * s + mass.get(n, 0.0) for n, s in scores.items()}
        assert residents.scores == pytest.approx(scores)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("place", ["none", "cpu", "file"])
def test_a_shelf_gives_back_what_it_took(tmp_path: Path, place: str, dtype: Any) -> None:
    shelf = Shelf(str(tmp_path) if place == "file" else place)
    k = torch.randn(37, 2, 4, 6).to(dtype)
    v = torch.randn(37, 2, 4, 5).to(dtype)
    blocks = shelf.put(k[:3], v[:3]) + shelf.put(k[3:], v[3:])
    assert torch.equal(torch.stack([b.k for b in blocks]), k)
    assert torch.equal(torch.stack([b.v for b in blocks]), v)
    assert len(slabs_of(blocks)) == 3
    assert list(tmp_path.iterdir()) == []  # files have no name


def test_a_full_disk_is_an_error_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    x = torch.zeros(1, 1, 2, 2)
    with pytest.raises(StorageError, match="is full"):
        Shelf(str(tmp_path)).put(x, x)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    check_place(str(tmp_path))
    with pytest.raises(ConfigError, match="existing folder"):
        check_place(str(tmp_path / "missing"))
