"""Twins of four LongBench tasks, made of any text: counting, retrieval, two kinds of code lines.

What: the question, prompt and metric of the data set they are named after, on other text, so they
need no network and fit any length. Paragraphs come from the given texts or the Python reference,
code from the given files or the standard library.
Source: Bai et al. (2023), section 3.2 (synthetic tasks, code completion).
Differs from the data sets: as many paragraphs as fit the level (there: 30, or 17 to 50); the
abstract is the sentences of the paragraph with the rarest words (there: written by a model); code
is Python only, and snippets of other files are definitions of imported names first, then others.
Cost: a few measurements of the prompt a sample.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from unspool.errors import InputError
from unspool.evaluation.spec import LengthLevel, Sample, Sizer, Source, TaskSpec, fingerprint
from unspool.evaluation.tasks._fit import Fitter
from unspool.evaluation.tasks._passages import enough, paragraphs, python_files
from unspool.evaluation.tasks._texts import texts
from unspool.evaluation.tasks.base import GENERATED, Task
from unspool.evaluation.tasks.longbench.code import File, Place, place, snippets
from unspool.evaluation.tasks.longbench.facts import DATASETS, NEVER_CHAT
from unspool.evaluation.tasks.longbench.metric import LongBenchMetric
from unspool.evaluation.tasks.longbench.passages import abstract, commonness, numbered
from unspool.evaluation.tasks.longbench.templates import OWN, parts

LEVELS = tuple(LengthLevel("tokens", n) for n in (1024, 2048, 4096, 8192))
_PARAGRAPHS = 30
_LINES = 200
_SNIPPETS = 12
_NATURAL_UNITS = 1000
_NEAR_LINES = 40
"""Lines of the file itself that repobench-p shows; everything else is from other files."""
_TRIES = 200

Render: TypeAlias = Callable[[int], tuple[str, str]]
"""Context and question with so many units."""


class Made(NamedTuple):
    """What a sample is made of."""

    context: str
    question: str
    answer: str
    depth: float | None = None


@dataclass(frozen=True, slots=True)
class Fit:
    """How much fits a level."""

    limit: int | None
    """None: there is no level."""
    size: Callable[[str, str], int]

    def most(self, render: Render, low: int, high: int, natural: int) -> int:
        """Most units, `low` to `high`, that fit; without a level the natural number."""
        if self.limit is None:
            return max(low, min(natural, high))
        found = Fitter(self.limit, low=low, most=high)(lambda k: self.size(*render(k)))
        if found < low:
            raise InputError(
                f"The shortest prompt takes {self.size(*render(low))} and the level holds "
                f"{self.limit}. Choose a longer level."
            )
        return found


Maker: TypeAlias = Callable[[random.Random, Any, Fit], Made]


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinTask(Task):
    """One twin; `make` draws a sample."""

    template: str
    prepare: Callable[[Source], Any]
    """What the samples are drawn from."""
    make: Maker

    def samples(
        self,
        level: LengthLevel | None,
        n: int,
        *,
        seed: int = 0,
        source: Source = GENERATED,
        size: Sizer = len,
    ) -> Iterator[Sample]:
        """See `Task.samples`; `source.path` holds texts, or Python files for the code twins."""
        name = level.name if level else "all"

        def measure(context: str, question: str) -> int:
            pieces = parts(self.template, context, question)
            return size(pieces.prefix + pieces.context + pieces.query)

        fit = Fit(level.upper if level else None, measure)
        material = self.prepare(source)
        for i in range(n):
            draw = random.Random(f"{seed}:{self.spec.name}:{name}:{i}")
            made = self.make(draw, material, fit)
            yield Sample(
                id=f"{name}-{i}",
                parts=parts(self.template, made.context, made.question),
                references=(made.answer,),
                level=name,
                depth=made.depth,
                seed=seed,
                language=self.spec.language,
            )


def _paragraphs(source: Source) -> list[str]:
    pool = paragraphs(texts(source))
    enough(pool, 2, "paragraphs")
    return pool


def _files(source: Source) -> tuple[File, ...]:
    return python_files(source.path)


def _make_count(draw: random.Random, pool: list[str], fit: Fit) -> Made:
    """Paragraphs of which some come again; the answer is how many there are once each."""
    fresh = draw.sample(pool, len(pool))
    share = draw.uniform(1 / 3, 1)
    order: list[str] = []
    while fresh:
        again = order and draw.random() > share
        order.append(draw.choice(order) if again else fresh.pop())

    def render(k: int) -> tuple[str, str]:
        return numbered(order[:k]), ""

    k = fit.most(render, 2, len(order), _PARAGRAPHS)
    _must_fill(k, len(order), fit)
    shown = draw.sample(order[:k], k)
    while fit.limit is not None and fit.size(numbered(shown), "") > fit.limit:
        shown.pop()
    return Made(numbered(shown), "", str(len(set(shown))))


def _make_retrieval(draw: random.Random, pool: list[str], fit: Fit) -> Made:
    """Paragraphs, and the abstract of one; the answer is its number."""
    order = draw.sample(pool, len(pool))
    question = abstract(order[0], commonness(tuple(pool)))
    where = draw.random()

    def place_of(k: int) -> int:
        return min(int(where * k), k - 1)

    def render(k: int) -> tuple[str, str]:
        others = order[1:k]
        others.insert(place_of(k), order[0])
        return numbered(others), question

    k = fit.most(render, 2, len(order), _PARAGRAPHS)
    _must_fill(k, len(order), fit)
    while fit.limit is not None and k > 2 and fit.size(*render(k)) > fit.limit:
        k -= 1
    depth = place_of(k) / (k - 1)
    return Made(*render(k), f"Paragraph {place_of(k) + 1}", depth)


def _must_fill(k: int, most: int, fit: Fit) -> None:
    if fit.limit is not None and k == most:
        raise InputError(
            f"The texts hold {most} paragraphs, which do not fill this level. Give more text, or "
            f"choose a shorter length."
        )


def _make_line(draw: random.Random, files: Sequence[File], fit: Fit) -> Made:
    """The lines before one of a file; the answer is that line."""
    found, k = _filled(draw, files, fit, lambda at: (at.before, ""))
    return Made(_joined(found.before[-k:]), "", found.answer)


def _make_repository(draw: random.Random, files: Sequence[File], fit: Fit) -> Made:
    """Definitions from other files and the lines before one of this file; the answer is it."""
    for _ in range(_TRIES):
        at = place(draw, files, fewest=8)
        shown = _joined([*at.imports, *at.before[-_NEAR_LINES:]])
        if fit.limit is not None and fit.size("", shown) > fit.limit:
            continue
        others = snippets(draw, files, at, fit.limit or _NATURAL_UNITS)

        def render(k: int, others: list[str] = others, shown: str = shown) -> tuple[str, str]:
            return "".join(others[:k]), shown

        k = fit.most(render, 0, len(others), _SNIPPETS)
        if fit.limit is None or k < len(others):
            chosen = draw.sample(others[:k], k)
            while fit.limit is not None and fit.size("".join(chosen), shown) > fit.limit:
                chosen.pop()
            return Made("".join(chosen), shown, at.answer)
    raise InputError(_TOO_SHORT)


def _filled(
    draw: random.Random,
    files: Sequence[File],
    fit: Fit,
    split: Callable[[Place], tuple[list[str], str]],
) -> tuple[Place, int]:
    """A place with enough lines before it to fill the level, and how many fit."""
    for _ in range(_TRIES):
        at = place(draw, files, fewest=8)
        lines, question = split(at)
        if fit.limit is not None and fit.size(_joined(lines), question) <= fit.limit:
            continue  # the file ends too early

        def render(k: int, lines: list[str] = lines, question: str = question) -> tuple[str, str]:
            return _joined(lines[-k:]), question

        return at, fit.most(render, 1, len(lines), _LINES)
    raise InputError(_TOO_SHORT)


_TOO_SHORT = (
    "No Python file is long enough to fill this level. Give longer files, or choose a shorter "
    "length."
)


def _joined(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


_MAKERS: dict[str, tuple[str, Callable[[Source], Any], Maker]] = {
    "passage_count": ("passage_count", _paragraphs, _make_count),
    "passage_retrieval": ("passage_retrieval_en", _paragraphs, _make_retrieval),
    "lcc": ("lcc", _files, _make_line),
    "repobench-p": ("repobench-p", _files, _make_repository),
}


def make_twin(name: str) -> TwinTask:
    """The twin of that name, with the project's own prompt."""
    dataset, prepare, maker = _MAKERS[name]
    facts = DATASETS[dataset]
    metric = LongBenchMetric(dataset=dataset)
    return TwinTask(
        spec=TaskSpec(
            name=f"longbench-twin/{name}",
            ability=facts.category,
            max_new_tokens=facts.max_new_tokens,
            overflow="ends",
            chat="never" if dataset in NEVER_CHAT else "auto",
            levels=LEVELS,
            metric=metric.id,
            data_source="generated: a twin, not the data set",
            prompt_fingerprint=fingerprint(OWN[dataset]),
        ),
        metric=metric,
        template=OWN[dataset],
        prepare=prepare,
        make=maker,
    )
