"""Labelled texts: read from files, checked, and divided without the same question on both sides."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from unspool.corpus.utf8 import first_invalid
from unspool.errors import EncodingError, InputError, PathNotFound
from unspool.forensics._jsonl import read_records

HUMAN, MACHINE = 0, 1


@dataclass(frozen=True, slots=True)
class Example:
    """A text and who wrote it."""

    text: str
    label: int
    """0 human, 1 machine."""
    group: str = ""
    """Texts of one group (answers to one question) are never divided between two sets."""
    source: str = ""
    """The model that wrote it, or the kind of human text; shown in the model card."""

    def __post_init__(self) -> None:
        if self.label not in (HUMAN, MACHINE):
            raise InputError(f"A label is 0 (human) or 1 (machine), got {self.label!r}.")


class Divided(NamedTuple):
    """Two sets without a group in common."""

    train: list[Example]
    held: list[Example]


def read_examples(path: str | Path) -> list[Example]:
    """Read labelled texts.

    A record has `text` (or `answer`) and `label` (0 or human, 1 or machine), and if there are any
    `question` (or `group`) and `source` (or `generator`); or, as HC3 has it, `question`,
    `human_answers` and `chatgpt_answers`.

    Args:
        path: JSON lines, a JSON array, or a .csv file with a head line.

    Raises:
        PathNotFound: There is no such file.
        InputError: A record lacks its text or has another label; the message says which.
    """
    place = Path(path)
    records = _csv(place) if place.suffix.lower() == ".csv" else read_records(place)
    found: list[Example] = []
    for number, record in enumerate(records, 1):
        found += _examples(record, f"Record {number} of {place.name}")
    if not found:
        raise InputError(f"There are no texts in {place.name}.")
    return found


def _csv(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise PathNotFound(f"There is no file {str(path)!r}. Check the path.")
    data = path.read_bytes()
    bad = first_invalid(data)
    if bad is not None:
        raise EncodingError(f"{path.name} is not valid UTF-8 at byte {bad:,}.")
    try:
        return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    except csv.Error as error:
        raise InputError(f"{path.name} cannot be read as CSV: {error}. Use JSON lines.") from error


def _examples(record: dict[str, Any], where: str) -> list[Example]:
    group = str(record.get("group") or record.get("question") or "")
    if "human_answers" in record or "chatgpt_answers" in record:
        found = []
        for field, label, source in (
            ("human_answers", HUMAN, str(record.get("source") or "human")),
            ("chatgpt_answers", MACHINE, "chatgpt"),
        ):
            for answer in record.get(field) or ():
                found.append(Example(_text(answer, f"{where} ({field})"), label, group, source))
        return found
    text = record.get("text", record.get("answer"))
    if "label" not in record:
        raise InputError(f"{where} has no label. Give 0 for human, 1 for machine.")
    label = _label(record["label"], where)
    source = str(record.get("source") or record.get("generator") or "")
    return [Example(_text(text, where), label, group, source)]


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where} has no text: a field 'text' or 'answer' must hold it.")
    return value


def _label(value: Any, where: str) -> int:
    names = {"0": HUMAN, "1": MACHINE, "human": HUMAN, "machine": MACHINE}
    found = None if isinstance(value, bool | float) else names.get(str(value).strip().lower())
    if found is None:
        raise InputError(f"{where} has the label {value!r}. Labels are 0 (human) and 1 (machine).")
    return found


def divide(examples: Sequence[Example], share: float = 0.1) -> Divided:
    """Hold out about a share of the groups; a text without a group is one of its own.

    A digest of the group decides, so the same texts are held out whatever stands beside them.
    """
    bound = int(share * 2**32)
    sides: tuple[list[Example], list[Example]] = ([], [])
    for example in examples:
        key = hashlib.sha256((example.group or example.text).encode()).digest()
        sides[int.from_bytes(key[:4], "big") < bound].append(example)
    return Divided(*sides)


def both_labels(examples: Sequence[Example], what: str) -> None:
    """Refuse a set that lacks a class.

    Raises:
        InputError: There is no human or no machine text.
    """
    for label, name in ((HUMAN, "human"), (MACHINE, "machine")):
        if not any(example.label == label for example in examples):
            raise InputError(
                f"There is no {name} text (label {label}) among the {len(examples)} {what} texts."
            )


def digest(examples: Iterable[Example]) -> str:
    """SHA-256 of examples in their order."""
    total = hashlib.sha256()
    for example in examples:
        total.update(orjson.dumps(asdict(example)) + b"\n")
    return total.hexdigest()
