"""Reports as pages and tables: hostile text stays text, nothing is loaded, nothing is lost."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.scripts import Window, passkey, perfect
from unspool.backends.scripted import ScriptedModel
from unspool.errors import ConfigError, PathNotFound
from unspool.evaluation.plan import RunSettings
from unspool.evaluation.render import render
from unspool.evaluation.render.csv import text_cell
from unspool.evaluation.render.facts import grid, sorted_levels
from unspool.evaluation.render.markup import text
from unspool.evaluation.render.samples import Shown, _shown
from unspool.evaluation.render.svg import colour
from unspool.evaluation.report import Report
from unspool.evaluation.run import evaluate
from unspool.evaluation.spec import Parts, Sample, TaskSpec
from unspool.evaluation.tasks.base import Task
from unspool.evaluation.tasks.passkey import KeyFound

HOSTILE = (
    "</pre></details><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m\u202e\x00&amp;"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile(Task):
    """Everything that a corpus or a model can put on the page is an attack."""

    def samples(self, *args: Any, **options: Any) -> Any:
        for i in range(3):
            yield Sample(
                id=f"{HOSTILE}{i}",
                parts=Parts(HOSTILE, "long " * 2000, HOSTILE),
                references=(HOSTILE,),
                level="=1+1",
                depth=0.5,
            )


SPEC = TaskSpec(name="bad/text", ability=HOSTILE, metric="passkey@1", licence=HOSTILE)


class Page(HTMLParser):
    """Tags and attributes that a browser would see."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "br", "wbr", "rect", "line", "circle", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return evaluate(
        ScriptedModel(lambda prompt: HOSTILE),
        [Hostile(spec=SPEC, metric=KeyFound())],
        out=tmp_path_factory.mktemp("hostile") / "run",
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Report]:
    folder = tmp_path_factory.mktemp("runs")
    return tuple(  # type: ignore[return-value] # two of them
        evaluate(model, "passkey/digits", lengths=("96", "256"), limit=10, out=folder / name)
        for name, model in (("first", Window(passkey, 128)), ("second", perfect(passkey)))
    )


def test_hostile_text_stays_text(hostile: Report) -> None:
    page = render(hostile, "html").decode()
    found = Page(page)
    assert found.open == []
    allowed = {"html", "head", "meta", "title", "style", "body", "main", "header", "section", "h1",
               "h2", "h4", "p", "div", "table", "thead", "tbody", "tr", "th", "td", "a", "b", "i",
               "small", "span", "pre", "details", "summary", "svg", "g", "text", "rect", "line",
               "circle", "polyline", "mark", "wbr", "br"}  # fmt: skip
    assert set(found.tags) <= allowed
    assert not any(name.startswith("on") or name == "style" for name, _ in found.attributes)
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e]", page)
    assert "alert(1)" in "".join(found.words)
    assert "\\x1b" in page
    assert "\\u202e" in page


def test_a_page_loads_nothing(runs: tuple[Report, Report]) -> None:
    page = render(runs[0], "html").decode()
    assert "default-src 'none'" in page
    assert "<script" not in page
    addresses = [v for n, v in Page(page).attributes if n in ("href", "src", "action")]
    assert addresses
    assert all(address is not None and address.startswith("#") for address in addresses)
    ids = {value for name, value in Page(page).attributes if name == "id"}
    assert {str(address)[1:] for address in addresses} <= ids


def test_the_style_is_allowed_by_its_digest(runs: tuple[Report, Report]) -> None:
    import base64
    import hashlib

    page = render(runs[0], "html").decode()
    style = re.search(r"<style>(.*?)</style>", page, re.S)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in page


def test_long_prompts_show_their_ends_and_say_so(hostile: Report) -> None:
    page = render(hostile, "html").decode()
    whole = 2 * len(HOSTILE) + 10000
    left_out = whole - Shown().characters
    assert f"{left_out:,} characters are not shown here" in page
    assert page.count("<mark>") == 3


@pytest.mark.parametrize("at", [0, 1, 1199, 1200, 4000, 9000, 9995])
def test_the_expected_text_is_shown_wherever_it_stands(at: int) -> None:
    block = "".join(chr(97 + i % 26) for i in range(10_000))
    block = block[:at] + "12345" + block[at:]
    page = _shown(block, 2400, (at, at + 5))
    assert "<mark>12345</mark>" in page
    hidden = sum(int(n.replace(",", "")) for n in re.findall(r">([\d,]+) characters are", page))
    shown = re.sub(r"<i.*?</i>|</?mark>", "", page)
    assert len(shown) + hidden == len(block)
    assert _shown(block, 2400).count("<i") == 1
    assert _shown("short", 2400) == "short"


def test_a_page_shows_as_much_as_is_asked_for_and_says_what_it_leaves_out(
    hostile: Report, runs: tuple[Report, Report]
) -> None:
    page = render(hostile, "html", shown=Shown(characters=1000)).decode()
    assert f"{2 * len(HOSTILE) + 10000 - 1000:,} characters are not shown here" in page
    page = render(runs[0], "html", shown=Shown(samples=1)).decode()
    assert page.count('<details class="sample">') == 10  # two lengths at five depths
    assert page.count("1 more are in samples.jsonl") == 10
    for wrong in ({"samples": 0}, {"characters": 0}):
        with pytest.raises(ConfigError, match="at least one"):
            Shown(**wrong)


