"""The benchmark of compressed caches: what it counts, and what it says where kvpress is missing."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.bench_compress import METHODS, VARIABLE, missing_kvpress
from benchmarks.peers.kv_reading import continuation_nats, reachable_bytes
from unspool.methods import resolve_reading


@dataclass(slots=True)
class Part:
    k: Tensor
    whole: Any = None


def test_counts_a_storage_once_and_a_view_as_what_it_keeps_alive() -> None:
    whole = torch.zeros(10, 8)
    part = Part(whole[:2], whole)
    part.whole = [part, {"again": whole, "other": torch.zeros(3)}]  # a circle
    assert reachable_bytes(SimpleNamespace(layers=[part])) == 10 * 8 * 4 + 3 * 4


def test_zeros_free_nothing_and_narrow_keys_do() -> None:
    keys = torch.ones(1, 2, 16, 8)
    zeroed = keys.clone()
    zeroed[..., 3:] = 0
    assert reachable_bytes(Part(zeroed)) == reachable_bytes(Part(keys))
    assert reachable_bytes(Part(keys[..., :3].clone())) < reachable_bytes(Part(keys))


def test_the_loss_is_that_of_the_tokens_behind_the_first() -> None:
    logits = torch.randn(1, 4, 7, generator=torch.Generator().manual_seed(0))
    ids, seen = [2, 5, 1, 6], {}

    def model(columns: Tensor, **given: Any) -> Any:
        seen.update(given)
        return SimpleNamespace(logits=logits)

    nats = continuation_nats(model, None, ids, 30)
    wanted = [-logits[0, i].log_softmax(-1)[ids[i + 1]] for i in range(3)]
    assert nats == pytest.approx(float(sum(wanted)) / 3, rel=1e-6)
    assert seen["position_ids"].tolist() == [[30, 31, 32, 33]]


def test_every_method_can_be_read_with() -> None:
    for spec, _ in METHODS.values():
        resolve_reading(spec)


def test_says_how_to_get_the_other_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert VARIABLE in str(missing_kvpress())
    monkeypatch.setenv(VARIABLE, sys.executable)  # a python, but without kvpress
    assert VARIABLE in str(missing_kvpress())
