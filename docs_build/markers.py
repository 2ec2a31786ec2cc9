"""Replace the generated parts of Markdown files, and leave every other byte as it is.

A generated part stands between `<!-- KIND:begin ARGUMENT -->` and `<!-- KIND:end -->`. What goes
there is made by the generator of that kind; a part whose text is already right is not touched, so
generating twice changes nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from unspool.errors import InputError

Generator = Callable[[str], str]

_BEGIN = re.compile(r"^<!-- (?P<kind>[a-z]+):begin ?(?P<argument>.*?) -->$")


def fill(text: str, generators: Mapping[str, Generator], *, where: str) -> str:
    """The text with every generated part of the given kinds made anew; other kinds stay."""
    lines = text.split("\n")
    out: list[str] = []
    i = 0
    while i < len(lines):
        out.append(lines[i])
        begin = _BEGIN.match(lines[i])
        i += 1
        if begin is None:
            continue
        end = f"<!-- {begin['kind']}:end -->"
        try:
            stop = lines.index(end, i)
        except ValueError:
            raise InputError(f"{where}: {begin.group()} has no {end}.") from None
        if begin["kind"] in generators:
            body = generators[begin["kind"]](begin["argument"]).strip("\n")
            out += ["", *body.split("\n"), ""]
        else:
            out += lines[i:stop]
        out.append(end)
        i = stop + 1
    return "\n".join(out)


def fill_file(path: Path, generators: Mapping[str, Generator], *, write: bool = True) -> bool:
    """Fill one file; True if it was not up to date."""
    before = path.read_text(encoding="utf-8")
    after = fill(before, generators, where=path.name)
    if before == after:
        return False
    if write:
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(after, encoding="utf-8")
        os.replace(partial, path)
    return True


def pages(root: Path) -> list[Path]:
    """The files that may hold generated parts: the README and every page of the docs."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
