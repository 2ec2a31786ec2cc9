"""The data of LongICLBench, and its prediction files.

What: training and test items of the six sets as the release selects them; the JSON lists that its
scripts write.
Source: `processed_data/` and the scripts of the release; the hub's data sets for the other three.
Differs from the release: labels that are numbers are named from `labels.json` beside the data, or
from the tables in a checkout's scripts, which are read as data and never run.
Cost: linear in the files.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unspool.errors import InputError
from unspool.evaluation.spec import Parts, Prediction, Response, Sample
from unspool.evaluation.tasks._release import records
from unspool.evaluation.tasks.long_icl import facts, select

TWIN = (
    "A generated twin: unspool evaluate make --task long-icl/modules --length 3 --n 100 "
    "--out data.jsonl"
)
_TABLES = {
    "banking77": ("banking77_infer.py", "all_labels"),
    "goemotion": ("goemotion_infer.py", "all_labels"),
    "discovery": ("discovery_infer.py", "LABELS"),
}


def items(name: str, split: str, path: str | None) -> list[dict[str, Any]]:
    """The records of a split, each with its `label` as text (sets with one label an item).

    Raises:
        MissingData: The file is not there.
        InputError: A record lacks a field, or a label is a number without a name.
    """
    wanted = facts.release(name, "train" if split == "train" else "test")
    found: list[dict[str, Any]] = []
    names = label_names(name, path) if name in _TABLES else []
    for number, record in enumerate(records(wanted, path, twin=TWIN), 1):
        where = f"Record {number} of the {split} split of {name}"
        missing = [f for f in _fields(name) if f not in record]
        if missing:
            raise InputError(f"{where} lacks {', '.join(missing)}.")
        if name == "goemotion":
            if len(record["labels"]) != 1:
                continue
            record = {**record, "label": _named(record["labels"][0], names, where)}
        elif name in _TABLES:
            record = {**record, "label": _named(record["label"], names, where)}
        elif name == "tacred":
            record = {**record, "label": record["relation"]}
        found.append(record)
    if not found:
        raise InputError(f"The {split} split of {name} holds no usable item.")
    return found


def _fields(name: str) -> Sequence[str]:
    if name == "dialogre":
        return ("dialogue",)
    return tuple(facts.release(name, "test").schema)


def _named(label: Any, names: Sequence[str], where: str) -> str:
    if isinstance(label, str):
        return label
    if not isinstance(label, int) or not 0 <= label < len(names):
        raise InputError(
            f"{where}: the label {label!r} has no name. Put a file labels.json, a list of the "
            "names in their order, beside the data, or give a folder that also holds the scripts "
            "of the release."
        )
    return names[label]


def label_names(name: str, path: str | None) -> list[str]:
    """Names of numbered labels: from `labels.json`, or from a script of the release."""
    if path is None or not Path(path).is_dir():
        return []
    folder = Path(path)
    for file in (folder / name / "labels.json", folder / "labels.json"):
        if file.is_file():
            found = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(found, list) or not all(isinstance(n, str) for n in found):
                raise InputError(f"{file} must hold a list of names.")
            return found
    script, table = _TABLES[name]
    if (folder / script).is_file():
        return _table((folder / script).read_text(encoding="utf-8"), table)
    return []


def _table(source: str, table: str) -> list[str]:
    """A list of strings that a script assigns at its top."""
    try:
        for node in ast.parse(source).body:
            if isinstance(node, ast.Assign) and any(
                getattr(target, "id", "") == table for target in node.targets
            ):
                found = ast.literal_eval(node.value)
                return [str(name) for name in found]
    except (SyntaxError, ValueError) as error:
        raise InputError(f"The script holds no plain list {table}: {error}.") from error
    return []


def demonstrations(name: str, train: Sequence[Mapping[str, Any]], rounds: int) -> list[int]:
    """Places of the training items that the release shows in so many rounds."""
    labels = [str(item.get("label", "")) for item in train]
    if name == "tacred":
        return select.by_scan(labels, rounds, facts.TACRED_RELATIONS).items
    if name == "fewnerd":
        return list(range(min(facts.FEWNERD_SHOTS[rounds], len(train))))
    if name == "dialogre":
        return list(range(min(facts.DIALOGRE_ROWS[rounds], len(train))))
    return select.by_rounds(labels, rounds).items


def tests(name: str, test: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The test items of the release, in its order."""
    if name == "dialogre":
        return select.first_labels(test, facts.MOST_TESTS)
    labels = [str(item.get("label", "")) for item in test]
    if name == "tacred":
        places = select.at_most_each(labels, facts.TACRED_PER_RELATION, facts.TACRED_RELATIONS)
    elif name == "fewnerd":
        places = list(range(len(test)))
    else:
        places = select.by_rounds(labels, facts.DATASETS[name].test_rounds).items
    return [dict(test[place]) for place in places[: facts.MOST_TESTS]]


def read_predictions(name: str, path: Path) -> Iterator[Prediction]:
    """The JSON list that a script of the release writes, already post-processed.

    Few-NERD's holds predictions only; the right entities are those of
    `processed_data/fewnerd_test_1800.json` in a folder above.

    Raises:
        InputError: The file is no such list, a field is missing, or the right entities are not
            to be found.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path.name} is no JSON: {error}.") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path.name} must hold a list of objects, as the scripts write it.")
    if not rows:
        raise InputError(f"{path.name} holds no predictions.")
    if name == "fewnerd":
        yield from _entities(rows, path)
        return
    for number, row in enumerate(rows):
        missing = [f for f in ("label", "pred") if not isinstance(row.get(f), str)]
        if missing:
            raise InputError(f"{path.name}: entry {number + 1} lacks the text {missing[0]!r}.")
        sample = Sample(
            id=str(number), parts=Parts(), references=(row["label"],), meta={"extracted": True}
        )
        yield Prediction(sample, Response(text=row["pred"]))


def _entities(rows: Sequence[dict[str, Any]], path: Path) -> Iterator[Prediction]:
    name = "fewnerd_test_1800.json"
    places = [folder / "processed_data" / name for folder in path.resolve().parents]
    gold_file = next((p for p in [path.parent / name, *places] if p.is_file()), None)
    if gold_file is None:
        raise InputError(
            f"The predictions of fewnerd hold no right answers. Put the release's {name} beside "
            f"{path.name}, or keep it in processed_data/ of the checkout."
        )
    gold = json.loads(gold_file.read_text(encoding="utf-8"))
    if len(rows) > len(gold):
        raise InputError(f"{path.name} holds {len(rows)} predictions for {len(gold)} sentences.")
    for number, (row, item) in enumerate(zip(rows, gold, strict=False)):
        sample = Sample(
            id=str(number),
            parts=Parts(),
            references=("",),
            meta={"extracted": True, "said": row, "entities": item["entities"]},
        )
        yield Prediction(sample, Response(text=json.dumps(row, ensure_ascii=False)))
