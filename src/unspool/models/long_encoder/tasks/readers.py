"""Read labelled records: JSONL, JSON, CSV, CoNLL, SQuAD, and the layouts of shared clinical tasks.

What: files and folders become examples of one task, with labels or, for prediction, without.
Source: CoNLL-2003 (a word a line, last column its tag, `-DOCSTART-` before a document); SQuAD 1.1
and 2.0; SNLI and MedNLI (`sentence1`, `sentence2`, `gold_label`); OpenI and MIMIC-CXR as tables
with the text in `TXT` and a 0/1 column a finding; releases of i2b2 (see `i2b2`) and emrQA (see
`emrqa`).
Differs from their readers: a CoNLL document is one record, not one record a sentence, since the
point of a long encoder is what stands elsewhere in the record.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unspool.errors import ConfigError, InputError, PathNotFound
from unspool.models.long_encoder.tasks.annotated import Notes
from unspool.models.long_encoder.tasks.emrqa import parts_of, read_emrqa
from unspool.models.long_encoder.tasks.examples import (
    Answer,
    Example,
    TaskName,
    joined,
    split_words,
    tags_of,
)
from unspool.models.long_encoder.tasks.i2b2 import pairs, read_2010, read_xml

CONLL = (".conll", ".bio", ".iob", ".iob2")
_TABLES = (".csv", ".tsv")
_LINES = (".jsonl", ".ndjson")

TEXT = ("text", "txt", "context", "premise", "sentence1", "report", "note")
SECOND = {"qa": ("question", "query"), "nli": ("hypothesis", "sentence2")}
LABEL = ("label", "labels", "gold_label", "class")


class Read(NamedTuple):
    """Examples of a file or folder."""

    examples: list[Example]
    skipped: int
    """Records without consensus (`gold_label` is `-`), which their makers leave out as well."""
    notes: tuple[str, ...] = ()
    """What was not read as it stands, a sentence a kind."""


def read_examples(
    task: TaskName,
    path: str | Path,
    *,
    label_fields: Sequence[str] = (),
    sentences: bool = False,
    part: str | None = None,
    paraphrases: bool = False,
) -> Read:
    """Records of a task.

    Args:
        task: ner, qa, classify or nli.
        path: A file, or a folder of CoNLL or i2b2 files.
        label_fields: classify: columns of 0 and 1, one a class, in place of a label.
        sentences: ner: blank lines of a CoNLL file end records, not only documents.
        part: emrQA: the one part to read, such as medication; None: all.
        paraphrases: emrQA: read every wording of a question, not only the first.

    Raises:
        PathNotFound: The path does not exist.
        ConfigError: The file has no such part.
        InputError: A record cannot be used; the message names file and line.
    """
    path = Path(path)
    if not path.exists():
        raise PathNotFound(f"There is no file or folder {str(path)!r}. Check the path.")
    skipped, notes, kind = 0, Notes(), path.suffix.lower()
    if part is not None and (task != "qa" or kind != ".json"):
        raise ConfigError(f"part is for emrQA's .json, not for {task} of {path.name}.")
    whole = _json(path) if kind == ".json" and path.is_file() else None
    parts = parts_of(whole) if task == "qa" else None
    if part is not None and parts is None:
        raise ConfigError(f"{path} is not in the form of emrQA, so it has no part {part!r}.")
    if path.is_dir():
        if task != "ner":
            raise InputError(f"{path} is a folder; {task} reads one file.")
        found = list(_folder(path, sentences, notes))
    elif task == "ner" and kind in CONLL:
        found = list(_conll(path, path.stem, sentences))
    elif task == "ner" and kind == ".xml":
        found = list(read_xml(path, _text, notes))
    elif kind == ".txt" and task in ("ner", "classify"):
        found = [_plain(task, path)]
    elif parts is not None:
        found = list(read_emrqa(parts, path, notes, part=part, paraphrases=paraphrases))
    else:
        rows = list(_rows(path, task, whole))
        kept = [row for row in rows if row[1].get("gold_label") != "-"]
        skipped = len(rows) - len(kept)
        found = []
        for where, row in kept:
            try:
                found.append(_example(task, row, where, label_fields))
            except InputError as error:
                raise InputError(f"{where}: {error}") from None
    if not found:
        left = "".join(f" {line}." for line in notes.lines())
        raise InputError(f"{path} holds no records.{left}")
    return Read(found, skipped, notes.lines())


def _plain(task: TaskName, path: Path) -> Example:
    try:  # as it stands, so that offsets hold in the file
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error}.") from error
    if not text.strip():
        raise InputError(f"{path} is empty.")
    return Example(id=path.stem, text=text, words=split_words(text) if task == "ner" else ())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error}.") from error


def _json(path: Path) -> Any:
    """What a .json file holds; None: an object a line, as data sets are often kept."""
    try:
        return json.loads(_text(path))
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            return None
        raise InputError(f"{path} is not JSON: {error}.") from error


def _rows(path: Path, task: TaskName, whole: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Records of a file, each with the place that a message names."""
    kind = path.suffix.lower()
    if kind == ".json" and whole is not None:
        yield from _whole(path, task, whole)
        return
    if kind not in (*_TABLES, *_LINES, ".json"):
        layouts = ".jsonl, .json, .csv, .tsv"
        if task == "ner":
            layouts = f"{', '.join(CONLL)}, .jsonl, .json, .xml (i2b2)"
        raise InputError(f"{path}: {task} reads {layouts}, not {kind or 'a file without suffix'}.")
    text = _text(path)
    if kind in _TABLES:
        csv.field_size_limit(2**31 - 1)  # a clinical record is longer than the usual limit
        table = csv.DictReader(io.StringIO(text, newline=""), delimiter=",\t"[kind == ".tsv"])
        for row in table:
            if None in row or None in row.values():
                raise InputError(f"{path}, line {table.line_num}: not as many cells as columns.")
            yield f"{path}, line {table.line_num}", row
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{path}, line {number}", _object(line, f"{path}, line {number}")


