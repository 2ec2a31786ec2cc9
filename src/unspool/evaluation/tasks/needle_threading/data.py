"""Published rows of needle threading, and the table of predictions of the release's example.

What: rows from the release's JSON files or any file of such rows; predictions from the CSV that
the example in the README writes (Question_ID, Output, Answer, Correct?).
Source: dataset `jonathan-roberts1/needle-threading`; README of the code release.
Differs from the release: `keys` and `values` of the list tasks are accepted as lists and as the
text of a Python list. Which pairs the `keys` of a thread name is not documented; the first is taken
as its start.
Cost: linear in the file, which is read whole (JSON).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unspool.errors import InputError, MissingData
from unspool.evaluation.spec import Parts, Prediction, Release, Response, Sample
from unspool.evaluation.tasks import _release
from unspool.evaluation.tasks._release import HUB
from unspool.evaluation.tasks.needle_threading.config import NeedleTask
from unspool.evaluation.tasks.needle_threading.haystack import NeedleRow
from unspool.evaluation.tasks.needle_threading.metric import read_literal

FILES: dict[str, str] = {
    "single_needle": "Single_Needle.json",
    "multiple_needles": "Multiple_Needles.json",
    "conditional_needles": "Conditional_Needles.json",
    "single_thread": "Single_Threads.json",
    "multi_thread": "Multi_Threads.json",
}
"""File of each task in the release's `json_data.zip`; there is none for branched threads."""

_SCHEMA = {
    "id": "int",
    "haystack": "str",
    "keys": "str or list of str",
    "values": "str or list of str",
    "question": "str",
    "context_length": "int (characters)",
    "num_kv_pairs": "int",
    "repeat_number": "int",
    "needle_depth": "str",
    "num_needles": "int",
    "needle_placement": "str",
    "conditional_character": "str",
    "thread_length": "int",
    "thread_direction": "str",
    "num_threads": "int",
}


def release(task: NeedleTask | str) -> Release | None:
    """Where the published rows of a task are."""
    if task not in FILES:
        return None
    return Release(
        dataset="jonathan-roberts1/needle-threading",
        files=(f"json_data.zip!json_data/{FILES[task]}",),
        revision="",
        schema=_SCHEMA,
        licence="MIT",
        note="The revision is not pinned.",
    )


def load(path: Path | str, task: NeedleTask | str = "single_needle") -> list[NeedleRow]:
    """The published rows of a task.

    Args:
        path: A JSON or JSON-lines file of rows, the folder that holds the release's files, or
            `hub` to fetch them.
        task: Which file of a folder.

    Raises:
        MissingData: There is no such file.
        InputError: A row lacks a field; the message names row and field.
    """
    found = release(task)
    if path == HUB and found is not None:
        records: Iterator[dict[str, Any]] = _release.records(found, HUB, twin="")
        name = FILES[task]
    else:
        file = _find(Path(path), task)
        records, name = _records(file), str(file)
    rows = []
    for number, record in enumerate(records, 1):
        missing = [field for field in _SCHEMA if field not in record]
        if missing:
            raise InputError(f"{name}: row {number} lacks {', '.join(missing)}.")
        record = {**record, "keys": _listed(record["keys"]), "values": _listed(record["values"])}
        rows.append(NeedleRow.from_json({**record, "needle_depth": str(record["needle_depth"])}))
    return rows


def read_predictions(path: Path) -> Iterator[Prediction]:
    """The lines of the CSV that the release's example builds: one value each.

    Raises:
        InputError: A column is missing, or there are no rows.
    """
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        wanted = ("Question_ID", "Output", "Answer")
        missing = [name for name in wanted if name not in (table.fieldnames or ())]
        if missing:
            raise InputError(
                f"{path} lacks the columns {', '.join(missing)}: it is not a table of predictions "
                "as the example of the release writes it."
            )
        found = False
        for row in table:
            found = True
            sample = Sample(
                id=str(row["Question_ID"]), parts=Parts(), references=(row["Answer"] or "",)
            )
            # The column holds the reply after it was read as a literal.
            yield Prediction(sample, Response(text=repr(row["Output"] or "")))
    if not found:
        raise InputError(f"{path} holds no predictions.")


def _find(path: Path, task: NeedleTask | str) -> Path:
    name = FILES.get(task)
    places = [path] if path.is_file() else []
    if name and path.is_dir():
        places = [p for p in (path / name, path / "json_data" / name) if p.is_file()]
    if not places:
        raise missing(task, f"at {path}")
    return places[0]


def _records(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSON list, of a JSON object of columns, or of JSON lines."""
    text = file.read_text(encoding="utf-8")
    try:
        found = json.loads(text)
    except ValueError:
        found = []
        for number, line in enumerate(text.splitlines(), 1):
            try:
                if line.strip():
                    found.append(json.loads(line))
            except ValueError as error:
                raise InputError(f"{file}: line {number} is no JSON: {error}.") from error
    if isinstance(found, dict) and "haystack" in found and isinstance(found["haystack"], dict):
        rows = found["haystack"]
        found = [{name: column[key] for name, column in found.items()} for key in rows]
    elif isinstance(found, dict):
        found = [found]
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise InputError(f"{file} holds neither rows nor columns of rows.")
    yield from found


def missing(task: NeedleTask | str, where: str) -> MissingData:
    """The error for rows that are not there."""
    name = FILES.get(task)
    which = f"file {name} of" if name else "which has none of this task:"
    return MissingData(
        f"The published rows of {task} are not {where}. Unpack json_data.zip, {which} the dataset "
        "jonathan-roberts1/needle-threading on Hugging Face, and give that folder. Generated "
        f"ones: unspool evaluate make --task needle-threading/{task} --length 8k --n 200 "
        "--out data.jsonl"
    )


def depth_of(row: NeedleRow) -> float | None:
    """The depth of a row in 0-1, None where it has no one depth."""
    try:
        percent = float(row.needle_depth)
    except ValueError:
        return None
    return percent / 100 if 0 <= percent <= 100 else None


def _listed(value: Any) -> str | list[str]:
    if isinstance(value, list):
        return [str(item) for item in value]
    text = str(value)
    if text.startswith("["):
        literal, parsed = read_literal(text)
        if parsed and isinstance(literal, list):
            return [str(item) for item in literal]
    return text
