"""Read the releases of i2b2 (n2c2) for tags: 2006, 2010, 2012 and 2014.

What: de-identification 2006 (`<ROOT>` with `<RECORD>` and `<PHI>` inside the text), concepts 2010
(`.txt` beside `.con`), events 2012 (`<ClinicalNarrativeTemporalAnnotation>`) and de-identification
2014 (`<deIdi2b2>`), the latter two with offsets in `<TAGS>`. Unlabelled files give records without
labels.
Source: Uzuner et al. (2007, 2011), Sun et al. (2013), Stubbs et al. (2015), for the tasks. Of 2012
only EVENTs are read, as in the fine-tuning of Li et al. (2022).
Differs from an XML reader: some released files are not well-formed (a bare & or quotation mark in
an attribute, a PHI that is opened twice), so the few elements that matter are looked for by
themselves; no entity is expanded and nothing is fetched.
Cost: linear in the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from unspool.errors import InputError
from unspool.models.long_encoder.tasks.annotated import Annotation, Notes, tagged, unescape
from unspool.models.long_encoder.tasks.examples import Example, split_words

_CONCEPT = re.compile(r'c="(.*)" (\d+):(\d+) (\d+):(\d+)\|\|t="([^"]*)"')
_ROOT = re.compile(r"<([A-Za-z]\w*)[\s>]")
_RECORD = re.compile(r"<RECORD\s")
_ID = re.compile(r'\s*ID="([^"]*)"\s*>')
_TEXT = re.compile(r"<TEXT>(.*?)</TEXT>", re.DOTALL)
_CDATA = re.compile(r"\s*<!\[CDATA\[(.*?)\]\]>", re.DOTALL)
_TAGS = re.compile(r"<TAGS>(.*?)</TAGS>|<TAGS\s*/>", re.DOTALL)
_PHI = re.compile(r'<PHI\s+TYPE="([^"]*)"\s*>|</PHI>')
_TAG = re.compile(r"<([A-Za-z]\w*)(?=\s)")
_NAME = re.compile(r'\s*([A-Za-z][\w:.-]*)\s*=\s*"')
_CLOSE = re.compile(r'"(?=\s+[A-Za-z][\w:.-]*\s*=\s*"|\s*/?>)')

_KINDS = {  # root: the element that is read (None: any), and the attribute with its label
    "ClinicalNarrativeTemporalAnnotation": ("EVENT", "type"),
    "deIdi2b2": (None, "TYPE"),
}

Reader = Callable[[Path], str]


def read_xml(path: Path, read: Reader, notes: Notes) -> Iterator[Example]:
    """Records of an XML file of 2006, 2012 or 2014.

    Raises:
        InputError: It is none of these, or is damaged.
    """
    whole = read(path)
    root = _ROOT.search(whole)
    name = root.group(1) if root else "nothing"
    if name == "ROOT":
        yield from _records(path, whole, notes)
        return
    if name not in _KINDS:
        raise InputError(
            f"{path} begins with <{name}>. Read are i2b2's <ROOT> (2006), "
            "<ClinicalNarrativeTemporalAnnotation> (2012) and <deIdi2b2> (2014)."
        )
    text = _TEXT.search(whole)
    if text is None:
        raise InputError(f"{path} has no <TEXT>…</TEXT>.")
    inner = _CDATA.match(text.group(1))
    record = inner.group(1) if inner else unescape(text.group(1))
    if not record.strip():
        raise InputError(f"{path}: the text is empty.")
    element, attribute = _KINDS[name]
    listed = _TAGS.search(whole, text.end())
    if listed is None and "<TAGS" in whole[text.end() :]:
        raise InputError(f"{path}: <TAGS> is not closed, so the file is cut short.")
    found = None
    if listed is not None:
        found = list(_annotations(listed.group(1) or "", element, attribute, path))
    yield tagged(path.stem, record, split_words(record), found, str(path), notes)


def _annotations(
    body: str, element: str | None, attribute: str, path: Path
) -> Iterator[Annotation]:
    for name, values in _elements(body):
        if element is not None and name != element:
            continue
        where = f"{path}: <{name} id={values.get('id', '?')}>"
        try:
            start, end = int(values["start"]), int(values["end"])
            label, quote = values[attribute], values["text"]
        except KeyError as error:
            raise InputError(f"{where} has no attribute {error}.") from None
        except ValueError:
            raise InputError(
                f"{where}: start and end must be numbers, got {values['start']!r} and "
                f"{values['end']!r}."
            ) from None
        yield Annotation(start, end, label, quote)


def _elements(body: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Elements and their attributes; a quotation mark ends a value only where one can end."""
    at = 0
    while (tag := _TAG.search(body, at)) is not None:
        at = tag.end()
        values: dict[str, str] = {}
        while (named := _NAME.match(body, at)) is not None:
            close = _CLOSE.search(body, named.end())
            if close is None:  # of this element, and of all behind it
                yield tag.group(1), values
                return
            values[named.group(1)] = unescape(body[named.end() : close.start()])
            at = close.end()
        yield tag.group(1), values


