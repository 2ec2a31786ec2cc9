"""Prepared texts: found again by content, never used when damaged, and true to the files."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest

from unspool.errors import InputError, PathNotFound
from unspool.reading import library as lib
from unspool.reading.bm25 import Bm25Reader
from unspool.reading.library import open_library
from unspool.reading.terms import terms


def folders(cache: Path) -> list[Path]:
    return [p for p in (cache / "ask").iterdir() if not p.name.startswith(".")]


def test_units_quote_the_files_byte_for_byte(texts: Path) -> None:
    library = open_library(texts)
    assert library.bytes_text == sum(p.stat().st_size for p in texts.iterdir())
    for unit, text in enumerate(library.texts()):
        span = library.quote(unit, unit)
        data = (texts / span.document).read_bytes()
        assert data[span.start : span.end].decode() == span.text == text
        assert library.unit_at(span.document, span.start) == unit
        assert library.unit_at(span.document, span.end - 1) == unit


def test_the_same_texts_are_prepared_once_wherever_they_lie(
    texts: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_library(texts)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("prepared again")

    monkeypatch.setattr(lib, "_prepare", refuse)
    moved = texts.rename(texts.with_name("moved"))
    assert open_library([moved]).folder == first.folder
    assert len(folders(cache)) == 1


def test_changed_texts_are_prepared_anew(texts: Path, cache: Path) -> None:
    before = open_library(texts)
    (texts / "heron.txt").write_text("The heron moved.")
    after = open_library(texts)
    assert after.folder != before.folder
    assert "The heron moved." in list(after.texts())


@pytest.mark.parametrize("name", ["units.safetensors", "words/vocab.index.json", "library.json"])
def test_a_damaged_library_is_made_again(texts: Path, cache: Path, name: str) -> None:
    folder = open_library(texts).folder
    path = folder / name
    data = path.read_bytes()
    path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    library = open_library(texts)
    assert len(list(library.texts())) == len(library)
    assert path.read_bytes() == data


def test_an_interrupted_preparation_is_not_used(
    texts: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.rename

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        open_library(texts)
    assert folders(cache) == []
    monkeypatch.setattr(os, "rename", real)
    assert len(open_library(texts)) > 0


def test_token_counts_are_kept_by_tokenizer(texts: Path) -> None:
    library = open_library(texts)
    calls = []

    def words(batch: list[str]) -> list[int]:
        calls.append(len(batch))
        return [len(text.split()) for text in batch]

    first = library.token_counts("a@1", words)
    assert first.tolist() == [len(text.split()) for text in library.texts()]
    assert library.token_counts("a@1", words).tolist() == first.tolist()
    assert sum(calls) == len(library)
    library.token_counts("a@2", words)
    assert sum(calls) == 2 * len(library)


def test_no_text_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(InputError, match="1 documents, all empty"):
        open_library(tmp_path)
    with pytest.raises(PathNotFound):
        open_library(tmp_path / "missing")


def bm25_by_definition(
    units: list[list[str]], query: list[str], k1: float, b: float
) -> list[float]:
    """Lucene's BM25 as written, with loops."""
    mean = sum(map(len, units)) / len(units)
    scores = [0.0] * len(units)
    for term in query:
        found = sum(term in unit for unit in units)
        if not found:
            continue
        rarity = math.log(1 + (len(units) - found + 0.5) / (found + 0.5))
        for place, unit in enumerate(units):
            count = unit.count(term)
            scores[place] += rarity * count / (count + k1 * (1 - b + b * len(unit) / mean))
    return scores


def test_scores_are_bm25_of_words_names_and_headings(texts: Path) -> None:
    library = open_library(texts)
    units = [
        terms(text)
        + terms(Path(library.documents[library.document[n]]).stem)
        + terms(library.headings[library.heading[n]])
        for n, text in enumerate(library.texts())
    ]
    question = "Where does the otter sleep, in burrow 23 or elsewhere?"
    expected = bm25_by_definition(units, terms(question), lib.K1, lib.B)
    got = Bm25Reader(phrase_weight=0.0).scores(library, question)
    assert got.tolist() == pytest.approx(expected, rel=1e-4)
    assert np.all(Bm25Reader().scores(library, "zzz qqq") == 0)


def test_a_rare_phrase_of_the_question_lifts_its_unit(tmp_path: Path) -> None:
    filler = "Salmon rivers run cold. Cold salmon run. Rivers run salmon cold.\n\n"
    text = (
        filler * 12 + "A salmon run rivers phrase: cold salmon rivers run deep.\n\n" + filler * 12
    )
    (tmp_path / "a.txt").write_text(text)
    library = open_library(tmp_path)
    question = "Do cold salmon rivers run?"
    plain = Bm25Reader(phrase_weight=0.0).scores(library, question)
    lifted = Bm25Reader(phrase_weight=5.0).scores(library, question)
    unit = library.unit_at("a.txt", text.index("cold salmon rivers run"))
    assert np.flatnonzero(lifted > plain).tolist() == [unit]
    assert int(lifted.argmax()) == unit
