"""The claims of kNN-LM run from texts to figures on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import unspool
from claims import Context, _knn_lm, knn_lm, knn_lm_generated
from tests.backends import tiny
from unspool.backends.transformers import TransformersModel


@pytest.mark.slow
@pytest.mark.parametrize("script", [knn_lm, knn_lm_generated], ids=["tokens", "generated"])
def test_every_figure_comes_out(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss", reason="MAUVE clusters with faiss")
    net = TransformersModel(tiny.network(window=1024), tiny.tokenizer(), name="tiny@0")
    monkeypatch.setattr(unspool, "load_model", lambda **_: net)
    monkeypatch.setenv("UNSPOOL_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(_knn_lm, "SCALE", 0.5)
    small = _knn_lm.Arm(6000, 2000, 1600, 1000, 40, 16, 12, 2, "flat", 2048, 20)
    monkeypatch.setattr(_knn_lm, "ARMS", {"cpu": small, "gpu": small})
    texts = {
        name: [f"Page {i} of the {name} says: {i * 7919 % 1000} dogs, {i * 31 % 17} foxes. " * 6
               for i in range(60)]
        for name in (_knn_lm.SAME, _knn_lm.OTHER)
    }  # fmt: skip
    monkeypatch.setattr(_knn_lm, "texts_of", lambda *_: texts)
    monkeypatch.setattr(_knn_lm, "SHARED", 150)
    ctx = Context("knn", script.CLAIM, script.CLAIM.budget, Path(script.__file__), tmp_path / "c")
    measured = script.run(ctx)
    assert set(measured.figures) == {figure.name for figure in script.CLAIM.required}
    assert all(value is not None for value in measured.figures.values())
    json.dumps(measured.facts)
    again = script.run(ctx)  # from the steps on disk
    assert again.figures == measured.figures
    assert measured.figures["perplexity drop"] > 0.1
