"""What the claims of softplus attention feed a decoder, and that their figures come out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from claims import Context, softplus_attention, softplus_attention_gpu
from claims import _softplus_training as training
from claims._softplus_training import ARMS, IGNORED, KEY_DIGITS, Data, hide_key


def test_a_key_is_asked_for_at_the_end_and_stands_in_the_text() -> None:
    data = Data(
        train=np.zeros(0, np.uint16),
        held=np.zeros(0, np.uint16),
        says=[50, 51],
        stops=[52],
        digits=list(range(10)),
    )
    draw = np.random.default_rng(0)
    for length in (32, 57):
        row = np.full(length + 1, 99, dtype=np.int64)
        ids, targets = hide_key(row, data, draw)
        assert len(ids) == len(targets) == length
        key = [int(t) for t in targets if t != IGNORED]
        assert len(key) == KEY_DIGITS
        assert [int(t) for t in targets[-KEY_DIGITS:]] == key
        text = ids.tolist()
        starts = [i for i in range(length - 1) if text[i : i + 2] == [50, 51]]
        assert len(starts) == 2
        assert text[starts[0] + 2 : starts[0] + 3 + KEY_DIGITS] == [*key, 52]
        assert starts[1] == length - 1 - KEY_DIGITS  # its last digit is a target only
        assert text[starts[1] + 2 :] == key[:-1]


@pytest.mark.slow
@pytest.mark.parametrize("module", [softplus_attention, softplus_attention_gpu])
def test_every_figure_comes_out(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNSPOOL_DATA", str(tmp_path))
    letters = [" ".join(str(i * j) for j in range(60)) for i in range(80)]
    monkeypatch.setattr(training, "_library", lambda most: letters)
    kind = "gpu" if module is softplus_attention_gpu else "cpu"
    arm = replace(
        ARMS[kind],
        layers=1,
        width=64,
        window=96,
        vocabulary=300,
        batch_tokens=192,
        steps=2,
        times=(1, 2, 4, 8, 16),
        seeds=(0, 1),
        texts=1,
        debian=False,
    )
    context = Context("tiny", module.CLAIM, "cpu", Path(module.__file__), tmp_path / "steps")
    measured = module.run(context, arm)
    assert set(measured.figures) == {figure.name for figure in module.CLAIM.required}
    assert all(value is not None for value in measured.figures.values())
    before = sorted(path.name for path in (tmp_path / "steps").iterdir())
    module.run(context, replace(arm, seeds=(0,)))  # what is done serves fewer seeds
    assert sorted(path.name for path in (tmp_path / "steps").iterdir()) == before
