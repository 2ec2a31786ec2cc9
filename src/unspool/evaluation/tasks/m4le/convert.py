"""Any labelled short texts made into long tests of five abilities.

What: texts are pooled and numbered, one or several that matter stand among the others, and the
question asks for them by id (explicit) or by meaning (semantic). As many texts as fit fill each
length; where the text that matters stands cycles over the positions 0, 4, 9, 14, …
Source: Kwan et al. (2023), section 3.2 and appendix A; the data scripts of the release.
Differs from the released code: ids and every other draw come from the seed (there: ids from an
unseeded source); items are added until the length is full (there: a fixed number, tried again until
the total happens to lie in the bucket); too few texts is an error that names the largest length
(there: a loop); the continuation that semantic-single asks for is the second half of a text.
Cost: a few measurements of the prompt a sample.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, NamedTuple

from unspool.errors import ConfigError, InputError
from unspool.evaluation.spec import LengthLevel, Parts, Sample, Sizer
from unspool.evaluation.tasks._fit import Fitter
from unspool.evaluation.tasks.m4le.facts import ABILITIES
from unspool.evaluation.tasks.m4le.wording import WORDINGS, Wording

_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s*")  # noqa: RUF001 - Chinese ends of sentences
_MANY = 200
"""From so many texts on, positions are 0, 9, 19, … instead of 0, 4, 9, …"""
_SHARE = 4
"""A text longer than this share of a length is not put among others at it."""
_TRIES = 100


@dataclass(frozen=True, slots=True)
class Labelled:
    """One short text and its class."""

    text: str
    label: str


@dataclass(frozen=True, slots=True)
class _Item:
    id: str
    text: str
    label: str


class _Made(NamedTuple):
    """What a sample is made of: texts, question, answers, place of the text that matters, texts."""

    body: str
    question: str
    answers: tuple[str, ...]
    place: int | None
    items: int


def convert(
    records: Sequence[Mapping[str, Any]],
    ability: str,
    lengths: Sequence[int],
    n: int = 200,
    seed: int = 111,
    *,
    unit: str = "words",
    size: Sizer | None = None,
    language: str = "en",
    one_shot: bool = True,
    gold_items: int | None = None,
    text: str = "text",
    label: str = "label",
) -> list[Sample]:
    """Samples of one ability at several lengths.

    Args:
        records: Texts with labels, as mappings.
        ability: explicit-single, explicit-multiple, semantic-single, semantic-multiple or global.
        lengths: Buckets, in `unit`; a sample's prompt and answer together fill one.
        n: Samples of each length.
        seed: Of every draw; the same seed gives the same samples.
        unit: `words`, `chars` or `tokens`.
        size: Counts tokens; needed with `unit="tokens"`.
        language: `en` or `zh`, of the wording.
        one_shot: Put an answered example first.
        gold_items: Of the multiple abilities: how many texts are of the asked class; None leaves it
            to the draw, as in the release.
        text: Field of a record that holds the text.
        label: Field of a record that holds the class.

    Raises:
        ConfigError: An argument cannot work.
        InputError: A record lacks a field, or there is too little text for a length.
    """
    if size is None:
        if unit == "tokens":
            raise ConfigError("unit='tokens' needs size=, which counts the tokens of a text.")
        size = _words if unit == "words" else len
    pool = [_labelled(record, number, text, label) for number, record in enumerate(records, 1)]
    converter = Converter(ability, language, one_shot, gold_items)
    found: list[Sample] = []
    below = 0
    for length in sorted(lengths):
        level = LengthLevel(unit, length, lower=below)
        found += converter.samples(pool, level, n, seed, size)
        below = length
    return found


def _labelled(record: Mapping[str, Any], number: int, text: str, label: str) -> Labelled:
    for name in (text, label):
        if not isinstance(record.get(name), str) or not record[name].strip():
            raise InputError(f"Record {number} has no text in its field {name!r}.")
    return Labelled(record[text].strip(), record[label].strip())


def positions(items: int) -> list[int]:
    """Where the text that matters stands, in turn, among so many."""
    step = 10 if items >= _MANY else 5
    return [0, *range(step - 1, items, step)]


@dataclass(frozen=True, slots=True)
class Converter:
    """Makes the samples of one ability."""

    ability: str
    language: str = "en"
    one_shot: bool = True
    gold_items: int | None = None

    def __post_init__(self) -> None:
        if self.ability not in ABILITIES:
            raise ConfigError(f"An ability is {', '.join(ABILITIES)}, got {self.ability!r}.")
        if self.language not in WORDINGS:
            raise ConfigError(f"Wording is in {', '.join(WORDINGS)}, got {self.language!r}.")
        if self.gold_items is not None and self.gold_items < 1:
            raise ConfigError(f"gold_items must be >= 1, got {self.gold_items}.")

    @property
    def _words(self) -> Wording:
        return WORDINGS[self.language]

    def samples(
        self, pool: Sequence[Labelled], level: LengthLevel, n: int, seed: int, size: Sizer
    ) -> Iterator[Sample]:
        """The first `n` samples of a level; sample i does not depend on `n`.

        Raises:
            InputError: The texts do not fill the level, or are too long for it.
        """
        classes = sorted({each.label for each in pool})
        if len(classes) < 2 and self.ability != "semantic-single":
            raise InputError(f"Two classes are needed, and the texts have {len(classes)}.")
        usable = self._usable(pool, level, size)
        instruction = self._words.instruction[self.ability].format(classes=", ".join(classes))
        made = self._whole if self.ability == "global" else self._pooled
        for i, (made_of, head, seed_of) in enumerate(
            islice(made(usable, instruction, level, seed, size), n)
        ):
            body, question, answers, place, items = made_of
            yield Sample(
                id=f"{level.name}-{i}",
                parts=Parts(head, body, question),
                references=answers,
                level=level.name,
                depth=None if place is None or items < 2 else place / (items - 1),
                seed=seed_of,
                language=self.language,
                classes=tuple(classes),
                meta={"bucket": level.nominal, "items": items},
            )

    def _usable(self, pool: Sequence[Labelled], level: LengthLevel, size: Sizer) -> list[Labelled]:
        """Texts that can be part of a level: short ones, cut in two where halves are asked for."""
        once = list({each.text: each for each in reversed(pool)}.values())[::-1]
        if self.ability == "global":
            return once
        most = level.upper // _SHARE
        found = [each for each in once if size(each.text) <= most]
        if self.ability == "semantic-single":
            found = _distinct_halves(found)
        if len(found) < 4:
            raise InputError(
                f"Four texts of at most {most} {level.unit} are needed for a length of "
                f"{level.upper}, and there are {len(found)} of {len(pool)}. Choose a longer "
                f"length, or give shorter texts."
            )
        return found

    def _pooled(
        self, pool: Sequence[Labelled], instruction: str, level: LengthLevel, seed: int, size: Sizer
    ) -> Iterator[tuple[_Made, str, int]]:
        """Samples in which one text or several stand among others."""
        for i in count():
            draw = random.Random(f"{seed}:{self.ability}:{level.name}:{i}")
            for _ in range(_TRIES):
                example, rest = self._example(draw, pool)
                head = f"{instruction}\n{example}"
                made = self._among(draw, rest, head, level, i, size)
                if made is not None:
                    break
            else:
                raise InputError(
                    f"No draw of these texts reached {level.lower} of {level.upper} "
                    f"{level.unit} in {_TRIES} tries. Give shorter texts."
                )
            yield made, head, seed

    def _whole(
        self, pool: Sequence[Labelled], instruction: str, level: LengthLevel, seed: int, size: Sizer
    ) -> Iterator[tuple[_Made, str, int]]:
        """Samples of one text each, as it is, of those whose prompt lies in the level."""
        draw = random.Random(f"{seed}:{self.ability}:{level.name}")
        example, rest = self._example(draw, pool)
        head = f"{instruction}\n{example}"
        question = f"{self._words.ask[self.ability]}\n{self._words.cue}"
        found = False
        for each in draw.sample(rest, len(rest)):
            body = f"{each.text}\n"
            if level.lower < size(f"{head}{body}{question} {each.label}") <= level.upper:
                found = True
                yield _Made(body, question, (each.label,), None, 1), head, seed
        if not found:
            sizes = sorted(size(f"{head}{each.text}\n{question}") for each in pool)
            raise InputError(
                f"No text makes a prompt between {level.lower} and {level.upper} {level.unit}: "
                f"they take {sizes[0]} to {sizes[-1]}. Choose other lengths, or give other texts."
            )

    def _example(self, draw: random.Random, pool: Sequence[Labelled]) -> tuple[str, list[Labelled]]:
        """An answered example of the shortest texts there are, and the texts that are left."""
        if not self.one_shot:
            return "", list(pool)
        few = sorted(pool, key=lambda each: (len(each.text), each.text))
        few = few[: max(6, len(pool) // 20)]
        chosen = draw.sample(few, 1 if self.ability == "global" else 2)
        items = [_Item(_id(draw), each.text, each.label) for each in chosen]
        if self.ability == "semantic-single":
            text = self._continuation(items, 0)
            answer = items[0].id
        else:
            text = self._listed(items)
            answer = self._answer(items, 0, items[0].label)
        question = self._question(items, 0, items[0].label)
        shown = f"{text}{question} {answer}{self._words.stop}{self._words.joint}"
        return shown, [each for each in pool if each not in chosen]

    def _among(
        self,
        draw: random.Random,
        pool: Sequence[Labelled],
        head: str,
        level: LengthLevel,
        i: int,
        size: Sizer,
    ) -> _Made | None:
        """Texts that fill the level, those that matter among them; None if they leave too much."""
        items = [_Item(_id(draw), e.text, e.label) for e in draw.sample(list(pool), len(pool))]
        single = self.ability.endswith("single")
        longest = max((each.label for each in items), key=lambda each: (len(each), each))

        def place_of(k: int) -> int:
            turns = positions(k)
            return turns[i % len(turns)] if single else 0

        def total(k: int, label: str = longest) -> int:
            shown, place = items[:k], place_of(k)
            body = self._body(shown, place)
            answer = self._answer(shown, place, label)
            return size(f"{head}{body}{self._question(shown, place, label)} {answer}")

        k = Fitter(level.upper, low=2, most=len(items))(total)
        if k < 2:
            raise InputError(
                f"Two texts with their example do not fit {level.upper} {level.unit}: they take "
                f"{total(2)}. Choose a longer length, shorter texts, or no example."
            )
        if k == len(items):
            raise InputError(
                f"The {len(items)} texts fill {total(k)} {level.unit} at most, and "
                f"{level.upper} were asked for. Give more texts, or choose a shorter length."
            )
        while True:  # a class with more members than the longest label's takes a longer answer
            shown = self._arranged(draw, items, k)
            place = place_of(k)
            label = self._label(draw, shown)
            body, question = self._body(shown, place), self._question(shown, place, label)
            answer = self._answer(shown, place, label)
            if k == 2 or size(f"{head}{body}{question} {answer}") <= level.upper:
                break
            k -= 1
        if size(f"{head}{body}{question} {answer}") < level.lower:
            return None
        return _Made(body, question, (answer,), place if single else None, k)

    def _arranged(self, draw: random.Random, items: Sequence[_Item], k: int) -> list[_Item]:
        """The first `k`, or `k` of which exactly `gold_items` share a class."""
        if self.gold_items is None or not self.ability.endswith("multiple"):
            return list(items[:k])
        members: dict[str, list[_Item]] = {}
        for each in items:
            members.setdefault(each.label, []).append(each)
        enough = [name for name, held in members.items() if len(held) >= self.gold_items]
        others = {name: [e for e in items if e.label != name] for name in enough}
        able = [name for name in enough if len(others[name]) >= k - self.gold_items > 0]
        if not able:
            raise InputError(
                f"No class has {self.gold_items} texts beside {k - self.gold_items} of others. "
                f"Give more texts, or ask for fewer gold items."
            )
        name = draw.choice(able)
        chosen = members[name][: self.gold_items] + others[name][: k - self.gold_items]
        return draw.sample(chosen, k)

    def _label(self, draw: random.Random, shown: Sequence[_Item]) -> str:
        """The class that is asked for: one with several members if there is any."""
        counts: dict[str, int] = {}
        for each in shown:
            counts[each.label] = counts.get(each.label, 0) + 1
        if self.gold_items is not None:
            wanted = [name for name, held in counts.items() if held == self.gold_items]
        else:
            wanted = [name for name, held in counts.items() if held > 1]
        return draw.choice(wanted or list(counts))

    def _body(self, shown: Sequence[_Item], place: int) -> str:
        if self.ability == "semantic-single":
            return self._continuation(shown, place)
        return self._listed(shown)

    def _listed(self, shown: Sequence[_Item]) -> str:
        lines = [self._words.item.format(id=each.id, text=each.text) for each in shown]
        return self._words.joint.join(lines) + "\n"

    def _continuation(self, shown: Sequence[_Item], place: int) -> str:
        """The first half of one text, then second halves, that text's own among them."""
        halves = [_halves(each.text) or ("", each.text) for each in shown]
        lines = [self._words.query.format(text=halves[place][0])]
        lines += [
            self._words.item.format(id=each.id, text=half[1])
            for each, half in zip(shown, halves, strict=True)
        ]
        return self._words.joint.join(lines) + "\n"

    def _question(self, shown: Sequence[_Item], place: int, label: str) -> str:
        asked = self._words.ask[self.ability].format(id=shown[place].id, label=label)
        return f"{asked}\n{self._words.cue}"

    def _answer(self, shown: Sequence[_Item], place: int, label: str) -> str:
        answers: dict[str, Callable[[], str]] = {
            "explicit-single": lambda: shown[place].label,
            "semantic-single": lambda: shown[place].id,
            "explicit-multiple": lambda: self._words.comma.join(
                each.id for each in shown if each.label == label
            ),
            "semantic-multiple": lambda: str(sum(each.label == label for each in shown)),
            "global": lambda: shown[place].label,
        }
        return answers[self.ability]()


def _id(draw: random.Random) -> str:
    """Six upper-case hexadecimal digits."""
    return f"{draw.getrandbits(24):06X}"


def _halves(text: str) -> tuple[str, str] | None:
    """A text cut in two between sentences, near its middle; None if it has only one sentence."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text) if 0 < match.end() < len(text)]
    if not ends:
        return None
    end = min(ends, key=lambda each: abs(each - len(text) // 2))
    first, second = text[:end].strip(), text[end:].strip()
    return (first, second) if first and second else None


def _distinct_halves(texts: Sequence[Labelled]) -> list[Labelled]:
    """Texts that can be cut in two, no half of which is a half of a text before."""
    seen: set[str] = set()
    found = []
    for each in texts:
        halves = _halves(each.text)
        if halves and not seen.intersection(halves):
            seen.update(halves)
            found.append(each)
    return found


def _words(text: str) -> int:
    return len(text.split())
