"""Cleaning, multiscaling, the prior and the loss, against definitions that share no code."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unspool.errors import ConfigError, InputError
from unspool.forensics.detect import MPULoss, clean, multiscale, prior_table
from unspool.forensics.detect.multiscaling import runs, split

CASES = {
    "word , word .": "word, word.",
    "Do n't ; it 's so !": "Don't; it's so!",
    "one\ntwo\r\n\r\nthree\tfour": "one two three four",
    "Pi is 3.14 , see http://x.y:80/z .": "Pi is 3.14, see http://x.y:80/z.",
    "Why ? ! And . . . so": "Why?! And... so",
    "run ./configure .NET :wq": "run ./configure .NET :wq",
    "  two  spaces  ": "two spaces",
    "": "",
    " \n ": "",
}


@pytest.mark.parametrize("text", CASES)
def test_cleans_by_hand(text: str) -> None:
    assert clean(text) == CASES[text]


def test_full_width_punctuation_becomes_ascii() -> None:
    wide = "".join(chr(ord(c) + 0xFEE0) for c in ",;:?!()")
    assert clean(f"a{wide}b{chr(0x3002)}c") == "a,;:?!()b.c"


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab n't's.,;:?! \n\t()'" + chr(0x3002) + chr(0xFF0C), max_size=60))
def test_cleaning_twice_changes_nothing(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    kept = [c for c in text.translate({0x3002: ".", 0xFF0C: ","}) if not c.isspace()]
    assert [c for c in once if c != " "] == kept


LINES = ["One is here.", "Two is there!", "Is three so?", "Four ends it."]


def test_multiscaling_deletes_each_sentence_by_its_own_coin() -> None:
    text = " ".join(LINES)
    seen: dict[int, int] = {}
    kept = np.zeros(4)
    for seed in range(4000):
        found = multiscale(text, 0.25, random.Random(seed))
        left = [line in found for line in LINES]
        assert found == " ".join(line for line, k in zip(LINES, left, strict=True) if k)
        kept += left
        seen[sum(left)] = seen.get(sum(left), 0) + 1
    # All four deleted (1 in 256) gives the text back, which adds to those where all stay.
    assert kept / 4000 == pytest.approx([0.75 + 1 / 256] * 4, abs=0.03)
    assert seen[4] / 4000 == pytest.approx(0.75**4 + 0.25**4, abs=0.03)


@given(st.text(alphabet="ab .!\n", max_size=80), st.sampled_from([0, 1]), st.integers(0, 9))
def test_no_deletion_and_all_deletion_change_nothing(text: str, deletion: int, seed: int) -> None:
    assert multiscale(text, deletion, random.Random(seed)) == text


def test_scripts_without_blanks_are_joined_without() -> None:
    parts = [f"{chr(0x4E00 + i)}{chr(0x3002)}" for i in range(6)]
    found = multiscale("".join(parts), 0.5, random.Random(3))
    assert " " not in found
    assert 0 < len(found) < 12
    with pytest.raises(ConfigError, match=r"deletion must be a probability.*1\.5"):
        multiscale("a. b.", 1.5, random.Random(0))


def test_runs_are_every_size_once() -> None:
    text = " ".join(LINES)
    assert split(text) == LINES
    assert runs(text) == [*LINES, " ".join(LINES[:2]), " ".join(LINES[2:]), text]
    assert runs("Alone.") == ["Alone."]
    assert runs("") == []


def by_matrix(prior: float, length: int) -> float:
    """1 - E[state] / length of the walk on 0..length clamped at both ends, by matrix power."""
    move = np.zeros((length + 1, length + 1))
    for state in range(length + 1):
        move[state, max(state - 1, 0)] += prior
        move[state, min(state + 1, length)] += 1 - prior
    start = np.eye(length + 1)[0]
    return 1 - float(start @ np.linalg.matrix_power(move, length) @ np.arange(length + 1)) / length


@pytest.mark.parametrize("prior", [0.0, 0.2, 0.3, 0.5, 0.9, 1.0])
def test_the_prior_is_that_of_the_matrix_power(prior: float) -> None:
    table = prior_table(prior, 60)
    assert table[:3].tolist() == [prior] * 3
    assert table[3:] == pytest.approx([by_matrix(prior, n) for n in range(3, 61)], abs=1e-12)


def test_the_prior_has_the_known_values() -> None:
    table = prior_table(0.2, 512)
    known = {3: 0.3067, 4: 0.3264, 8: 0.3595, 16: 0.3792, 55: 0.3939, 128: 0.3974, 512: 0.3993}
    assert {n: round(float(table[n]), 4) for n in known} == known
    other = prior_table(0.3, 512)
    known = {3: 0.4400, 16: 0.5551, 60: 0.5875, 512: 0.5985}
    assert {n: round(float(other[n]), 4) for n in known} == known


def test_the_prior_is_what_a_walk_does() -> None:
    draw = random.Random(0)
    total = 0
    for _ in range(20_000):
        state = 0
        for _ in range(12):
            state = max(state - 1, 0) if draw.random() < 0.3 else min(state + 1, 12)
        total += state
    assert prior_table(0.3, 12)[12] == pytest.approx(1 - total / 20_000 / 12, abs=0.01)


@pytest.mark.parametrize(("prior", "length"), [(1.2, 5), (-0.1, 5), (0.2, 0)])
def test_refuses_a_prior_that_is_none(prior: float, length: int) -> None:
    with pytest.raises(ConfigError, match=r"prior must|max_length must"):
        prior_table(prior, length)


def by_loop(
    logits: list[list[float]], labels: list[int], lengths: list[int], loss: MPULoss
) -> float:
    """The whole loss, text by text."""
    table = [loss.prior if n < 3 else by_matrix(loss.prior, n) for n in range(max(lengths) + 1)]

    def sigma(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    crosses, as_positive, human_negative, unlabelled = [], 0.0, 0.0, 0.0
    long = [n >= loss.threshold for n in lengths]
    n_p = max(1, sum(y == 0 and k for y, k in zip(labels, long, strict=True)))
    n_u = max(1, sum(y == 1 and not k for y, k in zip(labels, long, strict=True)))
    mean_u = sum(table[n] for n, y, k in zip(lengths, labels, long, strict=True)
                 if y == 1 and not k) / n_u  # fmt: skip
    for (h, m), y, n, k in zip(logits, labels, lengths, long, strict=True):
        p = math.exp(h) / (math.exp(h) + math.exp(m))
        crosses.append(-math.log(p if y == 0 else 1 - p))
        g = p if loss.surrogate == "prob" else h - m
        weight = table[n] if loss.prior_on == "positive" else mean_u
        if y == 0 and k:
            as_positive += weight / n_p * sigma(-g)
            human_negative += weight / n_p * sigma(g)
        if y == 1 and not k:
            unlabelled += sigma(g) / n_u
    negative = unlabelled - human_negative
    term = as_positive + (negative if negative >= 0 else 0)
    return sum(crosses) / len(crosses) + loss.lam * term


@pytest.mark.parametrize("surrogate", ["prob", "logit"])
@pytest.mark.parametrize("prior_on", ["positive", "unlabelled"])
@pytest.mark.parametrize("size", [1, 2, 7, 33])
def test_the_loss_is_the_loop(surrogate: str, prior_on: str, size: int) -> None:
    draw = torch.Generator().manual_seed(size)
    loss = MPULoss(lam=0.7, prior=0.3, threshold=9, max_length=20, surrogate=surrogate,
                   prior_on=prior_on)  # type: ignore[arg-type]  # parametrised names  # fmt: skip
    for _ in range(8):
        logits = 2 * torch.randn(size, 2, generator=draw, dtype=torch.float64)
        labels = torch.randint(0, 2, (size,), generator=draw)
        lengths = torch.randint(1, 21, (size,), generator=draw)
        expected = by_loop(logits.tolist(), labels.tolist(), lengths.tolist(), loss)
        assert float(loss(logits, labels, lengths)) == pytest.approx(expected, abs=1e-12)


def test_without_weight_it_is_cross_entropy_bit_for_bit() -> None:
    logits, labels = torch.randn(9, 2), torch.tensor([0, 1, 1, 0, 1, 0, 0, 1, 1])
    expected = torch.nn.functional.cross_entropy(logits, labels)
    assert torch.equal(MPULoss(lam=0)(logits, labels, torch.full((9,), 5)), expected)


def test_with_one_prior_it_is_the_non_negative_risk() -> None:
    """Kiryo et al. (2017), eq. 6: pi R_p(+) + max(0, R_u(-) - pi R_p(-)), sigmoid loss."""
    draw = torch.Generator().manual_seed(4)
    pi = 0.35
    loss = MPULoss(lam=1, prior=pi, threshold=2, max_length=2, surrogate="logit")
    for shift in (-3.0, 0.0, 3.0):
        margins = torch.randn(12, generator=draw, dtype=torch.float64) + shift
        logits = torch.stack([margins, torch.zeros(12, dtype=torch.float64)], 1)
        labels = torch.tensor([0, 1] * 6)
        lengths = torch.where(labels == 0, 2, 1)  # every human long, every machine short
        positive, unlabelled = margins[labels == 0], margins[labels == 1]
        sigmoid = torch.sigmoid
        negative = sigmoid(unlabelled).mean() - pi * sigmoid(positive).mean()
        expected = pi * sigmoid(-positive).mean() + (negative if negative >= 0 else 0)
        assert float(loss.unlabelled(logits, labels, lengths)) == pytest.approx(float(expected))


def test_gradients_and_the_clamped_branch() -> None:
    labels, lengths = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([9, 2, 2, 9, 3])
    loss = MPULoss(lam=0.5, threshold=5, max_length=9, surrogate="logit")
    logits = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels, lengths), (logits,))
    # Unlabelled texts that look like machine make the second part negative: it goes, with its
    # gradient, and only the positives are left.
    sure = torch.tensor([[5.0, 0], [0, 0], [0, 9], [0, 9], [0, 9]], dtype=torch.float64)
    sure.requires_grad_()
    loss.unlabelled(sure, labels, lengths).backward()
    assert sure.grad is not None
    assert torch.count_nonzero(sure.grad[1:]) == 0
    assert sure.grad[0, 0] < 0
    # The idea itself: a short machine text is pushed less towards machine than by cross-entropy.
    rows = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.5]], dtype=torch.float64)
    pulls = []
    for lam in (0.0, 0.5):
        given_rows = rows.clone().requires_grad_()
        MPULoss(lam=lam, threshold=5, max_length=9)(
            given_rows, torch.tensor([1, 0, 1]), torch.tensor([2, 9, 9])
        ).backward()
        assert given_rows.grad is not None
        pulls.append(float(given_rows.grad[0, 1]))
    assert pulls[0] < 0
    assert pulls[0] != pulls[1]


def test_refuses_what_cannot_be_a_loss() -> None:
    with pytest.raises(ConfigError, match="lam must be 0 or more"):
        MPULoss(lam=-1.0)
    with pytest.raises(ConfigError, match="threshold must be 0 tokens or more, got -1"):
        MPULoss(threshold=-1)
    with pytest.raises(InputError, match="9 tokens is longer than max_length=8"):
        MPULoss(max_length=8)(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([9]))
