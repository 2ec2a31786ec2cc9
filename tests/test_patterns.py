"""Pictures of attention patterns: drawn by the mechanisms, kept beside the pages that show them."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from docs_build import patterns

ROOT = Path(__file__).resolve().parents[1]


def test_runs_become_rectangles() -> None:
    seen = torch.tensor([[True, False, True, True], [False, True, True, False]])
    root = ElementTree.fromstring(patterns.svg(seen, "two rows"))
    (path,) = (element for element in root if element.tag.endswith("path"))
    assert path.get("d") == "M0 0h1v1h-1zM2 0h2v1h-2zM1 1h2v1h-2z"
    assert root.get("aria-label") == "two rows"


def test_a_second_way_has_a_colour_of_its_own_and_a_legend() -> None:
    root = ElementTree.fromstring(patterns.svg(torch.tensor([[2, 1], [2, 0]]), "two", ("a", "b")))
    first, second = (element for element in root if element.tag.endswith("path"))
    assert (first.get("d"), second.get("d")) == ("M1 0h1v1h-1z", "M0 0h1v1h-1zM0 1h1v1h-1z")
    assert first.get("fill") != second.get("fill")
    words = [element.text for element in root if element.tag.endswith("text")]
    assert words[-3:] == ["a", "b", "not met"]


@pytest.mark.parametrize("name", list(patterns.PICTURES))
def test_each_picture_is_drawn_by_code_and_shown(name: str) -> None:
    place, _ = patterns.PICTURES[name]
    assert place.startswith("unspool.")
    drawn = patterns.draw(name)
    assert drawn == (patterns.FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "systems").glob("*.md")]
    assert any(f"assets/patterns/{name}.svg" in page for page in pages)


def test_an_unknown_picture_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert patterns.main(["spiral"]) == 2
    assert "spiral" in capsys.readouterr().err
