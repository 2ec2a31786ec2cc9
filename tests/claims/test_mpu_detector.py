"""The claim of the MPU detector runs from scores to figures, on scores that were made up."""

from __future__ import annotations

import random

import numpy as np
import pytest
from sklearn.metrics import f1_score

from claims.mpu_detector import CLAIM, Arm, divided, f1_of, is_prose, plain, tallies, tiny


def test_every_figure_comes_out_of_scores() -> None:
    measured = tiny()
    assert set(measured.figures) == {figure.name for figure in CLAIM.required}
    gain = measured.figures["F1 on sentences above that of cross-entropy"]
    low = measured.figures["the same, low end of its 95% interval"]
    assert gain is not None
    assert low is not None
    assert 0 < low < gain < measured.facts["high end of the gain on sentences"]
    assert (
        measured.figures["F1 on sentences of an unseen generator above that of cross-entropy"]
        is None
    )


def test_f1_is_that_of_scikit_learn_and_of_the_tallies() -> None:
    draw = np.random.default_rng(0)
    rows = [[n % 7, int(draw.integers(2)), 20, float(draw.random())] for n in range(90)]
    expected = f1_score([r[1] for r in rows], [r[3] > 0.5 for r in rows])
    assert f1_of(rows) == pytest.approx(expected)
    right, wrong = tallies(rows, 7).sum(0)
    assert 2 * right / (2 * right + wrong) == pytest.approx(expected)


def test_no_page_is_on_two_sides() -> None:
    draw = random.Random(0)
    pairs = [{"page": f"p{draw.randrange(60)}", "human": f"text {i % 190}"} for i in range(200)]
    parts = divided(pairs, Arm(train=100, held=20, test=40))
    pages = [{pair["page"] for pair in part} for part in parts.values()]
    assert all(not a & b for i, a in enumerate(pages) for b in pages[:i])
    humans = [pair["human"] for part in parts.values() for pair in part]
    assert len(humans) == len(set(humans))
    assert [len(parts[name]) >= size for name, size in (("test", 40), ("held", 20))] == [True] * 2


def test_prose_is_told_from_code_and_marks_are_taken_out() -> None:
    prose = "The gate of the town was shut at nine and it will be open again in the morning. " * 2
    assert is_prose(prose.split())
    assert not is_prose(("int main(void) { return 0; } // " * 9).split())
    assert not is_prose(prose.split()[:20])
    assert (
        plain("**Bold** `code`, it\u2019s \u201cso\u201d \u2013 yes .")
        == 'Bold code, it\'s "so" - yes.'
    )
