from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for every test."""
    place = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("UNSPOOL_DATA", str(place))
    return place


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A folder of small texts, one of them with characters of several bytes."""
    folder = tmp_path / "texts"
    folder.mkdir()
    animals = ("heron", "otter", "badger", "marten", "plover", "viper", "newt", "shrew")
    for number, animal in enumerate(animals):
        text = "\n\n".join(
            f"The {animal} of valley {part} “naïvely” eats {number * 7 + part} kinds of grass – "
            f"and it sleeps in burrow {part * 11 + number} near the river, as {animal}s do."
            for part in range(6)
        )
        (folder / f"{animal}.txt").write_text(f"{animal.upper()}\n\n{text}\n", encoding="utf-8")
    return folder
