"""One HTML page in one file: no script, no network, every text escaped.

Texts of a corpus or a benchmark are hostile: they are escaped, control and direction characters
are shown by their numbers, and a Content-Security-Policy allows nothing but the page's own style
sheet, by its digest. Links lead only to places within the page.
"""

from __future__ import annotations

import base64
import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#5b6570;--line:#d8dee4;--back:#fff;--box:#f6f8fa;
--link:#0550ae;--bad:#b3261e;--warn:#8a5a00;--good:#1a7f37;--mark:#ffe7a3;--mark2:#cfe8ff}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9aa5b1;--line:#30363d;--back:#0d1117;
--box:#161b22;--link:#79b8ff;--bad:#ff8a80;--warn:#f0b35e;--good:#56d364;--mark:#5c4a12;
--mark2:#173a5a}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:66rem;margin:0 auto;padding:1.5rem 1rem 4rem}
header{border-bottom:1px solid var(--line);margin-bottom:1rem}
h1{font-size:1.6rem;margin:.2rem 0;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2rem 0 .6rem;overflow-wrap:anywhere}
h3{font-size:1rem;margin:.2rem 0;overflow-wrap:anywhere}
a{color:var(--link)}
.note,header p,small{color:var(--soft);font-size:.9rem}
.x{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .8rem;border-bottom:1px solid var(--line);text-align:right}
th{color:var(--soft);font-weight:600;white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:0;overflow-wrap:anywhere}
.dirty{color:var(--bad);font-weight:600}.suspicious{color:var(--warn);font-weight:600}
.clean{color:var(--good)}.skipped{color:var(--soft)}
details,.card{border:1px solid var(--line);border-radius:6px;padding:.5rem .8rem;margin:.5rem 0}
summary{cursor:pointer;overflow-wrap:anywhere}
.card:target{border-color:var(--link);box-shadow:0 0 0 2px var(--link)}
.card>small,details>small{display:block;margin-top:.5rem}
.card,h2{scroll-margin-top:1rem}
blockquote{margin:.4rem 0;padding:.3rem .7rem;border-left:3px solid var(--line);
background:var(--box);white-space:pre-wrap;overflow-wrap:anywhere;font-size:.9rem}
.text{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--box);border-radius:6px;
padding:1rem;line-height:1.8}
.text a{color:inherit;text-decoration:none;border-bottom:2px solid var(--link)}
mark,.m0{background:var(--mark);color:inherit}.m1{background:var(--mark2)}
.text a:hover,.text a:focus{outline:2px solid var(--link)}
@media(max-width:40rem){main{padding:1rem .8rem 3rem}h1{font-size:1.3rem}th,td{padding:.3rem .4rem}}
"""


def text(value: object) -> str:
    """Text for HTML: escaped, with control and direction characters made visible."""
    raw = str(value).replace("\r\n", "\n")
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


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the cells are HTML."""
    head = "".join(f"<th>{text(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows)
    return (
        f'<div class="x"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def section(title: str, body: str) -> str:
    """A part of the page under a heading."""
    return f"<section><h2>{text(title)}</h2>{body}</section>\n"


def percent(share: int | float | None) -> str:
    """A share as a person reads it; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.1f}%"


def document(title: str, lead: str, body: str) -> bytes:
    """The whole page; `lead` and `body` are HTML."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main><header><h1>{text(title)}</h1><p>{lead}</p></header>\n{body}</main></body>"
        "</html>\n"
    ).encode()
