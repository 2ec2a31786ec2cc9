"""The number format that a machine reads fastest in: measured once, kept, measured again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from _pytest.capture import CaptureFixture

from unspool.backends import fastest
from unspool.cli.main import main


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNSPOOL_DATA", str(tmp_path))
    return tmp_path / "machine" / "dtype.json"


@pytest.mark.parametrize(
    ("half", "chosen"), [(0.5, "bfloat16"), (0.9, "float32"), (3.0, "float32")], ids=str
)
def test_half_precision_has_to_be_worth_its_rounding(
    half: float, chosen: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {"float32": 1.0, "bfloat16": half}
    monkeypatch.setattr(fastest, "_seconds", times.__getitem__)
    assert fastest.fastest_dtype("cpu") == chosen
    monkeypatch.setattr(fastest, "_seconds", lambda _: pytest.fail("measured twice"))
    assert fastest.fastest_dtype("cpu") == chosen
    assert list(json.loads(cache.read_text()).values()) == [chosen]


@pytest.mark.parametrize("damage", ["", "[1]", "{", "\xff"])
def test_a_damaged_note_is_measured_again(damage: str, cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text(damage, encoding="latin-1")
    assert fastest.fastest_dtype("cpu") in ("float32", "bfloat16")
    assert isinstance(json.loads(cache.read_text()), dict)


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "machine").write_text("a file where the folder would be")
    assert fastest.fastest_dtype("cpu") in ("float32", "bfloat16")


def test_an_endpoint_computes_as_it_was_started(
    tmp_path: Path, capsys: CaptureFixture[str]
) -> None:
    text = tmp_path / "a.txt"
    text.write_text("Some words.")
    arguments = ["ask", str(text), "Which?", "--endpoint", "http://localhost:1/v1"]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--dtype", "fastest"])
    assert stop.value.code == 2
    assert "as it was started" in capsys.readouterr().err