def _records(path: Path, whole: str, notes: Notes) -> Iterator[Example]:
    """Records of 2006. A file without a single PHI is taken for one without labels."""
    known = _PHI.search(whole) is not None
    begins = [match.end() for match in _RECORD.finditer(whole)]
    if not begins:
        raise InputError(f"{path} holds no <RECORD>.")
    for begin, after in zip(begins, [*begins[1:], len(whole)], strict=True):
        name = _ID.match(whole, begin)
        where = f"{path}, record {name.group(1) if name else '?'}"
        text = _TEXT.search(whole, begin, after)
        if name is None or text is None or whole.find("</RECORD>", text.end(), after) < 0:
            raise InputError(f"{where} is not whole: it needs an ID, <TEXT>…</TEXT>, </RECORD>.")
        plain, found = _phi(text.group(1), where, notes)
        if not plain.strip():
            raise InputError(f"{where}: the text is empty.")
        yield tagged(
            name.group(1), plain, split_words(plain), found if known else None, where, notes
        )


def _phi(marked: str, where: str, notes: Notes) -> tuple[str, list[Annotation]]:
    """A text without its marks, and what they mark."""
    marks = list(_PHI.finditer(marked))
    parts: list[str] = []
    found: list[Annotation] = []
    length = at = 0
    opened: tuple[int, str] | None = None
    for number, mark in enumerate(marks):
        parts.append(unescape(marked[at : mark.start()]))
        length, at = length + len(parts[-1]), mark.end()
        label = mark.group(1)
        if opened is None:
            if label is None:
                raise InputError(f"{where}: </PHI> closes nothing (character {mark.start():,}).")
            opened = length, label
            continue
        found.append(Annotation(*opened[:1], length, opened[1]))
        opened = None
        if label is not None:  # opened again: its end is missing, or was typed as a beginning
            notes.add("PHI marks that are opened inside another, which ends there", where)
            if number + 1 < len(marks) and marks[number + 1].group(1) is None:
                opened = length, label
    if opened is not None:
        raise InputError(f"{where}: a PHI {opened[1]} is not closed.")
    parts.append(unescape(marked[at:]))
    return "".join(parts), [each for each in found if each.end > each.start]


def pairs(folder: Path, concepts: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Texts and concepts of 2010 that belong together.

    Raises:
        InputError: A file of concepts has no text, or texts that differ.
    """
    texts: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob("*.txt")):
        texts.setdefault(file.stem, []).append(file)
    for file in concepts:
        fitting = texts.get(file.stem)
        if fitting is None:
            raise InputError(f"{file} has no text: {file.stem}.txt is nowhere under {folder}.")
        for other in fitting[1:]:
            if other.read_bytes() != fitting[0].read_bytes():
                raise InputError(
                    f"{file} has two texts that differ, {fitting[0]} and {other}. Give a folder "
                    "with one of them."
                )
        yield fitting[0], file


def read_2010(text_path: Path, concepts: Path, read: Reader, notes: Notes) -> Example:
    """A record of 2010: words are what blanks part; entities name line and word."""
    text = read(text_path)
    words: list[tuple[int, int]] = []
    at: dict[tuple[int, int], int] = {}
    start = 0
    for row, line in enumerate(text.split("\n"), 1):
        for number, match in enumerate(re.finditer(r"\S+", line)):
            at[row, number] = len(words)
            words.append((start + match.start(), start + match.end()))
        start += len(line) + 1
    found = []
    for number, line in enumerate(read(concepts).split("\n"), 1):
        if not line.strip():
            continue
        concept = _CONCEPT.fullmatch(line.strip())
        if not concept:
            raise InputError(f"{concepts}, line {number} is no concept of i2b2: {line!r}.")
        quote, row0, word0, row1, word1, label = concept.groups()
        first, last = at.get((int(row0), int(word0))), at.get((int(row1), int(word1)))
        if first is None or last is None or last < first:
            raise InputError(f"{concepts}, line {number}: {text_path.name} has no such word.")
        found.append(Annotation(words[first][0], words[last][1], label, quote))
    return tagged(text_path.stem, text, words, found, str(concepts), notes)
