"""What tasks are made of: a text, what is asked of it, and what is known of it."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from unspool.errors import ConfigError, InputError

TaskName = Literal["ner", "qa", "classify", "nli"]
"""Tags of words; answers as spans; classes of texts; classes of pairs of texts."""

OUTSIDE = "O"
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Answer:
    """A piece of a text, as data sets give it: offsets are characters, not bytes."""

    start: int
    text: str

    @property
    def end(self) -> int:
        """Character after the last one."""
        return self.start + len(self.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One record of any task."""

    id: str
    text: str
    """The record; for inference the premise."""
    second: str = ""
    """qa: the question. nli: the hypothesis."""
    words: tuple[tuple[int, int], ...] = ()
    """ner: character offsets of the words that get tags."""
    labels: tuple[str, ...] | None = None
    """ner: a tag a word. classify: the classes, one or several. nli: one. None: not known."""
    answers: tuple[Answer, ...] | None = None
    """qa: answers that are right; none of them: the text has no answer. None: not known."""

    def __post_init__(self) -> None:
        if self.words and self.labels is not None and len(self.words) != len(self.labels):
            raise InputError(
                f"Record {self.id!r} has {len(self.words):,} words and {len(self.labels):,} tags."
            )
        for answer in self.answers or ():
            if self.text[answer.start : answer.end] != answer.text:
                found = self.text[answer.start : answer.end]
                raise InputError(
                    f"Record {self.id!r}: the answer {answer.text!r} is said to begin at character "
                    f"{answer.start:,}, where the text has {found!r}."
                )


def check_task(task: str) -> TaskName:
    """The name of a task, or an error that lists them."""
    for name in get_args(TaskName):
        if task == name:
            found: TaskName = name
            return found
    raise ConfigError(f"There is no task {task!r}. Known: {', '.join(get_args(TaskName))}.")


def split_words(text: str) -> tuple[tuple[int, int], ...]:
    """Character offsets of words and single marks."""
    return tuple(match.span() for match in _WORD.finditer(text))


def joined(words: Sequence[str]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Words with blanks between them, and where each one stands."""
    spans, at = [], 0
    for word in words:
        spans.append((at, at + len(word)))
        at += len(word) + 1
    return " ".join(words), tuple(spans)


def tags_of(
    words: Sequence[tuple[int, int]], entities: Iterable[tuple[int, int, str]], where: str
) -> tuple[str, ...]:
    """Tags B-, I- and O of words, from entities given by characters.

    A word that an entity touches belongs to it whole.

    Args:
        words: Characters of the words, in order and disjoint.
        entities: Characters and type of each.
        where: The record, for messages.

    Raises:
        InputError: An entity touches no word, or shares one with another entity.
    """
    tags = [OUTSIDE] * len(words)
    starts, ends = [first for first, _ in words], [last for _, last in words]
    for start, end, label in sorted(entities):
        touched = range(bisect_right(ends, start), bisect_left(starts, end))
        if not touched:
            raise InputError(f"Record {where!r}: no word lies in characters {start:,} to {end:,}.")
        for i in touched:
            if tags[i] != OUTSIDE:
                raise InputError(
                    f"Record {where!r}: two entities share the word at character {words[i][0]:,}. "
                    "Nested entities need a model for each level."
                )
            tags[i] = f"{'B' if i == touched[0] else 'I'}-{label}"
    return tuple(tags)


def to_bytes(text: str, spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """UTF-8 byte offsets of spans given by characters."""
    if text.isascii():
        return list(spans)
    at = [0]
    for character in text:
        at.append(at[-1] + len(character.encode("utf-8", "surrogatepass")))
    return [(at[start], at[end]) for start, end in spans]
