"""The five abilities as tasks over any labelled texts, without a network.

What: `Source.path` names JSON lines with `text` and `label`, or a folder whose first subfolders are
the classes; without it, docstrings of the standard library (whole modules for `global`), their
package being the class.
Source: Kwan et al. (2023); see `convert`.
Cost: parsing some packages of the standard library once, about a second.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from unspool.corpus.readers import read_documents
from unspool.errors import InputError
from unspool.evaluation.spec import (
    LengthLevel,
    Sample,
    Sizer,
    Source,
    TaskSpec,
    fingerprint,
)
from unspool.evaluation.tasks._passages import python_files
from unspool.evaluation.tasks.base import GENERATED, Task
from unspool.evaluation.tasks.m4le.convert import Converter, Labelled
from unspool.evaluation.tasks.m4le.facts import ABILITIES, Kind
from unspool.evaluation.tasks.m4le.metric import M4LEMetric
from unspool.evaluation.tasks.m4le.wording import EN
from unspool.types import Document

LEVELS = tuple(LengthLevel("words", n, lower=n // 2) for n in (256, 512, 1000, 2000))
_PACKAGES = frozenset({
    "asyncio", "concurrent", "email", "http", "importlib", "logging", "mailbox", "tarfile",
    "turtle", "urllib", "xml", "zipfile",
})  # fmt: skip
_FEWEST, _MOST = 12, 80
"""Words of a docstring that is taken."""
_KINDS: dict[str, tuple[Kind, tuple[str, ...], str]] = {
    "explicit-single": ("exact_match", (".", "\n"), ""),
    "explicit-multiple": ("ids", (), "cut-gold"),
    "semantic-single": ("exact_match", (".", "\n"), ""),
    "semantic-multiple": ("exact_match", (".", "\n"), ""),
    "global": ("acc", ("\n",), ""),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedTask(Task):
    """One ability over labelled texts."""

    converter: Converter

    def samples(
        self,
        level: LengthLevel | None,
        n: int,
        *,
        seed: int = 111,
        source: Source = GENERATED,
        size: Sizer = len,
    ) -> Iterator[Sample]:
        """See `Task.samples` and `convert`."""
        if level is None:
            raise InputError(f"{self.spec.name} needs a length: name one with --lengths.")
        pool = labelled(source, whole=self.converter.ability == "global")
        yield from self.converter.samples(pool, level, n, seed, size)


def labelled(source: Source, *, whole: bool = False) -> list[Labelled]:
    """The labelled texts of a source; `whole` takes modules instead of docstrings where none is
    given.

    Raises:
        InputError: A document has no label and lies in no folder that could be one.
    """
    if source.path is None:
        return list(_modules() if whole else _docstrings())
    found = []
    for document in _documents(source.path):
        label = document.meta.get("label")
        if label is None and "/" in document.id:
            label = document.id.partition("/")[0]
        if label is None:
            raise InputError(
                f"{document.id} has no class: give JSON lines with 'text' and 'label', or a folder "
                f"with a subfolder for each class."
            )
        if document.text.strip():
            found.append(Labelled(document.text.strip(), str(label)))
    return found


@cache
def _modules() -> tuple[Labelled, ...]:
    return tuple(Labelled(text, package) for package, text in _standard() if text.strip())


def _standard() -> Iterator[tuple[str, str]]:
    """Package and text of some modules of the standard library."""
    for name, text in python_files(None):
        package = name.partition("/")[0].removesuffix(".py")
        if package in _PACKAGES:
            yield package, text


def _documents(path: str) -> Iterator[Document]:
    try:
        yield from read_documents(path)
    except InputError as error:
        if "no field 'text'" not in str(error):
            raise
        raise InputError(
            f"{path} should hold JSON lines with a text under 'text' and its class under 'label'; "
            f"a line has no 'text'. From Python, convert(text=, label=) takes other names."
        ) from error


@cache
def _docstrings() -> tuple[Labelled, ...]:
    found: dict[str, Labelled] = {}
    for package, text in _standard():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                words = (ast.get_docstring(node) or "").split()
                if _FEWEST <= len(words) <= _MOST:
                    joined = " ".join(words)
                    found.setdefault(joined, Labelled(joined, package))
    return tuple(found.values())


def make_twin(ability: str) -> ConvertedTask:
    """The task of an ability."""
    kind, ends, rule = _KINDS[ability]
    metric = M4LEMetric(kind=kind, ends=ends, rule=rule)
    return ConvertedTask(
        spec=TaskSpec(
            name=f"m4le-twin/{ability}",
            ability=ability,
            max_new_tokens=256 if ability == "explicit-multiple" else 32,
            unit="words",
            levels=LEVELS,
            metric=metric.id,
            data_source="generated from labelled texts",
            prompt_fingerprint=fingerprint(*EN.instruction.values(), *EN.ask.values(), EN.item),
        ),
        metric=metric,
        converter=Converter(ability),
    )


TWIN_TASKS: dict[str, Task] = {ability: make_twin(ability) for ability in ABILITIES}
