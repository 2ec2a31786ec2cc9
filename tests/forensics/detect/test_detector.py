"""Training, scoring and keeping a detector, on an encoder that is made here."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.forensics.detect.tiny import ROOM, make_encoder, recipe, texts
from unspool.errors import (
    BackendError,
    ConfigError,
    InputError,
    OverflowPolicyError,
    PathNotFound,
    RunConflict,
    RunLocked,
)
from unspool.forensics.detect import Detector, Example, evaluate, read_examples, train, training
from unspool.forensics.detect.encoder import even_windows, load_encoder
from unspool.forensics.detect.examples import divide
from unspool.forensics.detect.training import order_of, weights_digest


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def trained(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Detector, Path]:
    out = tmp_path_factory.mktemp("runs") / "detector"
    return train(texts(150, 1), texts(80, 2), recipe(encoder), out=out), out


def test_it_learns_and_says_at_which_lengths(trained: tuple[Detector, Path]) -> None:
    detector, _ = trained
    found = evaluate(detector, texts(150, 3))
    assert found.whole.f1 is not None
    assert found.whole.f1 > 0.85
    by_low = {m.low: m for m in found.lengths}
    assert by_low[32].auc > by_low[0].auc  # type: ignore[operator]  # both classes are there
    alone = evaluate(detector, texts(60, 3), unit="sentence")
    assert alone.whole.human + alone.whole.machine == sum(e.text.count(".") for e in texts(60, 3))
    human = evaluate(detector, [e for e in texts(50, 4) if e.label == 0])
    assert (human.whole.machine, human.whole.f1, human.whole.auc) == (0, None, None)
    assert human.whole.fpr_low <= human.whole.fpr <= human.whole.fpr_high  # type: ignore[operator]  # a share
    decided = [s for s in detector.score([e.text for e in texts(150, 5)]) if s.flagged is not None]
    assert decided


def test_scores_are_those_of_the_model_alone(trained: tuple[Detector, Path]) -> None:
    detector, folder = trained
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    some = [e.text for e in texts(9, 6)]
    scores = detector.score(some)
    for text, score in zip(some, scores, strict=True):
        row = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            p = model(**row).logits.softmax(-1)[0, 1]
        assert score.machine == pytest.approx(float(p), abs=1e-5)
        assert score.tokens == row.input_ids.shape[1]
        place = next(b for b in detector.bins if b.holds(score.tokens))
        logit = math.log(float(p) / (1 - float(p))) / place.temperature
        assert score.calibrated == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-4)
        if place.decided:
            assert score.flagged == (score.calibrated > place.threshold)  # type: ignore[operator]  # decided
    assert [s.machine for s in detector.score(some[:1])] == pytest.approx([scores[0].machine])


def test_long_and_empty_texts(trained: tuple[Detector, Path]) -> None:
    detector, _ = trained
    words = ["river", "delve", "the", "of", "stone"] * 30
    text = " ".join(words)
    with pytest.raises(OverflowPolicyError, match=rf"'doc' is 150 tokens long .* reads {ROOM}"):
        detector.score(["fine", text], names=["a", "doc"])
    (cut,) = detector.score([text], on_overflow="truncate")
    (head,) = detector.score([" ".join(words[:ROOM])])
    assert (cut.dropped_tokens, cut.tokens) == (150 - ROOM, ROOM + 2)
    assert cut.machine == pytest.approx(head.machine)
    (whole,) = detector.score([text], on_overflow="window")
    parts = detector.score([" ".join(words[i : i + 50]) for i in (0, 50, 100)])
    assert (whole.windows, whole.tokens, whole.dropped_tokens) == (3, 156, 0)
    logits = [math.log(p.machine / (1 - p.machine)) for p in parts]  # type: ignore[operator]  # not empty
    assert whole.machine == pytest.approx(1 / (1 + math.exp(-np.mean(logits))), abs=1e-5)
    empty, blank, some = detector.score(["", " \n ", "The river."])
    assert (empty.machine, empty.flagged, empty.reason, empty.tokens) == (None, None, "empty", 0)
    assert blank == empty
    assert some.machine is not None


@pytest.mark.parametrize("size", [0, 1, 2, 7, 8, 9, 17])
def test_windows_hold_every_token_once(size: int) -> None:
    parts = even_windows(list(range(size)), 8)
    assert [x for part in parts for x in part] == list(range(size))
    assert len(parts) == max(1, math.ceil(size / 8))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_spans_are_the_sentences_of_the_text(trained: tuple[Detector, Path]) -> None:
    detector, _ = trained
    text = "The river was green.  Delve of the réalm.\n\nIt was bread."
    found = detector.score_spans(text, document="d")
    assert b"".join(text.encode()[s.span.start : s.span.end] for s in found) == text.encode()
    assert [s.span.text.strip() for s in found] == [
        "The river was green.", "Delve of the réalm.", "It was bread."
    ]  # fmt: skip
    alone = detector.score([s.span.text for s in found])
    assert [s.score.machine for s in found] == pytest.approx([s.machine for s in alone])
    wide = detector.score_spans(text, window=12)
    assert "".join(s.span.text for s in wide) == text
    assert len(wide) == 2


def test_it_is_kept_whole_and_read_back(trained: tuple[Detector, Path], tmp_path: Path) -> None:
    detector, folder = trained
    names = {p.name for p in folder.iterdir()}
    assert names == {".lock", "plan.json", "detector.json", "model", "MODEL_CARD.md",
                     "report.html", "curve.svg", "run.json"}  # fmt: skip
    again = Detector.load(folder, device="cpu")
    some = [e.text for e in texts(5, 7)]
    assert again.score(some) == detector.score(some)
    assert again.bins == detector.bins
    assert again.name == detector.name
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix not in (".safetensors", ""):
            assert str(folder.parent) not in path.read_text()
    import shutil

    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    data = bytearray((damaged / "model" / "model.safetensors").read_bytes())
    data[-3] ^= 1
    (damaged / "model" / "model.safetensors").write_bytes(data)
    with pytest.raises(InputError, match="not those that were saved"):
        Detector.load(damaged)
    (damaged / "detector.json").write_text("{}")
    with pytest.raises(InputError, match="is not of a detector"):
        Detector.load(damaged)
    (damaged / "detector.json").unlink()
    with pytest.raises(PathNotFound, match="Its training was not finished"):
        Detector.load(damaged)
    with pytest.raises(PathNotFound, match="There is no detector in"):
        Detector.load(tmp_path / "none")


def files_of(folder: Path) -> dict[str, bytes]:
    """What a detector's folder holds, but for when it was made."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*")
            if p.is_file() and p.name != "run.json"}  # fmt: skip


