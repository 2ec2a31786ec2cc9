"""Intervals, effective lengths and comparisons against oracles that share no code with them."""

from __future__ import annotations

import math
import random
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspool.errors import ConfigError, InputError
from unspool.evaluation.compare import compare, permutation_p, strata
from unspool.evaluation.effective import effective_length
from unspool.evaluation.intervals import bootstrap, mean_of, wilson


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        # Newcombe (1998), Statistics in Medicine 17, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_equals_published_intervals(hits: int, n: int, low: float, high: float) -> None:
    found = wilson(hits, n)
    assert found == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@given(st.integers(1, 200), st.data())
def test_wilson_solves_its_equation(n: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, n))
    p = hits / n
    for bound in wilson(hits, n):
        if 0 < bound < 1:
            z = (p - bound) / math.sqrt(bound * (1 - bound) / n)
            assert abs(z) == pytest.approx(1.959963984540054, rel=1e-6)


def test_a_bootstrap_is_close_to_the_normal_interval_of_a_large_sample() -> None:
    draw = random.Random(5)
    values = [draw.random() for _ in range(2000)]
    low, high = bootstrap(values, seed=1)
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    half = 1.96 * sd / math.sqrt(2000)
    assert (low, high) == (
        pytest.approx(mean - half, abs=0.2 * half),
        pytest.approx(mean + half, abs=0.2 * half),
    )
    assert bootstrap(values, seed=1) == (low, high)
    assert bootstrap(values, seed=2) != (low, high)


def test_means_choose_their_interval() -> None:
    sure = mean_of([1.0, 1.0, 1.0, 0.0])
    assert (sure.mean, sure.interval, sure.n) == (75.0, "wilson", 4)
    assert sure.se == pytest.approx(25.0)
    assert mean_of([0.5, 0.7]).interval == "bootstrap"
    alone = mean_of([0.25])
    assert (alone.mean, alone.low, alone.high, alone.se) == (25.0, 25.0, 25.0, None)
    with pytest.raises(ConfigError, match="empty"):
        mean_of([])


# --- effective length


def levels(**means: float) -> dict[int, list[float]]:
    return {int(name[1:]): [mean / 100] * 20 for name, mean in means.items()}


@pytest.mark.parametrize(
    ("scores", "rule", "monotone", "expected"),
    [
        (levels(l1000=95, l2000=86, l4000=80), "ruler", True, 2000),
        (levels(l1000=95, l2000=85.6, l4000=85.5), "ruler", True, 2000),
        (levels(l1000=80, l2000=95), "ruler", True, None),
        (levels(l1000=80, l2000=95), "ruler", False, 2000),
        (levels(l1000=95, l2000=50, l4000=90, l8000=20), "ruler", True, 1000),
        (levels(l1000=95, l2000=50, l4000=90, l8000=20), "ruler", False, 4000),
        (levels(l250=60, l500=70, l1000=50, l2000=59.5, l4000=59.4), "nolima", False, 2000),
        (levels(l250=60, l500=70, l1000=50, l2000=60), "nolima", True, 500),
        (levels(l2000=90, l4000=90), "nolima", True, None),
        (levels(l500=0, l2000=0, l4000=0), "nolima", True, None),
        (levels(l256=50, l512=50, l4096=42.5), "nolima", True, 4096),
        (levels(l1000=75, l2000=74.9), "threshold:75", True, 1000),
        (levels(l1000=10), "threshold:75", True, None),
        (levels(l1000=75, l2000=74.9), "threshold:0.75", True, 1000),
        ({}, "ruler", True, None),
        ({1000: [], 2000: [1.0]}, "ruler", True, 2000),
    ],
)
def test_effective_length_by_hand(
    scores: dict[int, list[float]], rule: str, monotone: bool, expected: int | None
) -> None:
    found = effective_length(scores, rule, monotone=monotone)
    assert found.length == expected


def test_an_interval_covers_what_is_unsure() -> None:
    scores = {1000: [1.0] * 50, 2000: [1.0] * 44 + [0.0] * 6, 4000: [0.0] * 50}
    found = effective_length(scores, "ruler", seed=3)  # 88% at 2000, close to 85.6
    assert (found.low, found.length, found.high) == (1000, 2000, 2000)
    sure = effective_length({1000: [1.0] * 50, 2000: [0.0] * 50}, "ruler")
    assert (sure.low, sure.high) == (1000, 1000)


@pytest.mark.parametrize(
    "rule", ["", "best", "threshold", "threshold:0", "threshold:101", "ruler:1"]
)
def test_an_unknown_rule_is_named(rule: str) -> None:
    with pytest.raises(ConfigError, match="ruler, nolima or threshold:X"):
        effective_length({1: [1.0]}, rule)


# --- comparison


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]), min_size=1, max_size=9))
def test_small_permutation_tests_are_exact(change: list[float]) -> None:
    observed = abs(sum(change))
    signs = list(product((-1, 1), repeat=len(change)))
    extreme = sum(
        abs(sum(s * c for s, c in zip(sign, change, strict=True))) >= observed - 1e-9
        for sign in signs
    )
    assert permutation_p(np.array(change)) == pytest.approx(extreme / len(signs))


def test_large_permutation_tests_are_seeded_and_close() -> None:
    change = np.array([1.0] * 30 + [-1.0] * 20)
    p = permutation_p(change, seed=1)
    # Exactly: P(|Binomial(50, 1/2) - 25| >= 5).
    exact = 2 * sum(math.comb(50, k) for k in range(30, 51)) / 2**50
    assert p == pytest.approx(exact, abs=0.015)
    assert p == permutation_p(change, seed=1)
    assert permutation_p(np.array([1.0] * 200)) == pytest.approx(1 / 10001)


def test_a_comparison_keeps_its_pairs() -> None:
    first, second = [0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]
    found = compare(first, second)
    assert (found.n, found.first, found.second, found.difference) == (4, 50, 100, 50)
    assert found.p == 0.5  # two pairs differ: 2 of 4 signs are as extreme
    assert compare(second, first).difference == -50
    assert compare(first, first).p == 1.0
    with pytest.raises(InputError, match="4 and 3"):
        compare(first, second[:3])


def test_strata_compare_shared_samples_only() -> None:
    first = {
        ("t", "1k", "a"): 0.0,
        ("t", "1k", "b"): 0.0,
        ("t", "2k", "a"): 1.0,
        ("u", "1k", "a"): 1.0,
    }
    second = {("t", "1k", "a"): 1.0, ("t", "2k", "a"): 1.0, ("t", "2k", "z"): 0.0}
    found = strata(first, second)
    assert list(found) == ["t"]
    assert {name: each.n for name, each in found["t"].items()} == {"all": 2, "1k": 1, "2k": 1}
    assert found["t"]["1k"].difference == 100
    with pytest.raises(InputError, match="no sample in common"):
        strata(first, {("t", "4k", "a"): 1.0})
