"""Pages as a browser gets them: escaped, without inline scripts, whole or in parts."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser as HTMLParser

from tests.server.conftest import TEXTS, Client, write_index
from unspool.backends.scripted import ScriptedModel
from unspool.server import markup
from unspool.server.app import make_app
from unspool.server.settings import ServerSettings
from unspool.types import Passage, Span

HTML = {"Accept": "text/html"}
SAME = {"Origin": "http://localhost:8080", "Accept": "text/html"}
PART = {**SAME, "HX-Request": "true"}


def page(client: Client, path: str, **options: Any) -> HTMLParser:
    answer = client.get(path, headers=HTML, **options)
    assert answer.status_code == 200, answer.text
    check_page(answer)
    return HTMLParser(answer.text)


def check_page(answer: Any) -> None:
    """No script, style or handler stands in a page, and the policy forbids those that would."""
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    tree = HTMLParser(answer.text)
    for script in tree.css("script"):
        assert not (script.text() or "").strip()
        assert (script.attributes["src"] or "").startswith("/static/")
    assert not tree.css("style")
    for node in tree.css("*"):
        assert not {a for a in node.attributes if a.startswith("on") or a == "style"}
    for node in tree.css("[src], [href]"):
        address = node.attributes.get("src") or node.attributes.get("href") or ""
        assert address.startswith(("/", "#")), address


def test_the_first_page_lists_the_corpora(client: Client) -> None:
    tree = page(client, "/")
    assert "main" in tree.css_first(".corpora").text()
    assert tree.css_first("#q").attributes["value"] == ""


def test_a_search_shows_counts_hits_and_what_comes_next(client: Client) -> None:
    tree = page(client, "/", params={"q": "lazy dog"})
    row = tree.css_first("table.counts tbody tr")
    assert row.css_first("td.num").text() == str("".join(TEXTS.values()).count("lazy dog"))
    hits = tree.css("li.hit")
    assert {h.css_first("mark").text() for h in hits} == {"lazy dog"}
    for hit in hits:
        assert hit.css_first(".context").text() in "".join(TEXTS.values())
    words = [li.css_first("bdi").text() for li in tree.css("ol.bars li")]
    assert "sleeps" in words


def test_a_part_is_what_changed(client: Client) -> None:
    answer = client.get("/", params={"q": "dog"}, headers=PART)
    check_page(answer)
    assert "<html" not in answer.text
    assert 'class="counts"' in answer.text


def test_more_hits_follow_without_repeats(client: Client) -> None:
    tree = page(client, "/", params={"q": "line"})
    seen = [a.attributes["href"] for a in tree.css("li.hit a.source")]
    more = tree.css_first("li.more a").attributes["href"]
    part = client.get(more, headers=PART)
    check_page(part)
    following = [a.attributes["href"] for a in HTMLParser(part.text).css("li.hit a.source")]
    assert len({*seen, *following}) == 20
    whole = client.get(more, headers=HTML)  # without scripts the link is a page
    check_page(whole)
    assert "<html" in whole.text


def test_no_hits_are_said(client: Client) -> None:
    tree = page(client, "/", params={"q": "zebra"})
    assert "No occurrence" in tree.css_first(".none").text()
    assert not tree.css("li.hit")


@pytest.mark.parametrize(
    "query", ["שלום", "長文本", "🙂", "naïve", "“quotes”", "‮", "\x1b", "<", "&"]
)
def test_any_script_can_be_searched(client: Client, query: str) -> None:
    tree = page(client, "/", params={"q": query})
    assert int(tree.css_first("td.num").text()) == "".join(TEXTS.values()).count(query) > 0
    for hit in tree.css("li.hit"):
        assert hit.css_first("mark").text() == markup.shown(query)
        assert hit.css_first(".context").attributes["dir"] == "auto"


def test_hostile_text_is_text(client: Client) -> None:
    tree = page(client, "/", params={"q": "<script>"})
    assert tree.css_first("#q").attributes["value"] == "<script>"
    link = tree.css_first("li.hit a.source").attributes["href"] or ""
    document = page(client, link.partition("#")[0])
    text = document.css_first(".text").text()
    assert text.startswith("<script>alert('x')</script>")
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[U+202E]" in text


def test_a_document_is_turned_window_by_window(client: Client) -> None:
    tree = page(client, "/", params={"q": "line 1500 of"})
    link = (tree.css_first("li.hit a.source").attributes["href"] or "").partition("#")[0]
    tree = page(client, link)
    assert tree.css_first("#hit").text() == "line 1500 of"
    shown, texts = tree, []
    for _ in range(40):
        texts.append(shown.css_first(".text").text())
        following = shown.css_first("a[rel=next]")
        if following is None:
            break
        shown = page(client, (following.attributes["href"] or "").partition("#")[0])
    assert "line 2999 of" in texts[-1]
    shown = tree
    for _ in range(40):
        previous = shown.css_first("a[rel=prev]")
        if previous is None:
            break
        shown = page(client, (previous.attributes["href"] or "").partition("#")[0])
    assert shown.css_first(".text").text().startswith("line 0 of")
    numbers = {int(n) for n in re.findall(r"line (\d+) of", "".join(texts))}
    assert numbers >= set(range(1500, 3000))  # nothing is left out between two windows


def test_tracing_marks_what_stands_in_a_corpus(client: Client) -> None:
    text = "I saw the quick brown fox jumps over, and then <b>nothing</b>."
    form = {"text": text, "in": "main", "min_length": "10"}
    answer = client.post("/trace", data=form, headers=SAME)
    check_page(answer)
    tree = HTMLParser(answer.text)
    assert tree.css_first(".traced").text() == text
    pieces = [a.text() for a in tree.css(".traced a.piece")]
    assert any("quick brown fox" in piece for piece in pieces)
    assert all(piece in text for piece in pieces)
    assert tree.css("ol.pieces a.source")
    part = client.post("/trace", data=form, headers=PART)
    check_page(part)
    assert "<html" not in part.text
    assert page(client, "/trace").css_first("textarea").text() == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"text": " "}, "no text"),
        ({"min_length": "0"}, "1 to 10,000"),
        ({"min_length": "x"}, "1 to 10,000"),
        ({"in": "other"}, "no index called"),
        ({"text": "x" * 200_001}, "200,000"),
    ],
)
def test_tracing_says_what_is_wrong(client: Client, change: dict[str, str], said: str) -> None:
    form = {"text": "the dog", "in": "main", "min_length": "3", **change}
    answer = client.post("/trace", data=form, headers=PART)
    assert answer.status_code in (400, 404, 422)
    check_page(answer)
    assert said in HTMLParser(answer.text).css_first(".problem").text()


def test_wrong_addresses_are_explained(client: Client) -> None:
    for path in ("/document?in=other&n=0", "/document?in=main&n=999", "/hits?in=main&q=a&cursor=x"):
        answer = client.get(path, headers=HTML)
        assert answer.status_code in (400, 404, 422)
        check_page(answer)
    assert client.get("/document?in=main&n=-1", headers=HTML).status_code == 400


def test_reading_answers_with_evidence(
    index_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNSPOOL_DATA", str(tmp_path))
    pytest.importorskip("bm25s")
    model = ScriptedModel(lambda prompt: "In the <blue> teapot.", window=200)
    client = Client(make_app(ServerSettings(), {"main": (index_dir,)}, model))
    filler = "\n\n".join(f"Paragraph {n} tells of sheep and weather." for n in range(40))
    text = f"{filler}\n\nThe brass key lies in the blue teapot.\n\n{filler}"
    form = {"text": text, "question": "Where is the brass key?"}
    answer = client.post("/read", data=form, headers=SAME)
    assert answer.status_code == 200, answer.text
    check_page(answer)
    tree = HTMLParser(answer.text)
    assert tree.css_first(".answer").text() == "In the <blue> teapot."
    assert "brass key" in tree.css_first("mark.best").text()
    assert tree.css_first(".evidence").text() == text
    usage = tree.css_first("dl.usage").text()
    assert "Not read" in usage
    upload = {"file": ("notes.txt", text.encode(), "text/plain")}
    part = client.post("/read", data={"question": "Where?"}, files=upload, headers=PART)
    check_page(part)
    assert HTMLParser(part.text).css_first(".evidence").text() == text
    for data, files, said in (
        ({"question": "Where?", "text": " "}, {}, "no text"),
        ({"question": " ", "text": "x"}, {}, "question is empty"),
        ({"question": "Where?"}, {"file": ("a.exe", b"x", "text/plain")}, "can be read"),
    ):
        answer = client.post("/read", data=data, files=files or None, headers=PART)
        assert answer.status_code == 400
        assert said in HTMLParser(answer.text).css_first(".problem").text()


def test_without_a_model_there_is_no_reading_page(index_dir: Path) -> None:
    client = Client(make_app(ServerSettings(), {"main": (index_dir,)}))
    assert client.get("/read", headers=HTML).status_code == 404
    assert "/read" not in client.get("/", headers=HTML).text


def test_without_an_index_the_first_page_is_the_reading_page() -> None:
    client = Client(make_app(ServerSettings(), {}, ScriptedModel([])))
    answer = client.get("/", headers=HTML)
    assert (answer.status_code, answer.headers["location"]) == (303, "/read")


def test_scripts_and_style_come_from_here(client: Client) -> None:
    for name, kind in (("unspool.css", "css"), ("unspool.js", "javascript"), ("icon.svg", "svg")):
        answer = client.get(f"/static/{name}")
        assert answer.status_code == 200
        assert kind in answer.headers["content-type"]
    assert client.get("/static/htmx.min.js").status_code == 200
    assert client.get("/static/../app.py").status_code == 404


def test_ids_that_are_no_text_do_not_break_a_page(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "caf\udce9.txt").write_text("the dog")  # a name in Latin-1, as old disks have
    from unspool.index.build import build_index

    build_index([folder], tmp_path / "idx")
    client = Client(make_app(ServerSettings(), {"main": (tmp_path / "idx",)}))
    assert client.get("/", params={"q": "dog"}, headers=HTML).status_code == 200
    found = client.post("/v1/indexes/main/find", {"query": "dog"})
    assert found.status_code == 200
    assert found.json()["hits"][0]["number"] == 0


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(alphabet="abé漢🙂\n", max_size=60),
    cuts=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=4),
)
def test_evidence_is_the_text_with_marks(text: str, cuts: list[tuple[int, int]]) -> None:
    passages = []
    for a, b in cuts:
        low, high = sorted((min(a, len(text)), min(b, len(text))))
        start, end = len(text[:low].encode()), len(text[:high].encode())
        passages.append(Passage(Span("d", start, end, text[low:high]), 1.0))
    pieces = markup.evidence(text.encode(), passages)
    assert "".join(p["text"] for p in pieces) == text


def test_evidence_of_a_long_text_counts_what_it_leaves_out() -> None:
    text = "é" * 200_000 + "HERE" + "é" * 200_000
    start = len(text.partition("HERE")[0].encode())
    passage = Passage(Span("d", start, start + 4, "HERE"), 1.0)
    pieces = markup.evidence(text.encode(), [passage])
    assert [p["text"] for p in pieces if p["rank"] == 0] == ["HERE"]
    left_out = sum(p["skipped"] for p in pieces)
    assert left_out + len("".join(p["text"] for p in pieces).encode()) == len(text.encode())
    assert sum(len(p["text"]) for p in pieces) < 3000


def test_overlapping_spans_cover_each_byte_once() -> None:
    ranges = [(0, 10), (5, 20), (18, 22), (30, 31)]
    pieces = markup._segments(ranges, 40)
    assert next(p[:2] for p in pieces)[0] == 0
    assert all(a[1] == b[0] for a, b in itertools.pairwise(pieces))
    assert pieces[-1][1] == 40
    owner = {at: p[2] for p in pieces for at in range(p[0], p[1])}
    for at in range(40):
        inside = [n for n, (low, high) in enumerate(ranges) if low <= at < high]
        assert (owner[at] in inside) if inside else owner[at] is None


def test_two_corpora_are_counted_side_by_side(tmp_path: Path, index_dir: Path) -> None:
    other = write_index(tmp_path, {"x": "dog dog dog dog dog dog dog"}, "other")
    client = Client(make_app(ServerSettings(), {"main": (index_dir,), "other": (other,)}))
    tree = page(client, "/", params={"q": "dog"})
    counts = {
        row.css_first("th").text().strip(): int(row.css_first("td.num").text())
        for row in tree.css("table.counts tbody tr")
    }
    assert counts == {"main": "".join(TEXTS.values()).count("dog"), "other": 7}
    assert "other" in tree.css_first("tr.chosen").text()  # the one with most, unless chosen
    tree = page(client, "/", params={"q": "dog", "in": "main"})
    assert "main" in tree.css_first("tr.chosen").text()
