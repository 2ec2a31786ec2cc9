"""Places in Python files whose next line is asked for, and what other files define.

What: a line worth asking for (12 to 100 characters, no comment, not inside a string of several
lines), the lines and imports before it, and definitions from other files: of the names that the
file imports where those files are there, then of others.
Source: the shape of LCC and RepoBench-P as LongBench has them (section 3.2).
Differs: Python only; the standard library's files or those that were given.
Cost: each file is parsed once a process.
"""

from __future__ import annotations

import ast
import random
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from unspool.errors import InputError

_LINE = (12, 100)
_TRIES = 500
_MOST_LINES = 40
"""Of one definition; longer ones are not shown."""
_CHARACTERS = 8
"""Of snippets for each unit of a level, whatever the unit is: enough to fill it."""

File = tuple[str, str]
"""Name and text."""


class Place(NamedTuple):
    """A line and what stands before it."""

    file: str
    imports: list[str]
    """Lines at the top level that import, unless they are among the last lines before."""
    before: list[str]
    answer: str


class Parsed(NamedTuple):
    """What a file holds."""

    lines: tuple[str, ...]
    in_string: frozenset[int]
    """Indices of lines inside strings of several lines."""
    imports: tuple[tuple[int, str, str], ...]
    """Index of the line, module, name (`""` for a whole module)."""
    definitions: tuple[tuple[str, str], ...]
    """Name and source of functions and classes at the top level."""


def place(draw: random.Random, files: Sequence[File], *, fewest: int) -> Place:
    """A line of some file with at least `fewest` lines before it."""
    sizes = [len(text) for _, text in files]
    for _ in range(_TRIES):
        name, text = draw.choices(files, sizes)[0]
        parsed = _parse(text)
        if parsed is None or len(parsed.lines) <= fewest:
            continue
        index = draw.randrange(fewest, len(parsed.lines))
        line = parsed.lines[index]
        wanted = _LINE[0] <= len(line.strip()) and len(line) <= _LINE[1]
        if not wanted or "#" in line or index in parsed.in_string:
            continue
        before = list(parsed.lines[:index])
        if not before[-1].strip() and not line.startswith(" "):
            continue  # what follows a blank line at the top level is anyone's guess
        imports = [parsed.lines[i] for i, _, _ in parsed.imports if i < index - _MOST_LINES]
        return Place(name, list(dict.fromkeys(imports)), before, line)
    raise InputError("The Python files hold no line that could be asked for.")


def snippets(draw: random.Random, files: Sequence[File], at: Place, limit: int) -> list[str]:
    """Definitions from other files, those of imported names first, that fill `limit` units."""
    texts = dict(files)
    here = _parse(texts[at.file])
    found: dict[str, None] = {}
    for _, module, name in here.imports if here else ():
        path = module.replace(".", "/")
        for other in (f"{path}.py", f"{path}/__init__.py"):
            if other in texts and other != at.file:
                for defined, source in _definitions(texts[other]):
                    if name in ("", defined):
                        found.setdefault(_titled(other, source))
    first = draw.sample(list(found), len(found))
    names = [name for name, _ in files if name != at.file]
    rest: dict[str, None] = {}
    held = sum(map(len, first))
    for other in draw.sample(names, len(names)):
        if held > _CHARACTERS * limit:
            break
        for _, source in _definitions(texts[other]):
            text = _titled(other, source)
            if text not in found and text not in rest:
                rest[text] = None
                held += len(text)
    return first + draw.sample(list(rest), len(rest))


def _titled(file: str, source: str) -> str:
    return f"# Path: {file}\n{source}\n\n"


def _definitions(text: str) -> tuple[tuple[str, str], ...]:
    parsed = _parse(text)
    return parsed.definitions if parsed else ()


@lru_cache(maxsize=2048)
def _parse(text: str) -> Parsed | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # escapes in other people's strings
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return None
    lines = text.splitlines()
    in_string: set[int] = set()
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text or isinstance(node, ast.JoinedStr):
            first, last = node.lineno, node.end_lineno or node.lineno  # type: ignore[attr-defined] # both kinds are expressions
            if last > first:
                in_string.update(range(first - 1, last))
    imports: list[tuple[int, str, str]] = []
    definitions: list[tuple[str, str]] = []
    for node in tree.body:
        if isinstance(node, ast.Import):
            imports += [(node.lineno - 1, alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports += [(node.lineno - 1, node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            last = node.end_lineno or node.lineno
            if last - node.lineno < _MOST_LINES:
                definitions.append((node.name, "\n".join(lines[node.lineno - 1 : last])))
    return Parsed(tuple(lines), frozenset(in_string), tuple(imports), tuple(definitions))
