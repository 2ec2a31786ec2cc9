"""The pieces of the report page: escaped text, tables, sections, anchors."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from html import escape


def text(value: object) -> str:
    """Text for HTML: escaped, and with control and direction characters made visible."""
    raw = str(value)
    if not (raw.isascii() and raw.isprintable()):
        raw = "".join(_visible(character) for character in raw)
    return escape(raw, quote=True)


def _visible(character: str) -> str:
    if character in "\n\t" or character.isprintable():
        return character
    if unicodedata.category(character) == "Zs":
        return " "
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def section(title: str, body: str, *, anchor: str = "") -> str:
    if not body:
        return ""
    mark = f' id="{anchor}"' if anchor else ""
    return f"<section{mark}><h2>{text(title)}</h2>{body}</section>"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{text(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows)
    return (
        f'<div class="x"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def task_name(name: str) -> str:
    """A name that may go on in the next line after a slash or an underscore."""
    return text(name).replace("/", "/<wbr>").replace("_", "_<wbr>")


def anchor(*names: str) -> str:
    """An id that a name can neither break out of nor collide with."""
    return "a" + hashlib.sha256("\0".join(names).encode()).hexdigest()[:16]


def target(anchor: str) -> str:
    """Where a link ends: inside what it opens, since browsers open all that holds a target."""
    return f'<div id="{anchor}"></div>'
