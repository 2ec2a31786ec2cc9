"""Read emrQA as it is released: questions over whole notes, answers given by lines of evidence.

What: `data.json`, which holds the parts medication, relations, risk, smoking and obesity, or the
file of one part, becomes one record a question, whose answers are its lines of evidence.
Source: Pampari et al. (2018), "emrQA"; that the line of evidence is the answer, and that answers
of several pieces and lines of 20 words or more are left out, as in Yue et al. (2020), "Clinical
Reading Comprehension", whose files Li et al. (2022) train on.
Differs from theirs: notes are not rewritten, so that offsets hold in them; a line that is not in
the note word for word is left out, not shortened until it fits; of a question's paraphrases the
first is read, unless all are asked for; nothing is sampled. Everything left out is counted.
Cost: one search in the note for each line of evidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unspool.errors import ConfigError, InputError
from unspool.models.long_encoder.tasks.annotated import Notes, place
from unspool.models.long_encoder.tasks.examples import Answer, Example

_LONGEST = 20
"""Words: a longer line of evidence is no answer."""


class _Note(NamedTuple):
    """A note, and what was found in it before."""

    text: str
    lines: tuple[int, ...]
    """Character at which each line begins, if the file has lines."""
    found: dict[tuple[str, Any], Answer | str]
    """By evidence and its place: an answer, or why there is none."""


def parts_of(whole: Any) -> list[Mapping[str, Any]] | None:
    """The parts of emrQA in a JSON file; None: the file is something else."""
    if not isinstance(whole, Mapping):
        return None
    parts = whole.get("data") if "data" in whole else [whole]
    if not isinstance(parts, list):
        return None
    for part in parts:
        notes = part.get("paragraphs") if isinstance(part, Mapping) else None
        if not isinstance(notes, list):
            return None
        for note in notes:
            if not isinstance(note, Mapping):
                return None
            asked = note.get("qas")
            if isinstance(asked, list) and asked and isinstance(asked[0], Mapping):
                return parts if isinstance(asked[0].get("question"), list) else None
    return None


def read_emrqa(
    parts: Sequence[Mapping[str, Any]],
    path: Path,
    notes: Notes,
    *,
    part: str | None = None,
    paraphrases: bool = False,
) -> Iterator[Example]:
    """Records of emrQA.

    Args:
        parts: As `parts_of` gives them.
        path: Of the file, for messages.
        notes: Gets what is left out.
        part: Name of the one part to read, or its beginning; None: all.
        paraphrases: Read every wording of a question, not only the first.

    Raises:
        ConfigError: There is no such part.
        InputError: The file is damaged.
    """
    titles = [str(each.get("title", "")) for each in parts]
    if part is not None and not any(title.startswith(part) for title in titles):
        raise ConfigError(f"{path} has no part {part!r}. It has {', '.join(titles) or 'none'}.")
    for title, each in zip(titles, parts, strict=True):
        if part is not None and not title.startswith(part):
            continue
        for number, given in enumerate(each["paragraphs"], 1):
            where = f"{path}, {title or 'part'}, note {given.get('note_id', number)}"
            try:
                yield from _questions(title, number, given, where, notes, paraphrases)
            except (KeyError, TypeError, AttributeError) as error:
                raise InputError(f"{where} is not in the form of emrQA: {error}.") from error


def _questions(
    title: str,
    number: int,
    given: Mapping[str, Any],
    where: str,
    notes: Notes,
    paraphrases: bool,
) -> Iterator[Example]:
    note = _note(given["context"])
    if not note.text.strip():
        raise InputError(f"{where}: the note is empty.")
    name = f"{title}:{given.get('note_id', number)}"
    for index, asked in enumerate(given["qas"], 1):
        wordings = [text for text in dict.fromkeys(asked["question"]) if text.strip()]
        if not wordings:
            notes.add("questions without words, left out", where)
            continue
        answers: list[Answer] = []
        for answer in asked["answers"]:
            found = _answer(note, answer, title)
            if isinstance(found, str):
                notes.add(found, where)
            elif found not in answers:
                answers.append(found)
        if not answers:
            notes.add("questions without an answer that is left, left out", where)
            continue
        if len(wordings) > 1 and not paraphrases:
            notes.add("other wordings of questions, not read", where, len(wordings) - 1)
            wordings = wordings[:1]
        for again, wording in enumerate(wordings, 1):
            yield Example(
                id=f"{name}:{index}" + (f":{again}" if paraphrases else ""),
                text=note.text,
                second=wording,
                answers=tuple(answers),
            )


def _note(context: Any) -> _Note:
    """A note from its text or its lines, which have their line feeds or have lost them."""
    if isinstance(context, str):
        context = context.splitlines(keepends=True)
    if not all(isinstance(line, str) for line in context):
        raise TypeError("context must be a text or a list of lines")
    between = "" if all(line.endswith("\n") for line in context[:-1]) else "\n"
    starts, at = [], 0
    for line in context:
        starts.append(at)
        at += len(line) + len(between)
    return _Note(between.join(context), tuple(starts), {})


def _answer(note: _Note, answer: Mapping[str, Any], title: str) -> Answer | str:
    evidence, start = answer.get("evidence"), answer.get("evidence_start")
    if isinstance(evidence, list) or answer.get("answer_entity_type") == "complex":
        return "answers of several pieces, left out"
    if not isinstance(evidence, str) or not evidence.strip():
        return "answers without evidence (classes of notes), left out"
    key = evidence, start if isinstance(start, int) else None
    if key not in note.found:
        note.found[key] = _find(note, *key, title)
    return note.found[key]


def _find(note: _Note, evidence: str, start: int | None, title: str) -> Answer | str:
    if len(evidence.split()) >= _LONGEST:
        return f"lines of evidence of {_LONGEST} words or more, left out"
    near = start or 0
    if start is not None and not title.startswith("risk"):  # lines there, characters in risk
        near = note.lines[start - 1] if 1 <= start <= len(note.lines) else 0
    # lines of an annotation that spans several were joined by commas
    span = place(note.text, evidence.replace("\n,", "\n"), near)
    if span is None:
        return "lines of evidence that are not in the note, left out"
    return Answer(span[0], note.text[slice(*span)])
