"""Scoring many documents with stops and workers, and the commands as they are typed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.forensics.detect.tiny import make_encoder, recipe, texts
from unspool.cli import main as cli
from unspool.errors import ConfigError, InputError, RunConflict
from unspool.forensics.detect import Detector, corpus, train
from unspool.forensics.detect.corpus import score_corpus
from unspool.types import Document


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def detector(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("detector") / "d"
    train(texts(100, 1), texts(60, 2), recipe(encoder), out=out)
    return out


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "CHUNK", 4)


def documents(count: int, seed: int = 3) -> list[Document]:
    return [Document(f"d{i}", e.text) for i, e in enumerate(texts(count, seed))]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "scores.jsonl").read_bytes().splitlines()]


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "run.json"}


@pytest.mark.usefixtures("small")
def test_scores_every_document_in_order(detector: Path, tmp_path: Path) -> None:
    given = [*documents(6), Document("empty", " "), Document("long", "river " * 100)]
    found = score_corpus(detector, given, on_overflow="window", device="cpu")
    loaded = Detector.load(detector, device="cpu")
    expected = loaded.score([d.text for d in given], on_overflow="window")
    assert [r["document"] for r in found.rows] == [d.id for d in given]
    for row, score in zip(found.rows, expected, strict=True):
        assert row["machine"] == (
            None if score.machine is None else pytest.approx(score.machine, abs=1e-6)
        )
        assert (row["tokens"], row["windows"]) == (score.tokens, score.windows)
    s = found.summary
    flags = [r["flagged"] for r in found.rows]
    assert (s.documents, s.scored, s.empty, s.windowed) == (14, 13, 1, 1)
    assert (s.flagged, s.undecided) == (flags.count(True), flags.count(None) - 1)
    by_sentence = score_corpus(detector, given[:3], unit="sentence", device="cpu")
    assert "".join(r["text"] for r in by_sentence.rows) == "".join(d.text for d in given[:3])
    assert set(by_sentence.rows[0]) > {"document", "start", "end", "text", "machine", "flagged"}
    out = tmp_path / "s"
    assert score_corpus(detector, given, on_overflow="window", out=out, device="cpu").summary == s
    assert rows_of(out) == list(found.rows)


class Stop(Exception):
    pass


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("stop", [0, 1, 4, 5, 9])
def test_goes_on_after_a_stop_with_equal_files(detector: Path, tmp_path: Path, stop: int) -> None:
    given = documents(7)  # 14 documents, the last chunk of 2
    score_corpus(detector, given, out=tmp_path / "whole", device="cpu")

    def broken() -> Iterator[Document]:
        for number, document in enumerate(given):
            if number == stop:
                raise Stop
            yield document

    out = tmp_path / "stopped"
    with pytest.raises(Stop):
        score_corpus(detector, broken(), out=out, device="cpu")
    assert not (out / "scores.jsonl").exists()
    part = out / "scores.jsonl.part"
    part.write_bytes(part.read_bytes() + b'{"half')  # written, but not yet counted
    found = score_corpus(detector, given, out=out, device="cpu")
    assert found.resumed == stop // 4 * 4
    assert files_of(out) == files_of(tmp_path / "whole")
    again = score_corpus(detector, given, out=out, device="cpu")
    assert (again.resumed, again.summary) == (14, found.summary)


@pytest.mark.usefixtures("small")
def test_other_documents_or_settings_are_refused(detector: Path, tmp_path: Path) -> None:
    given, out = documents(4), tmp_path / "s"
    score_corpus(detector, given, out=out, device="cpu")
    changed = [Document(given[0].id, given[0].text + " River."), *given[1:]]
    for other in (changed, given[:-1], [*given, Document("more", "The river.")]):
        with pytest.raises(RunConflict, match="begun with other documents"):
            score_corpus(detector, other, out=out, device="cpu")
    with pytest.raises(RunConflict, match="unit was text and is sentence"):
        score_corpus(detector, given, out=out, unit="sentence", device="cpu")
    with pytest.raises(ConfigError, match="workers must be at least 1, got 0"):
        score_corpus(detector, given, workers=0)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        score_corpus(detector, given, out=tmp_path / "file")
    (out / "summary.json").write_text('{"documents": 8')
    with pytest.raises(InputError, match="is not of this command"):
        score_corpus(detector, given, out=out, device="cpu")


@pytest.mark.slow
def test_workers_do_not_change_a_byte(detector: Path, tmp_path: Path) -> None:
    given = documents(400)
    for workers in (1, 2):
        score_corpus(detector, given, out=tmp_path / f"w{workers}", workers=workers, device="cpu")
    assert files_of(tmp_path / "w1") == files_of(tmp_path / "w2")


def run(capsys: pytest.CaptureFixture[str], *command: object) -> tuple[int, str, str]:
    code = cli.run(["audit", "detect", *map(str, command)])
    said = capsys.readouterr()
    return code, said.out, said.err


def labelled(path: Path, count: int, seed: int) -> Path:
    lines = [
        json.dumps({"text": e.text, "label": e.label, "question": e.group, "source": e.source})
        for e in texts(count, seed)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_commands_end_to_end(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = labelled(tmp_path / "data.jsonl", 120, 1), tmp_path / "detector"
    command = ("train", data, "--out", out, "--encoder", encoder, "--max-length", 64, "--lr", 0.01,
               "--epochs", 3, "--batch", 16, "--len-threshold", 24, "--device", "cpu",
               "--target-fpr", 0.1)  # fmt: skip
    code, said, told = run(capsys, *command)
    assert code == 0, told
    assert "human flagged" in said
    assert "MODEL_CARD.md, which says where it must not be used" in told
    code, said, told = run(capsys, *command, "--json")
    report = json.loads(said)
    assert (code, told) == (0, "")
    assert report["training"]["human"] + report["held_out"]["human"] == 120
    assert report["bins"][0]["low"] == 0

    corpus_file = tmp_path / "corpus.jsonl"
    given = [{"id": f"x{i}", "text": e.text} for i, e in enumerate(texts(8, 5))]
    corpus_file.write_text("".join(json.dumps(r) + "\n" for r in given))
    code, said, told = run(capsys, "score", corpus_file, "--detector", out, "--device", "cpu")
    assert code == 0, told
    assert said.splitlines()[0].split()[:3] == ["machine", "calibrated", "tokens"]
    assert len(said.splitlines()) == 17
    assert "No verdict on a single text" in told
    assert "Calibrated 2" in told
    assert "robot" in told
    code, said, told = run(capsys, "score", corpus_file, "--detector", out, "--json", "--unit",
                           "sentence", "--out", tmp_path / "scores", "--device", "cpu")  # fmt: skip
    assert (code, told) == (0, "")
    rows = [json.loads(line) for line in said.splitlines()]
    assert {r["document"] for r in rows} == {r["id"] for r in given}
    assert rows == rows_of(tmp_path / "scores")

    code, said, told = run(capsys, "eval", out, labelled(tmp_path / "e.jsonl", 40, 7), "--device",
                           "cpu")  # fmt: skip
    assert code == 0, told
    assert said.splitlines()[-1].startswith("all ")
    code, said, _ = run(capsys, "eval", out, tmp_path / "e.jsonl", "--json", "--device", "cpu")
    whole, *lengths = [json.loads(line) for line in said.splitlines()]
    assert whole["human"] == 40 == sum(m["human"] for m in lengths)
    assert whole["f1"] > 0.8


def test_wrong_input_is_told_in_words(
    detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = tmp_path / "t.txt"
    some.write_text("The river was green.")
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "x", "label": "maybe"}\n')
    for command, why in (
        (("score", some, "--detector", tmp_path / "none"), "There is no detector in"),
        (("score", "--detector", detector), "Say what to score"),
        (("score", tmp_path / "no.txt", "--detector", detector, "--device", "cpu"), "no.txt"),
        (("score", some, "--detector", detector, "--workers", 0), "--workers must be at least 1"),
        (("score", some, "--detector", detector, "--device", "abacus"), "device must be"),
        (("eval", detector, bad), "has the label 'maybe'"),
        (("train", bad, "--out", tmp_path / "o"), "has the label 'maybe'"),
        (("train", some, "--out", tmp_path / "o", "--lr", 0), "lr must be above 0"),
        (("train", tmp_path / "no", "--out", tmp_path / "o"), "There is no file"),
    ):
        code, said, told = run(capsys, *command)
        assert (code, said) == (2, ""), command
        assert why in told
        assert "Traceback" not in told
    assert not (tmp_path / "o").exists()
