"""Labelled data that needs no network: the module that a function of the standard library is from.

Source: the standard library of the running Python; JSON lines of `text` and `label` of the user's.
Differs from the paper's data: labels are module names, inputs a function's name, arguments and the
first line of its docstring; there are about as many labels as modules.
Cost: parses some 90 files, about two seconds, once a process.
"""

from __future__ import annotations

import ast
import random
import sysconfig
from functools import cache
from pathlib import Path
from typing import NamedTuple

import orjson

from unspool.errors import InputError
from unspool.evaluation.spec import Source
from unspool.evaluation.tasks.ada_leval.sources import MODULES


class Labelled(NamedTuple):
    """Texts and their labels, split once and for all."""

    train: list[tuple[str, str]]
    test: list[tuple[str, str]]


def labelled(source: Source, *, labels: int | None = None, seed: int = 0) -> Labelled:
    """Labelled texts of a JSON-lines file, or of the standard library where no path is given.

    Every label gives a quarter of its items to the test split.

    Args:
        source: Its path, if any, is a file with `text` and `label` on each line.
        labels: Take only the labels with the most items, this many.
        seed: Of the split.

    Raises:
        InputError: A line lacks a field, or there are fewer labels.
    """
    items = _read(Path(source.path)) if source.path is not None else list(modules())
    groups: dict[str, list[str]] = {}
    for text, label in items:
        groups.setdefault(label, []).append(text)
    kept = sorted((g for g in groups if len(groups[g]) >= 2), key=lambda g: (-len(groups[g]), g))
    if labels is not None and len(kept) < labels:
        raise InputError(
            f"{labels} labels are wanted and {len(kept)} have two items or more. Ask for fewer."
        )
    train: list[tuple[str, str]] = []
    test: list[tuple[str, str]] = []
    for label in kept[:labels]:
        texts = groups[label]
        draw = random.Random(f"split/{seed}/{label}")
        draw.shuffle(texts)
        most = max(1, len(texts) // 4)
        test += [(text, label) for text in texts[:most]]
        train += [(text, label) for text in texts[most:]]
    for part in (train, test):
        random.Random(f"order/{seed}").shuffle(part)
    return Labelled(train, test)


@cache
def modules() -> tuple[tuple[str, str], ...]:
    """A function's signature and what its docstring says first, and its module."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, str] = {}
    for name in MODULES.split():
        file = folder / f"{name}.py"
        if not file.is_file():
            continue
        label = name.removesuffix("/__init__").rpartition("/")[2]
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            said = (ast.get_docstring(node) or "").partition("\n")[0].strip()
            if len(said) < 12:
                continue
            arguments = ", ".join(a.arg for a in node.args.args if a.arg not in ("self", "cls"))
            found.setdefault(f"{node.name}({arguments}): {said}", label)
    return tuple(found.items())


def _read(path: Path) -> list[tuple[str, str]]:
    if not path.is_file():
        raise InputError(f"{path} is no file. Labelled data is a JSON-lines file.")
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
            text, label = row["text"], row["label"]
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f'{path}: line {number} is no {{"text": …, "label": …}}: {error}.'
            ) from error
        if not isinstance(text, str) or not isinstance(label, str) or not label.strip():
            raise InputError(f"{path}: line {number}: text and label must be texts.")
        found.append((text, label))
    if not found:
        raise InputError(f"{path} holds no items.")
    return found
