"""The released files: annotations in three shapes, and the summaries that they are of.

What: version 1 annotations list only what confuses, so the score of a book needs its summary;
version 2 annotations list every sentence.
Source: github.com/lilakk/BooookScore, `annotations/` and `summaries/`, `get_booookscore_v1.py`,
`score.py`.
Differs from the release: nothing is unpickled. The share follows the released arithmetic, equal
sentences collapsing included, since it is what the published numbers are.
Cost: linear in the files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unspool.errors import InputError
from unspool.evaluation.spec import Release
from unspool.evaluation.tasks.booookscore.judge import sentences_of

COMMIT = "094bf69bc55317b728b4b2bb679c287e0176ae6c"
RELEASE = Release(
    dataset="github:lilakk/BooookScore",
    files=("annotations/gpt4-2048-hier.json", "summaries/gpt4-2048-hier-cleaned.json"),
    revision=COMMIT,
    schema={"(book)": "annotations of its summary: object by sentence, or list of spans"},
    licence="MIT",
    note="The books are not public; annotations and summaries are.",
)


@dataclass(frozen=True, slots=True)
class Book:
    """Confusing sentences of all sentences of a book's summary."""

    name: str
    confusing: int
    sentences: int

    @property
    def score(self) -> float:
        """1 where nothing is annotated, as in the release."""
        return 1 - self.confusing / self.sentences if self.confusing else 1.0


def score_annotations(
    annotations: Mapping[str, Any], summaries: Mapping[str, str] | None = None
) -> list[Book]:
    """The score of each book.

    Args:
        annotations: By book: None; a list of spans; an object by sentence; or one with `singles`
            and `relations`.
        summaries: By book. Without them annotations must be those of version 2, which list every
            sentence.

    Raises:
        InputError: A book has another shape, or its annotations need a summary that is missing.
    """
    if summaries is None:
        return [_every_sentence(book, held) for book, held in sorted(annotations.items())]
    found = []
    for book, summary in summaries.items():
        if not isinstance(summary, str):
            raise InputError(f"The summary of {book!r} should be a text, as in *-cleaned.json.")
        total = len(sentences_of(summary))
        confusing = _confusing(book, annotations.get(book))
        if not total and confusing:
            raise InputError(f"The summary of {book!r} is empty, and {confusing} are annotated.")
        found.append(Book(book, confusing, total))
    return found


def _confusing(book: str, held: Any) -> int:
    if held is None:
        return 0
    if isinstance(held, dict) and "singles" in held:
        return len(held["singles"]) + len(held.get("relations", ()))
    if isinstance(held, (dict, list)):
        return len(held)
    raise InputError(f"The annotations of {book!r} are neither a list nor an object.")


def _every_sentence(book: str, held: Any) -> Book:
    if not isinstance(held, dict) or not all(_is_whole(each) for each in held.values()):
        raise InputError(
            f"The annotations of {book!r} do not list every sentence with questions and types, as "
            f"those of version 2 do. Give the summaries too."
        )
    return Book(book, sum(bool(a["questions"] or a["types"]) for a in held.values()), len(held))


def _is_whole(each: Any) -> bool:
    return isinstance(each, dict) and "questions" in each and "types" in each


def read(path: Path) -> Iterator[Book]:
    """The books of a released annotation file.

    The summaries of version 1 files are looked for beside them and in `../summaries`, under the
    names of the release.
    """
    annotations = _load(path)
    summaries = _summaries(path)
    if summaries is None and path.parent.name != "v2" and not _lists_all(annotations):
        raise InputError(
            f"{path.name} lists confusing sentences only, so its summaries are needed: put "
            f"{path.stem.removesuffix('_cleaned')}-cleaned.json of the release beside it."
        )
    yield from score_annotations(annotations, summaries)


def _lists_all(annotations: Mapping[str, Any]) -> bool:
    """Whether any sentence is listed that confuses nobody, which only version 2 does."""
    held = [each for each in annotations.values() if isinstance(each, dict)]
    return any(
        _is_whole(a) and not a["questions"] and not a["types"] for h in held for a in h.values()
    )


def _summaries(path: Path) -> Mapping[str, str] | None:
    if path.parent.name == "v2":
        return None
    stem = path.stem.removesuffix("_cleaned")
    for folder in (path.parent.parent / "summaries", path.parent):
        for name in (f"{stem}-cleaned.json", f"{stem}_cleaned.json"):
            place = folder / name
            if place.is_file() and place != path:
                return _load(place)
    return None


def _load(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path.name} is not JSON: {error}.") from error
    if not isinstance(held, dict):
        raise InputError(f"{path.name} should hold one JSON object, by book.")
    return held
