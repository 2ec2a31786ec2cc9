"""Ada-LEval's released items, its prompt, and its tables of predictions.

What: `stackselect_LEVEL.json` and `textsort_LEVEL.json`; the BestAnswer wording out of a checkout
of the release, read as data and never run; the `.xlsx` tables that its runner writes, or the same
columns as CSV, JSON or JSON lines.
Source: `fetch_data.sh`, `ada_leval/dataset.py` and `run.py` of the release.
Differs from the release: its `.pkl` files are not read, since a pickle can run code; the `.xlsx`
beside each holds the same predictions. Items are refused if a field is missing, not skipped.
Cost: linear in the file.
"""

from __future__ import annotations

import ast
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from unspool.errors import InputError, MissingData
from unspool.evaluation.spec import Parts, Release
from unspool.evaluation.tasks.ada_leval.sheet import read_sheet

TSORT_LEVELS = ("1k", "2k", "4k", "8k", "16k", "32k", "64k", "128k")
BESTANSWER_LEVELS = (*TSORT_LEVELS[:3], "6k", "8k", "12k", *TSORT_LEVELS[4:])
_NAMES = {"tsort": "textsort", "bestanswer": "stackselect"}
_FIELDS = {
    "tsort": {
        "book_id": "str or int",
        "para_offset": "list of int",
        "answer": "list of int, or its JSON text",
        "prompt": "str",
    },
    "bestanswer": {
        "question_id": "str or int",
        "question": "str",
        "answer": "str (label)",
        "tags": "list of str",
        "all_answers": "list of str",
    },
}
_COLUMNS = {
    "tsort": ("answer", "prediction"),
    "bestanswer": ("answer", "num_choice", "prediction"),
}


def release(kind: str) -> Release:
    """Where the released items of `tsort` or `bestanswer` are."""
    levels = TSORT_LEVELS if kind == "tsort" else BESTANSWER_LEVELS
    return Release(
        dataset="http://opencompass.openxlab.space/utils/AdaLEval",
        files=tuple(f"{_NAMES[kind]}_{level}.json" for level in levels),
        revision="",
        schema=_FIELDS[kind],
        licence="not stated",
        note=(
            "A project server without revisions; give the folder that the files were downloaded "
            "to. The runner takes the first 1,000 items below 32k and 200 from there on; 200 and "
            "50 for models behind an API."
        ),
    )


def load(folder: Path | str, kind: str, level: str) -> list[dict[str, Any]]:
    """The released items of a level, checked.

    Args:
        folder: Where the files are, or the checkout that holds them in `data/`.
        kind: `tsort` or `bestanswer`.
        level: Such as `4k`.

    Raises:
        MissingData: There is no such file.
        InputError: It is not what the release has; the message names item and field.
    """
    name = f"{_NAMES[kind]}_{level}.json"
    root = Path(folder)
    places = [root] if root.is_file() else [root / name, root / "data" / name]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise MissingData(
            f"{name} is not in {folder}. It is at {release(kind).dataset}/{name}. A generated "
            f"twin: unspool evaluate make --task ada-leval/{kind} --length {level} --n 200 "
            "--out data.jsonl"
        )
    try:
        items = orjson.loads(file.read_bytes())
    except ValueError as error:
        raise InputError(f"{file} is no JSON: {error}.") from error
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise InputError(f"{file} must hold a list of items.")
    for number, item in enumerate(items, 1):
        missing = [name for name in _FIELDS[kind] if name not in item]
        if missing:
            raise InputError(f"{file}: item {number} lacks {', '.join(missing)}.")
    return items


def reference(checkout: Path | str) -> Wording:
    """BestAnswer's wording in a checkout of the release.

    Raises:
        MissingData: There is no `ada_leval/dataset.py`.
        InputError: It does not hold the prompt.
    """
    file = Path(checkout) / "ada_leval" / "dataset.py"
    if not file.is_file():
        raise MissingData(
            f"{file} does not exist. The released prompt is in that file of the repository "
            "open-compass/Ada-LEval; give the folder of a checkout."
        )
    try:
        pieces = _strings(ast.parse(file.read_text(encoding="utf-8")))
    except SyntaxError as error:
        raise InputError(f"{file} is no Python: {error}.") from error
    if len(pieces) != 4:
        raise InputError(f"{file} does not hold the prompt that is known here.")
    return Wording(*pieces)


class Wording(tuple[str, str, str, str]):
    """Four strings of the released prompt: introduction, before question, before answers, end."""

    def __new__(cls, intro: str, question: str, answers: str, end: str) -> Wording:
        return super().__new__(cls, (intro, question, answers, end))

    def parts(self, question: str, answers: list[str]) -> Parts:
        """The prompt of an item, as the release joins it."""
        intro, before, between, end = self
        listed = "".join(f"A{i}:\n\n{answer}\n\n" for i, answer in enumerate(answers, 1))
        return Parts(intro, f"{before}{question}\n\n{between}{listed}", end)


def _strings(tree: ast.Module) -> list[str]:
    """The constant strings that `StackSelect` assigns to its prompt, in order."""
    found: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == "StackSelect":
            for inner in ast.walk(node):
                if not isinstance(inner, (ast.Assign, ast.AugAssign)):
                    continue
                target = inner.target if isinstance(inner, ast.AugAssign) else inner.targets[0]
                name = getattr(target, "attr", getattr(target, "id", ""))
                value = inner.value
                if (
                    name in ("meta_prompt", "prompt")
                    and isinstance(value, ast.Constant)
                    and isinstance(value.value, str)
                ):
                    found.append(value.value)
    return found


def read_table(path: Path, kind: str) -> Iterator[dict[str, Any]]:
    """The rows of a table of predictions, with the columns that scoring needs.

    Raises:
        InputError: A column is missing, a cell has the wrong form, or there are no rows.
    """
    if path.suffix == ".pkl":
        raise InputError(
            f"{path} is a pickle, which can run code when it is read. Give the .xlsx of the same "
            "name that the release writes beside it."
        )
    rows = _rows(path)
    number = 0
    for number, row in enumerate(rows, 1):
        missing = [name for name in _COLUMNS[kind] if row.get(name) is None]
        if missing == ["prediction"]:
            row = {**row, "prediction": ""}  # an empty cell is an empty reply
        elif missing:
            raise InputError(f"{path}: row {number} lacks {', '.join(missing)}.")
        if kind == "bestanswer":
            try:
                row = {**row, "num_choice": int(row["num_choice"])}
            except (TypeError, ValueError) as error:
                raise InputError(
                    f"{path}: row {number}: num_choice must be a number, got {row['num_choice']!r}."
                ) from error
        yield {**row, "prediction": str(row["prediction"])}
    if not number:
        raise InputError(f"{path} holds no predictions.")


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".xlsx":
        yield from read_sheet(path)
    elif path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)
    elif path.suffix in (".json", ".jsonl"):
        text = path.read_text(encoding="utf-8")
        try:
            found = (
                json.loads(text)
                if path.suffix == ".json"
                else [json.loads(line) for line in text.splitlines() if line.strip()]
            )
        except ValueError as error:
            raise InputError(f"{path} is no JSON: {error}.") from error
        if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
            raise InputError(f"{path} must hold a list of rows.")
        yield from found
    else:
        raise InputError(f"{path}: a table of predictions ends in .xlsx, .csv, .json or .jsonl.")