def _whole(path: Path, task: TaskName, whole: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Records of a .json file that is one value."""
    if task == "qa" and isinstance(whole, dict) and isinstance(whole.get("data"), list):
        yield from _squad(whole["data"], path)
        return
    rows = whole.get("data") if isinstance(whole, dict) else whole
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} is neither a list of records nor an object with one as 'data'.")
    for number, row in enumerate(rows, 1):
        yield f"{path}, record {number}", row


def _object(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where} is not JSON: {error}.") from error
    if not isinstance(row, dict):
        raise InputError(f"{where} is not an object.")
    return row


def _squad(data: Sequence[Any], path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        for article in data:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    known = asked.get("answers")
                    if asked.get("is_impossible"):
                        known = []
                    row = {"id": asked["id"], "context": paragraph["context"], "answers": known}
                    yield f"{path}, question {asked['id']}", row | {"question": asked["question"]}
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is not in the form of SQuAD: {error} is not there.") from error


def _example(
    task: TaskName, row: Mapping[str, Any], where: str, label_fields: Sequence[str]
) -> Example:
    # a table that pandas wrote has its index in a column without a name
    name = str(row.get("id") or row.get("pairID") or row.get("") or where.rsplit(", ", 1)[-1])
    if task == "ner":
        return _tagged(row, name)
    text = _string(row, TEXT)
    if task == "classify":
        return Example(id=name, text=text, labels=_classes(row, label_fields))
    second = _string(row, SECOND[task])
    if task == "nli":
        known = _classes(row, ())
        if known is not None and len(known) != 1:
            raise InputError(f"A pair has one label, this has {len(known)}.")
        return Example(id=name, text=text, second=second, labels=known)
    given = row.get("answers", row.get("answer"))
    return Example(
        id=name, text=text, second=second, answers=None if given is None else _answers(given)
    )


def _string(row: Mapping[str, Any], names: Sequence[str]) -> str:
    spelled = {str(name).lower(): name for name in row}
    for name in names:
        if name in spelled:
            value = row[spelled[name]]
            if not isinstance(value, str):
                raise InputError(f"{name} must be a text, got {type(value).__name__}.")
            if not value.strip():
                raise InputError(f"{name} is empty.")
            return value
    raise InputError(f"no field {' or '.join(names)}; there are {', '.join(map(str, row))}.")


def _classes(row: Mapping[str, Any], fields: Sequence[str]) -> tuple[str, ...] | None:
    if fields:
        found = []
        for field in fields:
            value = str(row.get(field, "")).strip().lower()
            if value not in ("0", "1", "0.0", "1.0", "true", "false"):
                raise InputError(f"column {field!r} must hold 0 or 1, got {row.get(field)!r}.")
            if value in ("1", "1.0", "true"):
                found.append(field)
        return tuple(found)
    for name in LABEL:
        if row.get(name) is not None:
            value = row[name]
            several = value if isinstance(value, list) else [value]
            if not all(isinstance(each, str | int | bool) for each in several):
                raise InputError(f"{name} must be a label or a list of labels, got {value!r}.")
            return tuple(str(each) for each in several)
    return None


def _answers(given: Any) -> tuple[Answer, ...]:
    try:
        if isinstance(given, Mapping):  # as the data sets of Hugging Face have it
            pairs = list(zip(given["answer_start"], given["text"], strict=True))
        else:
            pairs = [(each["answer_start"], each["text"]) for each in given]
        return tuple(Answer(int(start), str(text)) for start, text in pairs)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"answers need text and answer_start, got {given!r}.") from error


def _tagged(row: Mapping[str, Any], name: str) -> Example:
    words = row.get("words", row.get("tokens"))
    if words is not None:
        if not isinstance(words, list) or not all(isinstance(w, str) and w for w in words):
            raise InputError("words must be a list of texts, none of them empty.")
        text, spans = joined(words)
        tags = next((row[k] for k in ("tags", "ner_tags", "labels") if k in row), None)
        if tags is not None and not (
            isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)
        ):
            raise InputError("tags must be a list of names such as B-drug, I-drug and O.")
        return Example(id=name, text=text, words=spans, labels=None if tags is None else (*tags,))
    text = _string(row, TEXT)
    spans = split_words(text)
    entities = row.get("entities")
    if entities is None:
        return Example(id=name, text=text, words=spans)
    try:
        known = [(int(e["start"]), int(e["end"]), str(e["label"])) for e in entities]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"entities need start, end and label, got {entities!r}.") from error
    return Example(id=name, text=text, words=spans, labels=tags_of(spans, known, name))


def _folder(folder: Path, sentences: bool, notes: Notes) -> Iterator[Example]:
    concepts = sorted(folder.rglob("*.con"))
    if concepts:
        for text, file in pairs(folder, concepts):
            yield read_2010(text, file, _text, notes)
        return
    marked = sorted(folder.rglob("*.xml"))
    seen: dict[str, Path] = {}
    for file in marked:
        if file.stem in seen:
            raise InputError(
                f"{seen[file.stem]} and {file} have the same name, so a record would be read "
                "twice. Give a folder with one of them."
            )
        seen[file.stem] = file
        yield from read_xml(file, _text, notes)
    if marked:
        return
    files = [f for f in sorted(folder.rglob("*")) if f.suffix.lower() in CONLL]
    if not files:
        raise InputError(f"{folder} holds neither {', '.join(CONLL)} nor .con or .xml files.")
    for file in files:
        yield from _conll(file, file.relative_to(folder).with_suffix("").as_posix(), sentences)


def _conll(path: Path, name: str, sentences: bool) -> Iterator[Example]:
    words: list[str] = []
    tags: list[str] = []
    number = 0

    def made() -> Example:
        text, spans = joined(words)
        known = (*tags,) if tags else None
        return Example(id=f"{name}:{number}", text=text, words=spans, labels=known)

    width = 0
    for at, line in enumerate(_text(path).split("\n"), 1):
        cells = line.split()
        ends = not cells and sentences
        if (ends or (cells and cells[0] == "-DOCSTART-")) and words:
            yield made()
            words, tags, number = [], [], number + 1
        if not cells or cells[0] == "-DOCSTART-":
            continue
        width = width or len(cells)
        if len(cells) != width:
            raise InputError(f"{path}, line {at}: {len(cells)} columns, and {width} before.")
        words.append(cells[0])
        if width > 1:
            tags.append(cells[-1])
    if words:
        yield made()
