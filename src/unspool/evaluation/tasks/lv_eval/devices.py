"""LV-Eval's devices against false results, for any text: replacement, confusing facts, mixing.

What: `replace` makes memorised knowledge wrong, `confuse` states like facts of other subjects,
`mixup` hides the supporting text among distractors, `pressure_test` sweeps one fact over a book.
Source: Yuan et al. (2024), arXiv 2402.05136, section 3.2 and appendix on annotation.
Differs from the paper: there, annotators choose what is replaced and GPT-4 writes the confusing
facts, which people repair. Here the mapping is given or drawn and the facts come from triples. A
replaced phrase must leave no trace and lead to none; texts that break this are refused.
Cost: linear in the text.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from unspool.errors import ConfigError, InputError

_HEADING = "Passage {}\n"
_WORD = re.compile(r"\S+")
_CJK = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\u3040-\u30ff\uac00-\ud7af]")


class Replaced(NamedTuple):
    """The three texts after replacement."""

    document: str
    question: str
    answer: str
    places: int
    """How many were changed, in all three."""


def replace(
    document: str,
    question: str,
    answer: str,
    mapping: Mapping[str, str],
    *,
    inflections: bool = False,
) -> Replaced:
    """Replace phrases in document, question and answer at once, or refuse.

    Whole words are replaced, longest phrase first, each place once; Chinese has no word limits.
    Every phrase must be in the document and in the question or the answer, and no phrase may be
    left or come back through a replacement.

    Args:
        document: The supporting text.
        question: About it.
        answer: To it.
        mapping: Phrase to what replaces it; they may share no word (in Chinese, no character).
        inflections: Also replace a phrase that an English plural or third-person ending follows,
            and keep the ending.

    Raises:
        ConfigError: A replacement shares a word with its phrase, or contains another phrase.
        InputError: A phrase is missing; the message names phrase and text.
    """
    _check(mapping)
    texts = {"document": document, "question": question, "answer": answer}
    if not mapping:
        return Replaced(document, question, answer, 0)
    for phrase in mapping:
        alone = _pattern([phrase], inflections)
        within = {name: bool(alone.search(text)) for name, text in texts.items()}
        if not within["document"]:
            raise InputError(
                f"The phrase {phrase!r} is not in the document, so nothing is replaced."
            )
        if not within["question"] and not within["answer"]:
            raise InputError(
                f"The phrase {phrase!r} is in neither question nor answer: replacing it in the "
                "document alone changes nothing that is asked."
            )
    pattern = _pattern(sorted(mapping, key=len, reverse=True), inflections)
    count = 0

    def put(match: re.Match[str]) -> str:
        nonlocal count
        count += 1
        return mapping[match["phrase"]] + (match["ending"] or "")

    made = {name: pattern.sub(put, text) for name, text in texts.items()}
    for name, text in made.items():
        left = pattern.search(text)
        if left:
            raise InputError(f"The phrase {left['phrase']!r} is still in the {name} afterwards.")
    return Replaced(made["document"], made["question"], made["answer"], count)


def _check(mapping: Mapping[str, str]) -> None:
    for phrase, new in mapping.items():
        if not phrase.strip() or not new.strip():
            raise ConfigError(f"Phrases and replacements hold text, got {phrase!r}: {new!r}.")
        shared = _units(phrase) & _units(new)
        if shared:
            raise ConfigError(
                f"{new!r} shares {sorted(shared)[0]!r} with {phrase!r}, so the old answer would "
                "still match in part. Choose a replacement without it."
            )


def _units(text: str) -> set[str]:
    """Words, and every Chinese character by itself."""
    return {*_CJK.findall(text), *re.findall(r"\w+", _CJK.sub(" ", text.lower()))}


def _pattern(phrases: Sequence[str], inflections: bool) -> re.Pattern[str]:
    """Any of the phrases as whole words."""
    parts = []
    for phrase in phrases:
        before = "" if _CJK.match(phrase[0]) or not phrase[0].isalnum() else r"(?<![^\W_])"
        parts.append(before + re.escape(phrase))
    ending = r"(?P<ending>es|s)?" if inflections else r"(?P<ending>)"
    # A word limit after letters of an alphabet only; in Chinese the next character is no part.
    after = r"(?:(?<=[\u3400-\u9fff\u3040-\u30ff\uac00-\ud7af])|(?![^\W_])|(?<![^\W_]))"
    return re.compile(f"(?P<phrase>{'|'.join(parts)}){ending}{after}")


@dataclass(frozen=True, slots=True)
class Fact:
    """A subject, a relation and an object, with the sentences that state and ask it."""

    subject: str
    relation: str
    object: str
    statement: str = "The {relation} of {subject} is {object}."
    question: str = "What is the {relation} of {subject}?"

    def __str__(self) -> str:
        return self.statement.format(
            relation=self.relation, subject=self.subject, object=self.object
        )

    @property
    def asked(self) -> str:
        """The question whose answer is the object."""
        return self.question.format(relation=self.relation, subject=self.subject)


def confuse(
    fact: Fact, n: int, *, subjects: Sequence[str], objects: Sequence[str], seed: int = 0
) -> list[Fact]:
    """`n` facts with the same relation, other subjects and other objects.

    Raises:
        InputError: Too few subjects or objects differ from the fact's, or one of the objects
            holds the right answer.
    """
    others = sorted({s for s in subjects if s != fact.subject})
    wrong = sorted({o for o in objects if o != fact.object})
    holding = [o for o in wrong if fact.object.lower() in o.lower()]
    if holding:
        raise InputError(
            f"The confusing object {holding[0]!r} holds the right answer {fact.object!r}."
        )
    if len(others) < n or len(wrong) < n:
        raise InputError(
            f"{n} confusing facts take as many other subjects and objects, got {len(others)} and "
            f"{len(wrong)}."
        )
    draw = random.Random(f"confuse/{seed}/{fact}")
    return [
        Fact(subject, fact.relation, wrong_object, fact.statement, fact.question)
        for subject, wrong_object in zip(draw.sample(others, n), draw.sample(wrong, n), strict=True)
    ]


class Mixed(NamedTuple):
    """A context and where its supporting text stands."""

    context: str
    depth: float
    """Place of the supporting passage among the passages, 0 to 1."""
    passages: int
    length: int
    """Words, or characters, of the context."""


def mixup(
    support: str,
    distractors: Sequence[str],
    level: int,
    unit: str = "words",
    *,
    depth: float | int | None = None,
    insert: Sequence[str] = (),
    seed: int | str = 0,
) -> Mixed:
    """Hide a text among distractors until the level is reached.

    Passages are numbered. The last distractor is taken only as far as it fits, so that the length
    is within 1% below the level.

    Args:
        support: The text that holds the answer.
        distractors: Texts that do not; taken in drawn order.
        level: Most words or characters of the context.
        unit: `words`, or `chars` for Chinese.
        depth: Place of the support among the passages; None: drawn.
        insert: Sentences put into distractors at drawn places: confusing facts.
        seed: Of order and places.

    Raises:
        InputError: The support is longer than the level, or the distractors are too short for it.
    """
    count = _counter(unit)
    draw = random.Random(f"mixup/{seed}")
    order = list(distractors)
    draw.shuffle(order)

    def overhead(passage: int) -> int:
        return count(_HEADING.format(passage)) + count("\n\n")

    # A sentence that is put in may need a blank on either side.
    room = level - count(support) - overhead(1) - sum(count(s) + count("  ") for s in insert)
    if room < 0:
        raise InputError(
            f"The supporting text and its company take more than the level of {level} {unit}. "
            "Choose a longer level."
        )
    taken: list[str] = []
    for text in order:
        free = room - overhead(len(taken) + 2)
        if free < 1:
            break
        taken.append(text.strip() if count(text.strip()) <= free else _first(text, free, unit))
        room = free - count(taken[-1])
    if room > max(overhead(len(taken) + 2), 0.01 * level):
        raise InputError(
            f"The distractors are {room} {unit} short of the level of {level}. Give more of them, "
            "or choose a shorter level."
        )
    if insert and not taken:
        raise InputError("There is no distractor to put confusing facts into.")
    for sentence in insert:
        place = draw.randrange(len(taken))
        taken[place] = _put(taken[place], sentence, draw)
    place = draw.randrange(len(taken) + 1) if depth is None else round(depth * len(taken))
    taken.insert(place, support)
    parts = [_HEADING.format(i) + text.strip() for i, text in enumerate(taken, 1)]
    context = "\n\n".join(parts)
    return Mixed(context, place / max(1, len(taken) - 1), len(taken), count(context))


def pressure_test(
    fact: Fact | str,
    confusers: Sequence[Fact | str],
    book: str,
    levels: Sequence[int],
    *,
    depths: int = 200,
    unit: str = "words",
    seed: int = 0,
) -> dict[int, list[Mixed]]:
    """One fact at evenly spread depths of a book's beginning, with confusing facts elsewhere.

    Returns:
        For each level, `depths` contexts; the first has the fact at the start, the last at the end.

    Raises:
        InputError: The book is shorter than a level.
    """
    if depths < 1:
        raise ConfigError(f"depths must be >= 1, got {depths}.")
    return {
        level: [
            place_fact(fact, confusers, book, level, i / max(1, depths - 1), unit, f"{seed}/{i}")
            for i in range(depths)
        ]
        for level in levels
    }


def place_fact(
    fact: Fact | str,
    confusers: Sequence[Fact | str],
    book: str,
    level: int,
    depth: float | int,
    unit: str = "words",
    seed: int | str = 0,
) -> Mixed:
    """One context of `pressure_test`."""
    count = _counter(unit)
    draw = random.Random(f"pressure/{seed}")
    others = [str(c) for c in confusers]
    room = level - count(str(fact)) - sum(map(count, others))
    room -= count("  ") * (1 + len(others))  # blanks around them
    if room < 1 or count(book) < room:
        raise InputError(
            f"The book has {count(book)} {unit} and the level of {level} takes {room} beside the "
            "facts. Give a longer book, or choose another level."
        )
    sentences = _sentences(_first(book, room, unit))
    place = round(depth * len(sentences))
    # Drawn places refer to the book without the facts, so that the fact keeps its depth.
    inserts = sorted((draw.randint(0, len(sentences)), i) for i in range(len(others)))
    out = ""
    for index in range(len(sentences) + 1):
        here = [others[i] for at, i in inserts if at == index] + [str(fact)] * (index == place)
        for sentence in here:
            out = _joined(out, sentence, "")
        if index < len(sentences):
            out += sentences[index]
    context = out.strip()
    return Mixed(context, depth * 1.0, 1, count(context))


def _counter(unit: str) -> Callable[[str], int]:
    if unit not in ("words", "chars"):
        raise ConfigError(f"unit must be words or chars, got {unit!r}.")
    return len if unit == "chars" else _words


def _words(text: str) -> int:
    return len(text.split())


def _first(text: str, count: int, unit: str) -> str:
    """The first words or characters of a text, white space kept."""
    if unit == "chars":
        return text[:count]
    ends = [match.end() for match in islice(_WORD.finditer(text), count)]
    return text[: ends[-1]] if ends else ""


def _sentences(text: str) -> list[str]:
    from unspool.corpus.split import sentences

    data = text.encode("utf-8", "replace")
    return [data[a:b].decode() for a, b in sentences(text)]


def _put(text: str, sentence: str, draw: random.Random) -> str:
    """A sentence put between two others of a text, or around them."""
    pieces = _sentences(text)
    place = draw.randint(0, len(pieces))
    return _joined("".join(pieces[:place]), sentence, "".join(pieces[place:]))


def _joined(before: str, sentence: str, after: str) -> str:
    """A sentence between two texts, with blanks where they have none."""
    gap = " " if before and not before[-1].isspace() else ""
    return f"{before}{gap}{sentence} {after}"
