"""The text of pages: blocks, cells, verbatim text, entities, what is dropped, hostile nesting."""

from __future__ import annotations

import html as standard
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspool.corpus.html import html_to_text


def text(page: str) -> str:
    return html_to_text(page.encode()).text


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("", ""),
        ("plain", "plain"),
        ("<p>one<p>two", "one\n\ntwo"),
        ("<div>a</div><div>b</div>", "a\nb"),
        ("a<br>b<br/>c", "a\nb\nc"),
        ("<h1>T</h1>x", "T\n\nx"),
        ("<ul><li>a<li>b</ul>c", "a\nb\n\nc"),
        ("one  \n\t two", "one two"),
        ("a <b>b</b><i>c</i>", "a bc"),
        ("<table><tr><td>a</td><td>b</td></tr><tr><td>c<td>d</table>", "a\tb\nc\td"),
        ("<table>stray<tr><td>a</table>", "stray\na"),
        ("<pre>\n  x\n\n   y  z\n</pre>after", "  x\n\n   y  z\n\nafter"),
        ("<PRE> a\tb</PRE>", " a\tb"),
        ("<pre>a<div>b</div>c</pre>", "a\nb\nc"),
        ("<pre>one<br>two</pre>", "one\ntwo"),
        ("<pre>open  end", "open  end"),
        ("a &lt;p&gt; &amp;amp; &eacute;&#233;&#x1F600;", "a <p> &amp; éé😀"),
        ("x&nbsp;y", "x\u00a0y"),
        ("<script>var a = '<p>';</script>b<style>p{}</style>", "b"),
        ("<SCRIPT>x</SCRIPT>b<template><p>t</p></template>", "b"),
        ("<!-- <p>comment</p> -->b", "b"),
        ("<a title='<div>'>x</a>", "x"),
        ("<Div>a</dIV>b", "a\nb"),
        ("<divx>a</divx>b", "ab"),
        ("a&#12;b", "a\nb"),
        ("a\fb\vc\x1cd", "a b c d"),
        ("\ufeff<p>bom", "bom"),
        ("<textarea>x</textarea><noscript>y</noscript>", "xy"),
        ("<dl><dt>t<dd>d</dl>", "t\nd"),
        ("日本<b>語</b>。", "日本語。"),
    ],
)
def test_layout(page, expected):
    assert text(page) == expected


def test_title_goes_to_its_own_field():
    page = html_to_text(b"<html><head><title>\n A &amp;  B</title></head><body>x</body></html>")
    assert page == ("x", "A & B")
    assert html_to_text(b"<body>x").title == ""
    assert html_to_text(b"<title></title>x") == ("x", "")


BLOCK = st.sampled_from(["p", "div", "h2", "blockquote", "pre", "section", "li"])
WORD = st.text("abcé<&>日", min_size=1, max_size=4)
LEAF = st.lists(WORD, max_size=4).map(lambda words: standard.escape(" ".join(words)))
PAGE = st.recursive(
    LEAF,
    lambda inner: st.tuples(BLOCK, st.lists(inner, max_size=3)).map(
        lambda t: f"<{t[0]}>{''.join(t[1])}</{t[0]}>"
    ),
    max_leaves=12,
)


@given(PAGE)
def test_every_word_survives_in_order(page):
    expected = "".join(re.sub(r"<[^>]*>", " ", page).split())
    assert "".join(text(page).split()) == standard.unescape(expected)


@given(st.text(max_size=200))
def test_any_text_is_a_page(page):
    html_to_text(page.encode("utf-8", "replace"))


@pytest.mark.parametrize(
    "page",
    [
        b"<div>" * 40_000 + b"x",
        b"<div>" * 20_000 + b"x" + b"</div>" * 20_000,
        b"<ul><li>" * 20_000 + b"x",
        b"<table>" * 20_000 + b"x",
        b"<b>" * 20_000 + b"x",
        b"<b>" * 20_000 + b"x" + b"</td>" * 20_000,
        b"<svg><path d=''/>" * 20_000 + b"x",
        b"<madeup>" * 20_000 + b"x" + b"</i>" * 20_000,
        b"<pre>" * 20_000 + b"x",
        b"<p>" * 20_000 + b"x",
        b"\f" * 60_000 + b"x",
        b"&#12;" * 20_000 + b"x",
    ],
    ids=lambda page: page[:8].decode().strip(),
)
def test_hostile_pages_take_no_time_and_keep_their_text(page):
    begun = time.perf_counter()
    assert html_to_text(page).text.strip() == "x"
    assert time.perf_counter() - begun < 8


def test_deep_pages_keep_their_lines():
    page = b"<div>" * 5000 + b"one<div>two</div><p>three" + b"</div>" * 5000
    assert html_to_text(page).text == "one\ntwo\n\nthree"
