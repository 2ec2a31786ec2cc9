"""The page in a real browser: typing, clicking, going back, on a desk and on a phone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import TEXTS, listening, write_index
from unspool.backends.scripted import ScriptedModel
from unspool.server.app import make_app
from unspool.server.settings import ServerSettings

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = os.environ.get("UNSPOOL_CHROMIUM") or shutil.which("chromium")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine"),
]

BIG = "lorem ipsum dolor " * 300_000 + "the needle in the middle " + "sit amet elit " * 350_000
SIZES = {"desk": (1200, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("browser")
    os.environ["UNSPOOL_DATA"] = str(folder / "cache")
    main = write_index(folder)
    big = write_index(folder, {"ten-megabytes.txt": BIG}, "big")
    model = ScriptedModel(lambda prompt: "In the blue teapot.", window=400)
    app = make_app(ServerSettings(), {"main": (main,), "big": (big,)}, model)
    with listening(app) as found:
        yield found
    del os.environ["UNSPOOL_DATA"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(params=list(SIZES))
def page(request: pytest.FixtureRequest, browser: Any, address: str) -> Iterator[Any]:
    """A page that fails the test if the browser complains, or if it is wider than the screen."""
    width, height = SIZES[request.param]
    context = browser.new_context(viewport={"width": width, "height": height}, base_url=address)
    context.set_default_timeout(90_000)  # a busy machine is slow, not wrong
    found = context.new_page()
    complaints: list[str] = []
    found.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    found.on("pageerror", lambda e: complaints.append(str(e)))
    found.on("dialog", lambda d: (complaints.append(f"dialog: {d.message}"), d.dismiss()))
    yield found
    assert found.evaluate("document.documentElement.scrollWidth") <= width
    context.close()
    assert [c for c in complaints if "status of 4" not in c] == []


def test_counts_come_as_you_type(page: Any) -> None:
    page.goto("/")
    page.locator("#q").press_sequentially("lazy", delay=30)
    page.wait_for_selector("li.hit")
    row = page.locator("table.counts tbody tr", has_text="main")
    assert row.locator("td.num").inner_text() == str("".join(TEXTS.values()).count("lazy"))
    page.locator("#q").press_sequentially(" dog sl", delay=30)
    page.wait_for_url("**/?q=lazy%20dog%20sl")
    assert page.locator("li.hit mark").first.inner_text() == "lazy dog sl"


def test_the_back_button_goes_back(page: Any) -> None:
    page.goto("/?q=lazy+dog")
    page.locator("li.hit a.source").first.click()
    page.wait_for_selector("#hit")
    assert page.locator("#hit").inner_text() == "lazy dog"
    page.go_back()
    page.wait_for_selector("li.hit")
    assert page.locator("#q").input_value() == "lazy dog"
    page.fill("#q", "zebra")
    page.wait_for_selector("p.none")
    page.go_back()
    page.wait_for_selector("li.hit")
    assert page.locator("#q").input_value() == "lazy dog"


def test_an_emptied_field_shows_the_corpora_again(page: Any) -> None:
    page.goto("/?q=lazy")
    page.fill("#q", "")
    page.wait_for_selector("ul.corpora")


def test_more_and_what_comes_next(page: Any) -> None:
    page.goto("/?q=line")
    page.locator("li.more a").click()
    page.locator("li.hit").nth(19).wait_for()
    page.goto("/?q=lazy")
    page.locator("ol.bars a").first.click()
    page.wait_for_load_state()
    assert page.locator("#q").input_value().startswith("lazy ")
    assert page.locator("li.hit mark").first.inner_text().startswith("lazy ")


@pytest.mark.parametrize("phrase", ["שלום", "長文本", "🙂"])
def test_other_scripts(page: Any, phrase: str) -> None:
    page.goto("/")
    page.fill("#q", phrase)
    page.wait_for_selector("li.hit")
    assert page.locator("li.hit mark").first.inner_text() == phrase
    direction = page.locator("li.hit .context").first.evaluate(
        "node => getComputedStyle(node).direction"
    )
    assert direction == ("rtl" if phrase == "שלום" else "ltr")


def test_hostile_text_does_nothing(page: Any) -> None:
    page.goto("/?q=%3Cscript")
    page.locator("li.hit a.source").first.click()
    page.wait_for_selector("#hit")
    assert "alert('x')" in page.locator(".text").inner_text()
    page.goto("/trace")
    page.fill("#text", "<script>alert('x')</script> and <img src=x onerror=alert(1)>")
    page.fill("input[name=min_length]", "5")
    page.locator("button", has_text="Trace").click()
    page.wait_for_selector(".traced")
    assert "<img src=x" in page.locator(".traced").inner_text()


def test_a_hit_in_ten_megabytes(page: Any) -> None:
    page.goto("/?q=the+needle+in&in=big")
    page.locator("li.hit a.source").first.click()
    page.wait_for_selector("#hit")
    assert page.locator("#hit").is_visible()
    assert len(page.locator(".text").inner_text()) < 30_000
    page.locator("a[rel=next]").click()
    page.wait_for_selector("a[rel=prev]")


def test_tracing_leads_to_the_document(page: Any) -> None:
    page.goto("/trace")
    page.fill("#text", "They say the quick brown fox jumps over things.")
    page.locator("button", has_text="Trace").click()
    page.wait_for_selector(".traced a.piece")
    page.locator(".traced a.piece").first.click()
    page.locator("ol.pieces a.source").first.click()
    page.wait_for_selector("#hit")
    assert "quick brown fox" in page.locator("#hit").inner_text()


def test_reading_shows_the_answer_in_the_text(page: Any, tmp_path: Path) -> None:
    pytest.importorskip("bm25s")
    filler = "\n\n".join(f"Paragraph {n} is about sheep, wool and weather." for n in range(200))
    text = f"{filler}\n\nThe brass key lies in the blue teapot.\n\n{filler}"
    page.goto("/read")
    page.fill("#text", text)
    page.fill("#question", "Where is the brass key?")
    page.locator("button", has_text="Ask").click()
    page.wait_for_selector(".answer")
    assert page.locator(".answer").inner_text() == "In the blue teapot."
    page.wait_for_timeout(300)
    assert page.locator("mark.best").evaluate(
        "m => { const b = m.parentElement.getBoundingClientRect(), r = m.getBoundingClientRect();"
        " return r.top >= b.top && r.top < b.bottom; }"
    )
    file = tmp_path / "notes.txt"
    file.write_text(text)
    page.set_input_files("#file", file)
    assert page.locator("#text").input_value() == ""
    page.fill("#question", "Where?")
    page.locator("button", has_text="Ask").click()
    page.wait_for_selector(".answer")
    page.set_input_files("#file", [])
    page.locator("button", has_text="Ask").click()
    page.wait_for_selector(".problem")
    assert "no text" in page.locator(".problem").inner_text()


def test_it_works_without_scripts(browser: Any, address: str) -> None:
    context = browser.new_context(java_script_enabled=False, base_url=address)
    page = context.new_page()
    page.goto("/")
    page.fill("#q", "lazy dog")
    page.locator("button", has_text="Search").click()
    page.wait_for_selector("li.hit")
    page.goto("/trace")
    page.fill("#text", "the quick brown fox jumps over the moon")
    page.locator("button", has_text="Trace").click()
    page.wait_for_selector(".traced a.piece")
    context.close()
