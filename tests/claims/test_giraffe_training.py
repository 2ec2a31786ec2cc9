"""What the training claim of Giraffe feeds a model and how it scores one."""

from __future__ import annotations

import random
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from claims import _giraffe_training as training
from claims._giraffe_training import IGNORED, Corpus, Settings


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_MOST_BYTES", 50_000)
        patch.setattr(
            training, "_files", lambda: [f"def f{i}(x):\n    return x\n" for i in range(90)]
        )
        return Corpus(400)


@pytest.mark.parametrize("length", [512, 700, 1025])
def test_a_record_asks_for_what_stands_in_it(corpus: Corpus, length: int) -> None:
    ids, targets = corpus.record(length, 4, random.Random(length))
    assert len(ids) == len(targets) == length
    text = corpus.tokenizer.decode(ids)
    lines = dict(re.findall(r"^line (\S+): REGISTER_CONTENT is <(\d{5})>$", text, re.M))
    asked = re.findall(r"The REGISTER_CONTENT of line (\S+) is <(\d{5})>", text)
    assert len(asked) == 4
    assert len(lines) >= 4
    assert [number for _, number in asked] == [lines[label] for label, _ in asked]
    wanted = corpus.tokenizer.decode([t for t in targets if t != IGNORED])
    assert wanted == "".join(f"{number}>" for _, number in asked)
    for i, target in enumerate(targets[:-1]):  # a target is the token that comes next
        assert target in (IGNORED, ids[i + 1])


def test_scores_of_a_model_that_knows_and_of_one_that_does_not(corpus: Corpus) -> None:
    settings = Settings(records=3, questions=4, texts=2)

    def knows(ids: torch.Tensor, use_cache: bool) -> Any:
        after = torch.roll(ids[0], -1)
        return SimpleNamespace(logits=torch.nn.functional.one_hot(after, 400).float()[None] * 40)

    def guesses(ids: torch.Tensor, use_cache: bool) -> Any:
        return SimpleNamespace(logits=torch.zeros(1, ids.shape[1], 400))

    for model, right, nats in ((knows, 12, 0.0), (guesses, 0, float(np.log(400)))):
        wrapped = _Model(model)
        assert training.lines_right(wrapped, corpus, settings, 400, 0) == (right, 12)
        loss = training.held_out_loss(wrapped, corpus, settings, 40, 0)
        # The last token of a window has no successor in it, so even this model misses that one.
        assert abs(loss - nats) < (40 / 10 + 1e-3 if right else 1e-3)


def test_batches_are_half_text_and_half_records(corpus: Corpus) -> None:
    settings = Settings(batch_tokens=1200, questions=2)
    (first, second), *rest = training.batches(corpus, settings, 300, 2, seed=1)
    assert first.shape == second.shape == (4, 300)
    assert bool((second[:2] != IGNORED).all())
    assert int((second[2:] != IGNORED).sum()) == 2 * 2 * 6
    again = next(iter(training.batches(corpus, settings, 300, 1, seed=1)))
    assert torch.equal(first, again[0])
    assert not torch.equal(first, rest[0][0])


class _Model:
    device = torch.device("cpu")

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, ids: torch.Tensor, use_cache: bool) -> Any:
        return self.function(ids, use_cache)
