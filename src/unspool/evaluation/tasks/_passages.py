"""Paragraphs and Python files that generated tasks are made of.

What: paragraphs of documents, white space collapsed, none twice; Python files, those of a path or
the standard library's own.
Source: ours.
Differs: –
Cost: one pass over the texts.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from unspool.errors import InputError
from unspool.types import Document

_BLANK_LINE = re.compile(r"\n[ \t\r]*\n")
_LETTERS = re.compile(r"[^\W\d_]")


def paragraphs(found_in: Iterable[Document], *, fewest: int = 30, most: int = 200) -> list[str]:
    """Paragraphs of prose with `fewest` to `most` words, each once, in order."""
    found: dict[str, None] = {}
    for document in found_in:
        for block in _BLANK_LINE.split(document.text):
            words = block.split()
            if fewest <= len(words) <= most:
                text = " ".join(words)
                if len(_LETTERS.findall(text)) >= 0.6 * len(text):
                    found.setdefault(text)
    return list(found)


def enough(pool: list[str], needed: int, what: str) -> None:
    """Refuse to draw more than there is."""
    if len(pool) < needed:
        raise InputError(
            f"{needed} {what} are needed and the texts hold {len(pool)}. Give more text, or choose "
            f"a shorter length."
        )


def python_files(path: str | None) -> tuple[tuple[str, str], ...]:
    """Name and text of Python modules: those under a path, else the standard library's own.

    The standard library differs from one Python to the next, and so do tasks made of it.
    """
    if path is None:
        return _standard_library()
    root = Path(path)
    files = [root] if root.is_file() else sorted(root.rglob("*.py"))
    found = _read(root.parent if root.is_file() else root, files)
    if not found:
        raise InputError(f"{path} holds no Python files.")
    return found


@cache
def _standard_library() -> tuple[tuple[str, str], ...]:
    import sysconfig

    root = Path(sysconfig.get_paths()["stdlib"])
    names = sorted(sys.stdlib_module_names)
    files = [root / f"{name}.py" for name in names]
    files += [file for name in names for file in sorted((root / name).glob("*.py"))]
    return _read(root, files)


def _read(root: Path, files: Iterable[Path]) -> tuple[tuple[str, str], ...]:
    found = []
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        found.append((file.relative_to(root).as_posix(), text))
    return tuple(found)
