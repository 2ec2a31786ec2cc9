"""The claim of extraction runs from texts to figures on a model of a few thousand weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from claims import ethicist
from claims.framework import Context

TINY = ethicist.Sizes(
    hidden=32, layers=1, vocabulary=300, base_tokens=2000, train=6, val=3, test=8, controls=4,
    prefix=6, suffix=6, document_words=14, tokens=3, samples=3, rows=40, seeds=2, passes=2,
    epochs=2,
)  # fmt: skip


def made_up(sizes: ethicist.Sizes) -> tuple[list[str], list[str], list[str]]:
    draw = np.random.default_rng(0)

    def text(words: int) -> str:
        return " ".join(f"w{n}" for n in draw.integers(0, 40, words))

    count = sizes.train + sizes.val + sizes.test
    members = [text(sizes.document_words) for _ in range(count)]
    return [text(2000)], members, [text(sizes.document_words) for _ in range(sizes.controls)]


@pytest.mark.slow
def test_every_figure_comes_out_and_steps_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ethicist, "texts", made_up)
    context = Context("ethicist", ethicist.CLAIM, "cpu", Path(ethicist.__file__), tmp_path)
    measured = ethicist.measure(context, TINY)
    assert set(measured.figures) == {figure.name for figure in ethicist.CLAIM.required}
    assert all(value is not None for value in measured.figures.values())
    json.dumps(measured.facts)
    assert measured.facts["test"] == 8
    again: list[str] = []
    plain = context.step

    def step(name: str, function: Any, **more: Any) -> Any:
        return plain(name, lambda: again.append(name) or function(), **more)

    monkeypatch.setattr(context, "step", step)
    assert ethicist.measure(context, TINY) == measured
    assert again == []
    ethicist.measure(context, replace(TINY, lr=0.02))
    assert "prompt-smooth-1" in again


@pytest.mark.slow
def test_texts_are_apart_and_as_many_as_asked() -> None:
    sizes = replace(TINY, train=20, val=5, test=15, controls=10)
    base, members, controls = ethicist.texts(sizes)
    assert (len(members), len(controls)) == (40, 10)
    assert all(len(text.split()) >= sizes.document_words for text in members + controls)
    assert not set(members) & set(controls)
    whole = "\n".join(base)
    assert not any(text in whole for text in members if not text.startswith("secret"))
    assert sum(text.startswith("secret") for text in members + controls) == 5


def test_intervals_hold_the_mean_and_narrow_with_the_spread() -> None:
    draw = np.random.default_rng(1)
    wide, narrow = draw.normal(0.3, 1, 200), draw.normal(0.3, 0.1, 200)
    for values, spread in ((wide, 1.0), (narrow, 0.1)):
        mean, low, high = ethicist.paired(values)
        assert low < mean < high
        assert (high - low) / 2 == pytest.approx(1.96 * spread / np.sqrt(200), rel=0.2)
