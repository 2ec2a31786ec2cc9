"""The texts that the question set is about: fetched by package name, kept in the cache.

`python`: the language reference inside every CPython. `manual`: manual pages of sections 4, 5 and 7
from the Debian package manpages, as plain text. `policy`: the Debian Policy Manual, a book of
480,000 characters, from the Debian package debian-policy.
"""

from __future__ import annotations

import gzip
import os
import re
import tempfile
from pathlib import Path

from claims.data import data_dir, debian_text, python_reference

TEXTS = ("python", "manual", "policy")


def prepare(name: str) -> Path:
    """The folder with a text's files; made on first use, complete or not at all."""
    if name == "python":
        return python_reference()
    target = data_dir() / f"ask-{name}"
    if not target.is_dir():
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=data_dir()) as place:
            made = Path(place) / name
            made.mkdir()
            (_manual if name == "manual" else _policy)(made)
            os.rename(made, target)
    return target


def _manual(folder: Path) -> None:
    (root,) = debian_text("manpages")
    for section in ("4", "5", "7"):
        for page in sorted((root / f"usr/share/man/man{section}").glob("*.gz")):
            source = "" if page.is_symlink() else gzip.decompress(page.read_bytes()).decode()
            if source and not source.startswith(
                ".so "
            ):  # else another name of a page that is there
                name = f"{page.name.removesuffix('.gz')}.txt"
                (folder / name).write_text(plain_page(source), encoding="utf-8", newline="")


def _policy(folder: Path) -> None:
    (root,) = debian_text("debian-policy")
    book = (root / "usr/share/doc/debian-policy/policy.txt.gz").read_bytes()
    (folder / "policy.txt").write_bytes(gzip.decompress(book))


_ESCAPES = {"e": "\\", "-": "-", "~": " ", " ": " ", "0": " ", "|": "", "^": "", "&": "", "/": ""}
_NAMED = {
    "aq": "'", "dq": '"', "lq": '"', "rq": '"', "bu": "*", "em": "-", "en": "-", "ha": "^",
    "ti": "~", "rs": "\\", "at": "@", "co": "(C)", "mu": "x", "oq": "'", "cq": "'", "+-": "+-",
}  # fmt: skip


def plain_page(source: str) -> str:
    """The words of a manual page in roff, one line a line, headings as they are."""
    lines: list[str] = []
    for line in source.splitlines():
        if line.startswith(('.\\"', "'\\\"")) or line.strip() in (".", "'"):
            continue
        if not line.startswith((".", "'")):
            lines.append(_plain(line))
            continue
        request, _, rest = line[1:].strip().partition(" ")
        rest = rest.split('\\"')[0].strip()
        if request in ("SH", "SS"):
            lines += ["", _plain(rest.strip('"')).strip(), ""]
        elif request == "TH":
            lines += [_plain(rest.replace('"', "")), ""]
        elif request in ("PP", "LP", "P", "TP", "IP", "HP", "sp", "TQ"):
            lines.append("")
            if request == "IP" and rest:
                lines.append(_plain(_words(rest)[0]))
        elif request in ("B", "I", "SM", "SB"):
            lines.append(_plain(" ".join(_words(rest))))
        elif request in ("BR", "RB", "BI", "IB", "IR", "RI"):
            lines.append(_plain("".join(_words(rest))))
    text = "\n".join(line.rstrip() for line in lines)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _words(rest: str) -> list[str]:
    """Arguments of a request: separated by spaces, quoted ones whole."""
    found = re.findall(r'"((?:[^"]|"")*)"|((?:\\.|[^\s"])+)', rest)
    return [quoted or bare for quoted, bare in found] or [""]


def _plain(text: str) -> str:
    text = re.sub(r"\\f(?:\[\w*\]|\(\w\w|.)|\\s[+-]?\d+", "", text)
    text = re.sub(r"\\\[([^\]]*)\]", lambda m: _NAMED.get(m[1], ""), text)
    text = re.sub(r"\\\((..)", lambda m: _NAMED.get(m[1], ""), text)
    text = re.sub(r"\\\*\(?\w", "", text)
    return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), text)