def test_every_sample_is_on_the_page_with_what_was_cut(tmp_path: Path) -> None:
    report = evaluate(
        perfect(passkey, window=150), "passkey/digits", lengths=("256",), limit=5,
        out=tmp_path / "r", settings=RunSettings(keep="tail"),
    )  # fmt: skip
    page = render(report, "html").decode()
    assert page.count('<details class="sample">') == 5
    assert len(re.findall(r"\d+ tokens cut", page)) >= 5
    assert "5 prompts cut" in page


def test_the_same_run_gives_the_same_bytes(runs: tuple[Report, Report]) -> None:
    for form in ("html", "md", "csv", "json"):
        assert render(runs[0], form) == render(runs[0], form)


def test_a_comparison_shows_the_difference(runs: tuple[Report, Report]) -> None:
    first, second = runs
    for form in ("md", "html"):
        page = render(second, form, compare=first.folder).decode()
        assert "+60.0" in page or "+50.0" in page or "+40.0" in page or "+80.0" in page
    with pytest.raises(ConfigError, match="md or html"):
        render(second, "csv", compare=first.folder)
    with pytest.raises(PathNotFound):
        render(second, "md", compare=first.folder / "nothing")


def test_grids_swap_and_leave_gaps(runs: tuple[Report, Report]) -> None:
    found = runs[0].data["tasks"]["passkey/digits"]
    plain, swapped = grid(found), grid(found, swap=True)
    assert plain is not None
    assert swapped is not None
    assert plain.columns == swapped.rows == ("96", "256")
    assert plain.rows == swapped.columns == ("0%", "25%", "50%", "75%", "100%")
    assert [list(row) for row in zip(*plain.cells, strict=True)] == [list(r) for r in swapped.cells]
    gap = {**found, "cells": found["cells"][1:]}
    left = grid(gap)
    assert left is not None
    assert left.cells[0][0] is None
    assert grid({**found, "cells": []}) is None
    assert [name for name, _ in sorted_levels(found)] == ["96", "256"]


def test_csv_cannot_become_a_formula(hostile: Report) -> None:
    rows = list(csv.DictReader(io.StringIO(render(hostile, "csv").decode())))
    assert rows[0]["level"] == "'=1+1"
    for text_, cell in (("=1", "'=1"), ("+1", "'+1"), ("-1", "'-1"), ("@a", "'@a"), ("a", "a")):
        assert text_cell(text_) == cell


def test_csv_holds_every_number(runs: tuple[Report, Report]) -> None:
    rows = list(csv.DictReader(io.StringIO(render(runs[1], "csv").decode())))
    assert len(rows) == 2 + 10
    assert {float(row["score"]) for row in rows} == {100.0}


def test_markdown_cells_hold_together(hostile: Report) -> None:
    page = render(hostile, "md").decode()
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert "<script" not in page
    assert all(line.endswith("|") for line in tables)


def test_png_is_a_picture(runs: tuple[Report, Report]) -> None:
    pytest.importorskip("matplotlib", reason="drawing needs the extra plots")
    picture = render(runs[0], "png")
    assert picture.startswith(b"\x89PNG")
    assert picture == render(runs[0], "png")
    bare = Report({**runs[0].data, "tasks": {}}, runs[0].folder)
    with pytest.raises(ValueError, match="nothing to draw"):
        render(bare, "png")


def test_colours_run_from_dark_to_light() -> None:
    def light(score: int) -> int:
        code = colour(score)
        return sum(int(code[i : i + 2], 16) for i in (1, 3, 5))

    assert [light(s) for s in range(0, 101, 10)] == sorted(light(s) for s in range(0, 101, 10))
    assert colour(-5) == colour(0)
    assert colour(105) == colour(100)


def test_text_is_readable_in_every_script() -> None:
    assert text("naïve 中文 עברית") == "naïve 中文 עברית"
    assert text("a\u00a0b\tc\nd") == "a b\tc\nd"
    assert replace(SPEC, ability="x").ability == "x"


def test_what_a_release_prints_over_its_tasks_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unspool.evaluation.tasks import passkey as module

    def summarise(tasks: dict[str, Any]) -> dict[str, float]:
        return {"sum of scores": sum(t["overall"]["mean"] for t in tasks.values())}

    monkeypatch.setattr(module, "summarise", summarise, raising=False)
    report = evaluate(
        perfect(passkey), "passkey/digits,passkey/choice", lengths=("96",), limit=2,
        out=tmp_path / "r",
    )  # fmt: skip
    assert report.data["benchmarks"]["passkey"] == {
        "tasks": 2, "mean": 100.0, "official": {"sum of scores": 200.0},
    }  # fmt: skip
    for form in ("md", "html"):
        assert "sum of scores" in render(report, form).decode()
