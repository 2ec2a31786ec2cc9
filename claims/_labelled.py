"""Three questions with one right label each, out of text that ships: what adapters are trained on.

`module`: which package of Python's standard library a piece of its source is from. `manual`: which
of five manuals a passage is from. `section`: which section of Debian a package's description says
it is in. Balanced; nothing of a file or a page is on both sides.
"""

from __future__ import annotations

import json
import random
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson

PACKAGES = ("asyncio", "email", "idlelib", "tkinter", "unittest", "lib2to3", "distutils", "xml")
SECTIONS = ("games", "net", "science", "sound", "admin", "text")
MANUALS = ("rust-doc", "openjdk-17-doc", "libstdc++-12-doc", "python3.11-doc", "postgresql-doc-15")
TRAIN, TEST = 2000, 500
_PIECE = 320
"""Characters of a piece of source or of a page."""

Row = tuple[str, int]


def rows(task: str, folder: Path) -> tuple[list[Row], list[Row]]:
    """(text, label) to train on and to test on, in a fixed random order; made once."""
    path = folder / f"{task}.json"
    if not path.exists():
        train, test = _split(task, list(_SOURCES[task]()))
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps({"train": train, "test": test}), encoding="utf-8")
        partial.replace(path)
    found = json.loads(path.read_text(encoding="utf-8"))
    train, test = ([(str(text), int(label)) for text, label in found[k]] for k in ("train", "test"))
    return train, test


def labels(task: str) -> tuple[str, ...]:
    """What the label numbers stand for."""
    return {"module": PACKAGES, "manual": MANUALS, "section": SECTIONS}[task]


def _split(task: str, found: list[tuple[str, str, int]]) -> tuple[list[Row], list[Row]]:
    """Balanced; every fifth origin (a file, a page, a package) is for testing."""
    draw = random.Random(task)
    draw.shuffle(found)
    origins = sorted({origin for origin, _, _ in found})
    draw.shuffle(origins)
    kept = set(origins[::5])
    sides: tuple[list[Row], list[Row]] = ([], [])
    for side, most in ((0, TRAIN), (1, TEST)):
        per = most // len(labels(task))
        for label in range(len(labels(task))):
            here = [
                (text, label)
                for origin, text, l in found
                if l == label and (origin in kept) == bool(side)
            ]
            sides[side].extend(here[:per])
        draw.shuffle(sides[side])
    return sides


def _module() -> Iterator[tuple[str, str, int]]:
    library = Path(sysconfig.get_paths()["stdlib"])
    for label, package in enumerate(PACKAGES):
        for path in sorted((library / package).rglob("*.py")):
            text = path.read_text(encoding="utf-8", errors="replace").replace(package, "it")
            for start in range(0, len(text) - _PIECE, 2 * _PIECE):
                yield str(path.relative_to(library)), text[start : start + _PIECE], label


def _manual() -> Iterator[tuple[str, str, int]]:
    from claims.data import corpus_docs200

    draw = random.Random("pages")
    with corpus_docs200().open("rb") as lines:
        for line in lines:
            if draw.random() > 0.6:
                continue
            page = orjson.loads(line)
            label = MANUALS.index(page["id"].split("/")[0])
            text = " ".join(page["text"].split())
            if len(text) > 3 * _PIECE:
                start = draw.randrange(_PIECE, len(text) - _PIECE)
                yield page["id"], text[start : start + _PIECE], label


def _section() -> Iterator[tuple[str, str, int]]:
    known = subprocess.run(
        ["apt-cache", "dumpavail"], capture_output=True, text=True, check=True
    ).stdout
    for record in known.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in record.splitlines() if ": " in line and line[0] != " "
        )
        said = next((v for k, v in fields.items() if k.startswith("Description")), "")
        if fields.get("Section") in SECTIONS and len(said) > 10:
            origin = fields.get("Source", fields["Package"]).split(" ")[0]
            yield origin, f"{fields['Package']}: {said}", SECTIONS.index(fields["Section"])


_SOURCES: dict[str, Callable[[], Iterator[tuple[str, str, int]]]] = {
    "module": _module,
    "manual": _manual,
    "section": _section,
}
