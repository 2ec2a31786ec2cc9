"""The text of an HTML page: blocks on lines of their own, `<pre>` as it is, no scripts or styles.

Source: the HTML Living Standard, section 13.2 (parsing; done by lexbor through selectolax) and
    section 15.3 (which elements are blocks).
Differs from a browser's innerText: styles are not applied, so hidden text is kept; cells of a
    table row are separated by a tab; `<br>` ends a line, and paragraphs are a blank line apart.
Cost: about 25 MB/s of HTML. lexbor's time is quadratic in the depth of nesting, so pages deeper
    than 2,048 lose the tags that nest (not their text) before they are parsed.

Markers are put in front of block tags before parsing and found again in the text. They are made of
white space alone, because the parser moves other text out of tables. Those of `<pre>` are put into
the tree, because the parser drops white space before the body.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import accumulate
from typing import NamedTuple

from selectolax.lexbor import LexborHTMLParser

_LINE, _PARAGRAPH, _CELL = "\f\n\n", "\f\n\t", "\f\t\n"
_PRE, _END_PRE = "\x0e", "\x0f"
_MAX_DEPTH = 2048

# fmt: off
_CONTAINERS = [
    "div", "section", "article", "aside", "header", "footer", "main", "nav", "center",
    "details", "dialog", "dir", "fieldset", "figcaption", "figure", "form", "hgroup", "menu",
    "ul", "ol", "dl", "li", "dt", "dd", "blockquote", "address", "summary", "search",
]
_PARAGRAPHS = [
    "p", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "ul", "ol", "dl", "table", "section",
    "article", "hr", "figure",
]
_LINES = [
    *_CONTAINERS,
    "br", "tr", "caption", "legend", "option", "body", "frame", "thead", "tbody", "tfoot",
]
_INLINE = [
    "a", "abbr", "b", "cite", "code", "dfn", "em", "font", "i", "img", "input", "kbd", "label",
    "link", "meta", "samp", "script", "small", "span", "strong", "sub", "sup", "th", "td", "tt",
    "u", "var", "wbr",
]
_DROPPED = ["script", "style", "head", "template", "iframe", "noframes", "noembed"]
# fmt: on


class _Marked(dict[bytes, bytes]):
    """The start of a tag to itself with its marker in front."""

    def __missing__(self, tag: bytes) -> bytes:
        lower = tag.lower()
        return self[lower][: -len(lower)] + tag if lower != tag and lower in self else tag


def _marked() -> _Marked:
    marks = dict.fromkeys(_INLINE, "")
    marks |= dict.fromkeys(_LINES, _LINE) | dict.fromkeys(_PARAGRAPHS, _PARAGRAPH)
    table = _Marked()
    for name, mark in marks.items():
        for tag in (f"<{name}", f"</{name}"):
            table[tag.encode()] = (mark + tag).encode()
    for tag, mark in {"<td": _CELL, "<th": _CELL, "<pre": "", "</pre": ""}.items():
        table[tag.encode()] = (mark + tag).encode()
    return table


_MARKED = _marked()
_TAG = re.compile(rb"(</?[a-zA-Z][a-zA-Z0-9]*)")
# Tags that do not nest: void, closed by the next of their kind, or raw text up to their end tag.
# fmt: off
_FLAT = frozenset([
    "area", "base", "br", "caption", "col", "colgroup", "embed", "h1", "h2", "h3", "h4", "h5", "h6",
    "hr", "html", "img", "input", "link", "meta", "noscript", "option", "p", "param", "plaintext",
    "source", "table", "tbody", "td", "textarea", "tfoot", "th", "thead", "title", "tr", "track",
    "wbr", "xmp", "body", *_DROPPED,
])
# fmt: on
_NESTED_TAG = re.compile(rb"<(/?)([a-zA-Z][^\s/<>]*)(?:[^<>]*?(/?)>)?")
_SPACE = re.compile("[ \t\n\r]{2,}|[\t\n\r]")
# Control characters that serve as markers become spaces.
_MARKERS = "\x0b\f\x0e\x0f\x1c"
_NO_MARKERS = bytes(0x20 if chr(b) in _MARKERS else b for b in range(256))


class Page(NamedTuple):
    """The text of a page and its title (empty if it has none)."""

    text: str
    title: str


def html_to_text(data: bytes) -> Page:
    """The text and title of a page that is valid UTF-8."""
    source = data.translate(_NO_MARKERS).removeprefix(b"\xef\xbb\xbf")
    pieces = _TAG.split(source)
    if _too_deep(source, pieces[1::2]):
        pieces = _TAG.split(_flatten(source))
    tags = pieces[1::2]
    pieces[1::2] = [_MARKED[tag] for tag in tags]
    tree = LexborHTMLParser(b"".join(pieces))
    title = tree.css_first("title")
    heading = _SPACE.sub(" ", title.text().replace("\f", " ")).strip() if title is not None else ""
    seen = {tag.lower() for tag in set(tags)}
    tree.strip_tags([name for name in _DROPPED if name == "head" or f"<{name}".encode() in seen])
    if b"<pre" in seen:
        for node in tree.css("pre"):
            node.insert_before(_PRE)
            node.insert_after(_END_PRE)
    return Page(_lay_out(tree.text()), heading)


def _too_deep(source: bytes, tags: list[bytes]) -> bool:
    """Whether tags nest deeper than the limit, or stay open and so may."""
    if len(tags) <= _MAX_DEPTH:
        return False
    count = Counter(tags)
    opened = sum(max(0, n - count[b"</" + tag[1:]]) for tag, n in count.items() if tag[1] != 0x2F)
    balance = accumulate(-1 if tag[1] == 0x2F else 1 for tag in tags)
    if opened <= _MAX_DEPTH and max(balance) <= _MAX_DEPTH:
        return False
    return _depth(source) > _MAX_DEPTH


def _depth(source: bytes) -> int:
    """The deepest nesting of tags that nest, each end tag closing the last of its name."""
    opened: Counter[bytes] = Counter()
    depth = deepest = 0
    for found in _NESTED_TAG.finditer(source):
        name = found[2].lower()
        if found[3] or name.decode("latin-1") in _FLAT:
            continue
        if not found[1]:
            opened[name] += 1
            depth += 1
            deepest = max(deepest, depth)
        elif opened[name]:
            opened[name] -= 1
            depth -= 1
    return deepest


def _flatten(source: bytes) -> bytes:
    """Take away tags that nest; those of blocks leave a line break."""

    def instead(found: re.Match[bytes]) -> bytes:
        name = found[2].lower().decode("latin-1")
        return found[0] if name in _FLAT else _LINE.encode() if name in _CONTAINERS else b""

    return _NESTED_TAG.sub(instead, source)


def _lay_out(text: str) -> str:
    """Turn markers into lines, collapsing white space except inside `<pre>`."""
    text = text.replace("\x0b", " ").replace("\x1c", " ")  # from numeric character references
    text = text.replace(_PARAGRAPH, "\x0b").replace(_LINE, "\f").replace(_CELL, "\x1c")
    first, *rest = text.split(_PRE)
    blocks = [_flow(first)]
    for piece in rest:
        verbatim, _, after = piece.partition(_END_PRE)
        blocks.append(_verbatim(verbatim))
        blocks.append(_flow(after))
    return "\n\n".join(filter(None, blocks))


def _flow(text: str) -> str:
    text = _SPACE.sub(" ", text.replace(_END_PRE, "\x0b"))
    return "\n\n".join(filter(None, map(_paragraph, text.split("\x0b"))))


def _paragraph(text: str) -> str:
    lines = [line.strip(" ") for line in text.split("\f")]
    if "\x1c" in text:
        lines = [
            "\t".join(filter(None, (cell.strip(" ") for cell in line.split("\x1c"))))
            for line in lines
        ]
    return "\n".join(filter(None, lines))


def _verbatim(text: str) -> str:
    text = re.sub("(?<=\n)[\x0b\x0c\x1c]+", "", text)
    text = re.sub("[\x0b\x0c]+", "\n", text).replace("\x1c", "\t")
    return text.strip("\n") if text.strip() else ""
