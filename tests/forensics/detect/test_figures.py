"""Bins, temperatures, bounds and figures, against scipy, scikit-learn and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest
from sklearn.metrics import f1_score, roc_auc_score

from unspool.forensics.detect.calibration import (
    bin_of,
    fit_bins,
    probabilities,
    ranges,
    temperature,
    threshold,
)
from unspool.forensics.detect.metrics import auc, f1, wilson


def made(size: int, seed: int, skill: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 2, size)
    return draw.normal((2 * labels - 1) * skill, 1.5) * 4, labels


@pytest.mark.parametrize("seed", range(3))
def test_the_temperature_has_the_least_cross_entropy(seed: int) -> None:
    margins, labels = made(400, seed)
    ones, zeros = labels.sum(), (1 - labels).sum()
    targets = np.where(labels == 1, (ones + 1) / (ones + 2), 1 / (zeros + 2))

    def loss(heat: float) -> float:
        z = margins / heat
        return float((np.logaddexp(0, z) - targets * z).sum())

    best = minimize_scalar(loss, bounds=(0.02, 50), method="bounded", options={"xatol": 1e-9}).x
    assert temperature(margins, labels) == pytest.approx(best, rel=1e-4)


def test_texts_that_are_told_apart_keep_a_finite_temperature() -> None:
    labels = np.array([0] * 20 + [1] * 20)
    margins = np.where(labels == 1, 5.0, -5.0)
    p = probabilities(margins, temperature(margins, labels))
    assert p[labels == 1] == pytest.approx(np.full(20, 21 / 22), abs=1e-3)  # Platt's targets
    upside_down = temperature(-margins, labels)
    assert upside_down == pytest.approx(50, rel=1e-6)  # no skill: everything is near one half


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=60), st.sampled_from([0.01, 0.05, 0.1, 0.5]))
def test_the_bound_is_an_order_statistic(scores: list[float], target: float) -> None:
    bound = threshold(np.array(scores), target)
    n = len(scores)
    if bound is None:
        assert (n + 1) * target < 1 + 1e-6  # too few for any bound
        return
    # The new text is as likely at each of n + 1 places; those above the bound are at most target.
    assert (sum(s > bound for s in scores) + 1) / (n + 1) <= target + 1e-9
    lower = [s for s in scores if s < bound]
    if lower and len(set(scores)) == n:
        assert (sum(s >= bound for s in scores) + 1) / (n + 1) > target


def test_new_human_texts_pass_the_bound_as_rarely_as_said() -> None:
    draw = np.random.default_rng(0)
    passed = []
    for _ in range(600):
        bound = threshold(draw.normal(size=59), 0.05)
        assert bound is not None
        passed.append((draw.normal(size=50) > bound).mean())
    assert np.mean(passed) == pytest.approx(0.05, abs=0.006)


def test_bins_hold_every_length_once_and_are_filled() -> None:
    draw = np.random.default_rng(1)
    labels = draw.integers(0, 2, 500)
    lengths = np.minimum(draw.geometric(0.03, 500) + 2, 512)
    found = ranges(labels, lengths, (16, 24, 32, 48, 64, 96, 128, 192), 30)
    assert found[0][0] == 0
    assert found[-1][1] is None
    assert [high for _, high in found[:-1]] == [low for low, _ in found[1:]]
    assert len(found) > 3
    for low, high in found:
        inside = (lengths >= low) & (lengths < (high or 10**9))
        assert min((labels[inside] == y).sum() for y in (0, 1)) >= 30
    assert ranges(labels[:20], lengths[:20], (16, 24), 30) == [(0, None)]


def test_short_lengths_without_skill_are_not_decided() -> None:
    draw = np.random.default_rng(2)
    labels = np.tile([0, 1], 600)
    lengths = np.repeat([10, 100], 600)
    skill = np.where(lengths == 100, 6.0, 0.1)
    margins = draw.normal((2 * labels - 1) * skill, 1.0)
    bins = fit_bins(margins, labels, lengths, target_fpr=0.02, min_tpr=0.5)
    assert [bin_of(bins, n).decided for n in (1, 10, 100, 5000)] == [False, False, True, True]  # type: ignore[union-attr]  # every length has a bin
    assert all(b.fpr is not None and b.fpr <= 0.02 for b in bins)
    short, long = bin_of(bins, 10), bin_of(bins, 100)
    assert short is not None
    assert long is not None
    assert (long.tpr or 0) > 0.9 > 0.3 > (short.tpr or 0)
    few = fit_bins(margins[:40], labels[:40], lengths[:40], target_fpr=0.02, min_tpr=0.5)
    assert [(b.threshold, b.tpr, b.decided) for b in few] == [(None, None, False)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), min_size=2, max_size=40))
def test_figures_are_those_of_scikit_learn(rows: list[tuple[int, int]]) -> None:
    labels = np.array([0, 1, *(y for y, _ in rows)])
    scores = np.array([3, 3, *(s for _, s in rows)]) / 6
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    called = scores > 0.5
    assert f1(labels, called) == pytest.approx(f1_score(labels, called, zero_division=0.0))


@pytest.mark.parametrize(("hits", "total"), [(0, 5), (3, 7), (40, 40), (1, 1000)])
def test_intervals_are_those_of_wilson(hits: int, total: int) -> None:
    expected = binomtest(hits, total).proportion_ci(0.95, "wilson")
    assert wilson(hits, total) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert wilson(0, 0) == (0.0, 1.0)