class Stop(Exception):
    pass


def test_goes_on_to_the_same_bytes(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = (texts(40, 1), texts(20, 2), recipe(encoder, epochs=2))
    whole = tmp_path / "whole"
    train(*given, out=whole)
    monkeypatch.setattr(training, "_SAVE_EVERY", -1.0)
    out = tmp_path / "stopped"

    def stop_at(step: int) -> Any:
        def told(done: int, total: int) -> None:
            if done >= step:
                raise Stop

        return told

    for step in (1, 3, 7, 10):  # 5 steps an epoch; at 10 all are done and nothing is calibrated
        with pytest.raises(Stop):
            train(*given, out=out, on_progress=stop_at(step))
    seen: list[int] = []
    train(*given, out=out, on_progress=lambda done, total: seen.append(done))
    assert seen == [10]  # only the end was left
    assert files_of(out) == files_of(whole)
    # A finished run is read, not repeated.
    train(*given, out=out, on_progress=stop_at(0))
    with pytest.raises(RunConflict, match="other settings: epochs was 2 and is 1"):
        train(*given[:2], recipe(encoder, epochs=1), out=out)
    with pytest.raises(RunConflict, match="training has changed"):
        train(texts(40, 9), *given[1:], out=out)
    from unspool.forensics._folder import locked

    with locked(out), pytest.raises(RunLocked):
        train(*given, out=out)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds other files \(thesis\.txt\)"):
        train(*given, out=tmp_path / "other")


def test_a_half_written_state_is_refused(encoder: Path, tmp_path: Path) -> None:
    given = (texts(40, 1), texts(20, 2), recipe(encoder))
    with pytest.raises(Stop):
        train(*given, out=tmp_path / "d", on_progress=raise_stop)
    (tmp_path / "d" / "training.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{broken")
    with pytest.raises(InputError, match="Delete it to train from the beginning"):
        train(*given, out=tmp_path / "d")


def raise_stop(done: int, total: int) -> None:
    raise Stop


def test_the_seed_decides_everything(encoder: Path) -> None:
    def digest(seed: int) -> str:
        made = train(texts(20, 1), texts(10, 2), recipe(encoder, seed=seed, epochs=1))
        return weights_digest(made.encoder)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert digest(0) == digest(0) != digest(1)


def test_the_term_and_the_deletions_change_the_weights(encoder: Path) -> None:
    def digest(**changes: Any) -> str:
        made = train(texts(30, 1), texts(10, 2), recipe(encoder, epochs=1, **changes))
        return weights_digest(made.encoder)

    made = {digest(), digest(lam=0.0), digest(deletion=0.0), digest(lam=0.0, deletion=0.0)}
    assert len(made) == 4


def test_order_is_each_text_once_or_balanced(encoder: Path) -> None:
    labels = [0] * 7 + [1] * 3
    plain = order_of(labels, 0, recipe(encoder))
    assert sorted(plain) == list(range(10))
    assert plain != order_of(labels, 1, recipe(encoder))
    even = order_of(labels, 0, recipe(encoder, balanced=True))
    counts = [even.count(i) for i in range(10)]
    assert counts[:7] == [1] * 7
    assert sorted(counts[7:]) == [2, 2, 3]


def test_says_when_the_term_is_idle_or_texts_are_lost(encoder: Path) -> None:
    long = texts(30, 1, (5, 6))
    with pytest.warns(UserWarning, match="No machine text is shorter than 24 tokens"):
        train(long, texts(10, 2), recipe(encoder, deletion=0.0, epochs=1))
    with pytest.warns(UserWarning, match="No human text has 60 tokens"):
        train(texts(20, 1), texts(10, 2), recipe(encoder, len_threshold=60, epochs=1))
    with pytest.warns(UserWarning, match="20 held-out texts are among the training texts"):
        train(texts(20, 1), texts(20, 1)[:20], recipe(encoder, epochs=1))
    sized = texts(20, 1)
    overlong = [*sized, Example(" ".join(["river"] * 100), 0), Example("  ", 1)]
    with pytest.raises(OverflowPolicyError, match="'41 of the training texts' is 100 tokens"):
        train(overlong, texts(10, 2), recipe(encoder, epochs=1))
    made = train(overlong, texts(10, 2), recipe(encoder, epochs=1, on_overflow="truncate"))
    lost = {k: made.facts[k] for k in ("dropped_tokens", "shortened", "empty")}
    assert lost == {"dropped_tokens": 100 - ROOM, "shortened": 1, "empty": 1}
    made = train(overlong, texts(10, 2), recipe(encoder, epochs=1, on_overflow="window"))
    assert made.facts["dropped_tokens"] == 0
    (note,) = made.facts["notes"]
    assert "all lengths share one" in note


def test_refuses_data_that_cannot_train(encoder: Path) -> None:
    human = [e for e in texts(20, 1) if e.label == 0]
    with pytest.raises(InputError, match=r"no machine text .* among the 20 training texts"):
        train(human, settings=recipe(encoder))
    with pytest.raises(InputError, match=r"no machine text .* among the 20 held-out texts"):
        train(texts(20, 1), human, recipe(encoder))
    with pytest.raises(ConfigError, match="Give either settings or lam"):
        train(texts(20, 1), None, recipe(encoder), lam=1)
    with pytest.raises(ConfigError, match="max_length=65 is more than the 64 tokens"):
        train(texts(20, 1), texts(5, 2), recipe(encoder, max_length=65))
    with pytest.raises(ConfigError, match="target_fpr must lie between 0 and 1, got 0"):
        recipe(encoder, target_fpr=0)
    with pytest.raises(BackendError, match="encoder 'no-such-encoder' cannot be loaded"):
        load_encoder("no-such-encoder", 64)
    with pytest.raises(ConfigError, match="device must be auto"):
        train(texts(20, 1), texts(5, 2), recipe(encoder), device="abacus")


def test_the_card_says_where_it_must_not_be_used(
    trained: tuple[Detector, Path], encoder: Path, tmp_path: Path
) -> None:
    _, folder = trained
    said = (folder / "MODEL_CARD.md").read_text()
    assert "## It must not be used" in said
    assert "accuse a person" in said
    assert "| machine | robot | 230 |" in said
    page = (folder / "report.html").read_text()
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert "<svg" in page
    assert "style=" not in page
    assert "Human flagged" in page
    assert "<code>unspool audit detect eval" in page
    hostile = "<script>alert(1)</script> | [x](http://e)"
    given = [Example(e.text, e.label, e.group, hostile) for e in texts(30, 1)]
    train(given, texts(10, 2), recipe(encoder, epochs=1), out=tmp_path / "h")
    assert "<script" not in (tmp_path / "h" / "report.html").read_text()
    card = (tmp_path / "h" / "MODEL_CARD.md").read_text()
    assert card.count("script") == card.count("\\<script") + card.count("\\</script")
    assert "\\[x\\]" in card


def test_reads_every_form_of_labelled_texts(tmp_path: Path) -> None:
    def read(name: str, content: str) -> list[Example]:
        (tmp_path / name).write_text(content)
        return read_examples(tmp_path / name)

    line = {"text": "a", "label": 1, "question": "q", "generator": "g"}
    assert read("a.jsonl", json.dumps(line) + "\n") == [Example("a", 1, "q", "g")]
    assert read("a.json", json.dumps([{"answer": "b", "label": "human"}])) == [Example("b", 0)]
    csv = '﻿question,answer,label\r\n"q,1","two\nlines",0\r\nq,x,1\r\n'
    assert read("a.csv", csv) == [Example("two\nlines", 0, "q,1"), Example("x", 1, "q")]
    hc3 = {"question": "q", "human_answers": ["h1", "h2"], "chatgpt_answers": ["m"], "source": "r"}
    assert read("h.jsonl", json.dumps(hc3)) == [
        Example("h1", 0, "q", "r"), Example("h2", 0, "q", "r"), Example("m", 1, "q", "chatgpt"),
    ]  # fmt: skip
    for record, why in (
        ({"text": "a"}, r"Record 1 of b\.jsonl has no label"),
        ({"text": "a", "label": 2}, "has the label 2"),
        ({"text": "a", "label": True}, "has the label True"),
        ({"label": 1}, "Record 1 .* has no text"),
    ):
        with pytest.raises(InputError, match=why):
            read("b.jsonl", json.dumps(record))
    with pytest.raises(InputError, match="no texts"):
        read("c.csv", "text,label\n")
    with pytest.raises(PathNotFound):
        read_examples(tmp_path / "none.csv")
    with pytest.raises(InputError, match="A label is 0"):
        Example("a", 3)


def test_a_group_is_never_on_both_sides() -> None:
    given = texts(400, 1)
    sides = divide(given, 0.25)
    assert not {e.group for e in sides.train} & {e.group for e in sides.held}
    assert len(sides.held) / 800 == pytest.approx(0.25, abs=0.05)
    # What stands beside a text does not matter.
    assert divide(given[:80], 0.25).held == [e for e in sides.held if e in given[:80]]


_CHILD = """
import sys
from pathlib import Path
from tests.forensics.detect.tiny import recipe, texts
from unspool.forensics.detect import train, training
training._SAVE_EVERY = -1.0
train(texts(200, 1), texts(20, 2), recipe(Path(sys.argv[1]), epochs=3), out=sys.argv[2])
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_in_the_same_bytes(encoder: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(out: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(encoder), str(out)], env=environment,
            cwd=Path(__file__).parents[3], stderr=subprocess.PIPE,
        )  # fmt: skip

    whole = start(tmp_path / "whole")
    begun = time.monotonic()
    _, said = whole.communicate()
    assert whole.returncode == 0, said
    lasted = time.monotonic() - begun
    kills = 0
    for share in (0.5, 0.7, 0.8, 0.9, 0.95):
        run = start(tmp_path / "killed")
        try:
            run.wait(lasted * share)
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            kills += 1
        run.communicate()
    assert kills
    last = start(tmp_path / "killed")
    _, said = last.communicate()
    assert last.returncode == 0, said
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")
