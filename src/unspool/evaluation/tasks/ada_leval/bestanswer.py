"""BestAnswer items: a question, its accepted answer, and as many other answers as the level takes.

What: `BestAnswer` builds items of any length from question threads; distractors are other answers
of the question and answers of questions with a common tag, in the share asked for.
Source: Wang et al. (2024), arXiv 2404.06480, section 3.2.
Differs from the release: its construction is not public. The candidates of a question stand in one
drawn order, of which a level takes as many as fit, so that levels are nested and curves paired; a
last candidate is chosen by its size to fill the level. Answers that occur twice are taken once.
Cost: two or three measurements of the prompt an item, and one of each candidate tried as the last.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from unspool.errors import ConfigError, InputError
from unspool.evaluation.spec import Parts, Sizer
from unspool.evaluation.tasks._fit import Fitter

EXAMPLE = "A4"
"""The label that the prompt shows as a sample of the format."""
_INTRO = (
    "Below are a question and several answers to choose from, each under its label. Find the "
    "answer that helps the asker most.\nReply with its label, in the form of this sample; its "
    f"label means nothing.\nAnswer: {EXAMPLE}\n\n"
)
_OUTRO = (
    "\nWhich of the answers helps the asker most? Reply with its label, in the form of the sample, "
    "nothing else."
)
CUE = "\nAnswer:"
WORDING = (_INTRO, _OUTRO, CUE, "Question", "Answers")
_FULL = 0.98
_TRIES = 48


@dataclass(frozen=True, slots=True)
class Thread:
    """A question with its answers."""

    id: str
    question: str
    answers: tuple[str, ...]
    accepted: int
    """Place of the accepted answer."""
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.accepted < len(self.answers):
            raise InputError(
                f"Thread {self.id!r} has {len(self.answers)} answers and accepts number "
                f"{self.accepted}."
            )


@dataclass(frozen=True, slots=True)
class BestAnswerItem:
    """One item; the fields but the last are those of the released files."""

    question_id: str
    question: str
    answer: str
    """Label of the accepted answer."""
    tags: list[str]
    all_answers: list[str]
    """As shown: A1 first."""
    index: str
    intra: int = 0
    """Distractors that answer the same question."""

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)

    def parts(self) -> Parts:
        """The prompt in its pieces."""
        return _parts(self.question, self.all_answers)


@dataclass(slots=True)
class BestAnswer:
    """An iterator over items that counts what it leaves out.

    Args:
        threads: What to build from.
        limit: Most units of a prompt.
        size: Size of a prompt in those units.
        seed: Of questions, candidates and places.
        intra: Share of distractors that answer the same question, where there are enough.
        candidates: A fixed number of candidates, in place of filling the level.

    Raises:
        ConfigError: `intra` is no share, or `candidates` is below 2.
    """

    threads: Sequence[Thread]
    limit: int
    size: Sizer
    seed: int = 0
    intra: float | int = 0.5
    candidates: int | None = None
    skipped: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        if not 0 <= self.intra <= 1:
            raise ConfigError(f"intra must be between 0 and 1, got {self.intra}.")
        if self.candidates is not None and self.candidates < 2:
            raise ConfigError(f"candidates must be >= 2, got {self.candidates}.")

    def __iter__(self) -> Iterator[BestAnswerItem]:
        by_tag: dict[str, dict[str, None]] = defaultdict(dict)
        for thread in self.threads:
            for tag in thread.tags:
                by_tag[tag].update(dict.fromkeys(thread.answers))
        asked = list(self.threads)
        random.Random(f"questions/{self.seed}").shuffle(asked)
        fit = Fitter(self.limit, low=1)
        for thread in asked:
            item = self._item(thread, by_tag, fit)
            if item is not None:
                yield item

    def _item(
        self, thread: Thread, by_tag: Mapping[str, dict[str, None]], fit: Fitter
    ) -> BestAnswerItem | None:
        draw = random.Random(f"candidates/{self.seed}/{thread.id}")
        gold = thread.answers[thread.accepted]
        if self.size(_text(_parts(thread.question, [gold]))) > self.limit:
            self.skipped["question and two answers longer than the level"] += 1
            return None
        pool, own = self._distractors(thread, by_tag, draw)
        # Each candidate has a place of its own, so that longer lists keep the order.
        places = {answer: draw.random() for answer in [gold, *pool]}

        def shown(picked: Sequence[str]) -> list[str]:
            return sorted([gold, *picked], key=places.__getitem__)

        def size_of(picked: Sequence[str]) -> int:
            return self.size(_text(_parts(thread.question, shown(picked))))

        picked = self._pick(pool, size_of, fit)
        if picked is None:
            return None
        answers = shown(picked)
        label = f"A{answers.index(gold) + 1}"
        return BestAnswerItem(
            question_id=thread.id,
            question=thread.question,
            answer=label,
            tags=list(thread.tags),
            all_answers=answers,
            index=f"{thread.id}_{label}",
            intra=sum(answer in own for answer in picked),
        )

    def _pick(
        self, pool: list[str], size_of: Callable[[Sequence[str]], int], fit: Fitter
    ) -> list[str] | None:
        """The distractors that a level takes; None, counted, if they cannot be had."""
        if self.candidates is not None:
            picked = pool[: self.candidates - 1]
            if len(picked) == self.candidates - 1 and size_of(picked) <= self.limit:
                return picked
            self.skipped["too few distractors that fit"] += 1
            return None
        fit.most = len(pool)
        count = fit(lambda number: size_of(pool[:number])) if pool else 0
        if count < 1:
            self.skipped["question and two answers longer than the level"] += 1
            return None
        while count < len(pool) and size_of(pool[: count + 1]) <= self.limit:
            count += 1
        picked = pool[:count]
        used = size_of(picked)
        if used < _FULL * self.limit:
            picked, used = self._fill(picked, pool[count:], used, size_of)
        if used < _FULL * self.limit and count == len(pool):
            self.skipped["too few distractors for the level"] += 1
            return None
        return picked

    def _fill(
        self,
        picked: list[str],
        others: list[str],
        used: int,
        size_of: Callable[[Sequence[str]], int],
    ) -> tuple[list[str], int]:
        """Add the candidate that fills the level best, or none, and the size after that."""
        # By length in characters, a stand-in for the unit that costs nothing.
        target = (self.limit - used) * max(1, sum(map(len, picked))) / max(1, used)
        best, most = picked, used
        for answer in sorted(others, key=lambda a: abs(len(a) - target))[:_TRIES]:
            size = size_of([*picked, answer])
            if most < size <= self.limit:
                best, most = [*picked, answer], size
            if most >= _FULL * self.limit:
                break
        return best, most

    def _distractors(
        self, thread: Thread, by_tag: Mapping[str, dict[str, None]], draw: random.Random
    ) -> tuple[list[str], set[str]]:
        """Candidates in drawn order, shares kept, and which of them answer this question."""
        gold = thread.answers[thread.accepted]
        own = list(dict.fromkeys(a for a in thread.answers if a.strip() != gold.strip()))
        answers = {answer.strip() for answer in thread.answers}
        common: dict[str, set[str]] = {}
        for tag in dict.fromkeys(thread.tags):
            for answer in by_tag[tag]:
                if answer.strip() not in answers:
                    common.setdefault(answer, set()).add(tag)
        draw.shuffle(own)
        far = list(common)
        draw.shuffle(far)
        far.sort(key=lambda answer: len(common[answer]))  # most tags in common last; stable
        first = set(own)
        pool: list[str] = []
        taken = 0
        while own or far:
            if own and (not far or taken < self.intra * (len(pool) + 1)):
                pool.append(own.pop())
                taken += 1
            else:
                pool.append(far.pop())
        return pool, first


def make_bestanswer(
    threads: Sequence[Thread],
    limit: int,
    size: Sizer,
    *,
    n: int = 200,
    seed: int = 0,
    intra: float | int = 0.5,
    candidates: int | None = None,
) -> tuple[list[BestAnswerItem], dict[str, int]]:
    """At most `n` items of a length, and how many questions were left out, by reason."""
    maker = BestAnswer(threads, limit, size, seed, intra, candidates)
    items = [item for _, item in zip(range(n), maker, strict=False)]
    return items, dict(maker.skipped)


def _parts(question: str, answers: Sequence[str]) -> Parts:
    listed = "".join(f"A{i}:\n{text.strip()}\n\n" for i, text in enumerate(answers, 1))
    context = f"[Question]\n{question.strip()}\n\n[Answers]\n{listed}"
    return Parts(_INTRO, context, _OUTRO, CUE)


def _text(parts: Parts) -> str:
    return parts.prefix + parts.context + parts.query + parts.answer_prefix
