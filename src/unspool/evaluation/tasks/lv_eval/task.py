"""LV-Eval as tasks: the eleven data sets, and twins that are generated at any length.

What: `<dataset>` reads the release; `mixup_twin` hides one replaced fact among passages of any
text, with confusing facts; `factrecall_twin` sweeps it over one text; both ask the same questions
at every length. `mixup_twin_choice` ranks the answer among the confusing ones.
Source: Yuan et al. (2024), arXiv 2402.05136, section 3; `config.py` and `prediction.py`.
Differs from the release: twins are built on capitals under drawn names (see `known`), where the
release is annotated by hand; their unit is words.
Cost: one pass over the records, or linear in the text of a twin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

from unspool.errors import ConfigError, InputError
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
from unspool.evaluation.tasks._release import field, records
from unspool.evaluation.tasks._texts import texts
from unspool.evaluation.tasks.base import GENERATED, Task
from unspool.evaluation.tasks.lv_eval import facts, known
from unspool.evaluation.tasks.lv_eval.devices import Mixed, mixup, place_fact
from unspool.evaluation.tasks.lv_eval.score import TwoStage, read
from unspool.evaluation.tasks.lv_eval.templates import OWN, parts, reference

TWIN_LEVELS = tuple(LengthLevel("words", n * 1000) for n in (1, 2, 4, 8, 16, 32, 64, 128, 256))
_DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
_PLACES = 16
"""Beginnings of the filler that are tried where the shortest context is too long in tokens: a rule
of a table is one word and can be hundreds of tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LVEvalTask(Task):
    """One of the eleven data sets."""

    dataset: str
    template: str

    def samples(
        self,
        level: LengthLevel | None,
        n: int,
        *,
        seed: int = 0,
        source: Source = GENERATED,
        size: Sizer = len,
    ) -> Iterator[Sample]:
        """The first records of a level's file, in its order; `seed` and `size` decide nothing."""
        level = level or self.spec.levels[0]
        if level.name not in facts.LEVELS:
            raise ConfigError(
                f"{self.spec.name} has the levels {', '.join(facts.LEVELS)}, got {level.name}. "
                "Other lengths can be generated: lv-eval/mixup_twin."
            )
        path = source.path if source.kind == "release" else None
        wanted = facts.release(self.dataset, level.name)
        for number, record in enumerate(islice(records(wanted, path, twin=_TWIN), n)):
            where = f"Record {number + 1} of {self.dataset}_{level.name}"
            answers = field(record, "answers", list, where)
            if not answers:
                raise InputError(f"{where} has no answer.")
            context = field(record, "context", str, where)
            question = field(record, "input", str, where)
            length = record.get("length")
            yield Sample(
                id=str(number),
                parts=parts(self.template, context, question),
                references=tuple(map(str, answers)),
                level=level.name,
                lengths={level.unit: length} if isinstance(length, int) else {},
                language=self.spec.language,
                meta={
                    "keywords": record.get("answer_keywords"),
                    "confusing_facts": record.get("confusing_facts"),
                },
            )

    def read_predictions(self, path: Path) -> Iterator[Prediction]:
        """The JSON lines that `prediction.py` writes: pred, answers, gold_ans, length."""
        name, _, level = path.stem.rpartition("_")
        known_name = name == self.dataset and level in facts.LEVELS
        for number, (said, answer, keywords) in enumerate(read(path)):
            sample = Sample(
                id=str(number),
                parts=Parts(),
                references=(answer,),
                level=level if known_name else "all",
                language=self.spec.language,
                meta={"keywords": keywords},
            )
            yield Prediction(sample, Response(text=said))

    def with_templates(self, source: str) -> LVEvalTask:
        """The same task with the release's prompt: see `templates.reference`."""
        template = reference(source)[self.dataset]
        spec = replace(
            self.spec, prompt_source="reference", prompt_fingerprint=fingerprint(template)
        )
        return replace(self, template=template, spec=spec)


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinTask(Task):
    """One replaced fact and confusing ones in a text of any length."""

    form: str
    """`mixup` or `factrecall`."""
    confusers: int = 4
    without: tuple[str, ...] = ()

    def samples(
        self,
        level: LengthLevel | None,
        n: int,
        *,
        seed: int = 0,
        source: Source = GENERATED,
        size: Sizer = len,
    ) -> Iterator[Sample]:
        """See `Task.samples`. Sample i asks the same question at every level.

        A level in words or characters is the length of the context; in tokens, of the prompt.
        """
        level = level or TWIN_LEVELS[0]
        depths = self.spec.depths or (0.5,)
        documents = [d.text for d in texts(source)]
        unit = "chars" if level.unit == "chars" else "words"
        # So many words hold the facts and some filler.
        least = 40 + 12 * (1 + self.confusers)
        fit = Fitter(level.upper, low=least, most=sum(len(d.split()) for d in documents))
        for i in range(n):
            depth = depths[i % len(depths)]
            repeat = i // len(depths)
            asked = known.question(
                repeat, seed=seed, confusers=self.confusers, without=self.without
            )
            made = partial(self._context, asked, documents, unit, depth, 10_007 * seed + repeat)
            place, length = 0, level.upper
            if level.unit.startswith("tokens"):
                place, length = self._fitted(fit, made, asked, size, level)
            yield self._sample(asked, made(place, length), level, depth, i, seed)

    def _fitted(
        self,
        fit: Fitter,
        made: Callable[[int, int], Mixed],
        asked: known.Question,
        size: Sizer,
        level: LengthLevel,
    ) -> tuple[int, int]:
        """Where the filler begins, and words of the context that fill a level in tokens.

        If the shortest context is too long, the filler begins elsewhere, and if that does not help
        it shrinks to a word.
        """

        def size_of(place: int, length: int) -> int:
            found = parts(OWN[_OF[self.form]], made(place, length).context, asked.fact.asked)
            return size(found.prefix + found.context + found.query)

        tight = Fitter(level.upper, low=self._needed(asked), most=fit.most)
        tries = ((way, place) for way in (fit, tight) for place in range(_PLACES))
        place, length = next(
            (
                (place, length)
                for way, place in tries
                if (length := way(partial(size_of, place))) >= way.low
            ),
            (0, 0),
        )
        if not length:
            shortest = min(size_of(place, tight.low) for place in range(_PLACES))
            raise InputError(
                f"{self.spec.name} takes {shortest} {level.unit} at its shortest, and "
                f"level {level.name} holds {level.upper}. Choose a longer level."
            )
        if length == fit.most and size_of(place, length) < 0.98 * level.upper:
            raise InputError(
                f"The texts hold {length:,} words, too few for a level of {level.name} "
                f"{level.unit}. Give longer ones (--source), or choose a shorter level."
            )
        return place, length

    def _needed(self, asked: known.Question) -> int:
        """Fewest words of a context: the facts, two headings and a word of filler."""
        said = [self._support(asked), *map(str, asked.confusers)]
        return sum(len(text.split()) for text in said) + 5

    def _support(self, asked: known.Question) -> str:
        if self.form == "factrecall":
            return str(asked.fact)
        return (
            f"Notes on {asked.fact.subject}. {asked.fact} Travellers who arrive there are told so "
            "at the border."
        )

    def _context(
        self,
        asked: known.Question,
        documents: list[str],
        unit: str,
        depth: float,
        seed: int,
        place: int,
        length: int,
    ) -> Mixed:
        """Facts and filler; the filler begins where it is drawn to (place 0), or elsewhere."""
        others = [str(f) for f in asked.confusers]
        if self.form == "factrecall":
            first = place * len(documents) // _PLACES
            book = "\n\n".join([*documents[first:], *documents[:first]])
            return place_fact(asked.fact, others, book, length, depth, unit, seed)
        drawn = f"{seed}/{place}" if place else seed
        return mixup(
            self._support(asked), documents, length, unit, depth=depth, insert=others, seed=drawn
        )

    def _sample(
        self,
        asked: known.Question,
        made: Mixed,
        level: LengthLevel,
        depth: float,
        number: int,
        seed: int,
    ) -> Sample:
        choice = self.spec.kind == "choice"
        objects = [asked.fact.object, *(f.object for f in asked.confusers)]
        return Sample(
            id=f"{level.name}-{number}",
            parts=parts(OWN[_OF[self.form]], made.context, asked.fact.asked),
            references=(f" {asked.fact.object}" if choice else asked.fact.object,),
            choices=tuple(f" {o}" for o in sorted(objects)) if choice else (),
            level=level.name,
            depth=depth,
            seed=seed,
            meta={
                "keywords": None if "keywords" in self.without else asked.keywords,
                "confusing_facts": [str(f) for f in asked.confusers],
                "original": [asked.original.subject, asked.original.object],
                "place": made.depth,
            },
        )


_OF = {"mixup": "multifieldqa_en_mixup", "factrecall": "factrecall_en"}
_TWIN = (
    "A generated twin: unspool evaluate make --task lv-eval/mixup_twin --length 16k --n 200 "
    "--out data.jsonl"
)


def _release_task(name: str) -> LVEvalTask:
    found = facts.DATASETS[name]
    return LVEvalTask(
        spec=TaskSpec(
            name=f"lv-eval/{name}",
            ability=found.hops,
            language=found.language,
            max_new_tokens=found.max_new_tokens,
            overflow="ends",
            limit_rule="thousands",
            unit=facts.unit(name),
            levels=facts.levels(name),
            metric=TwoStage(found.rule).id,
            data_source="Infinigence/LVEval",
            prompt_fingerprint=fingerprint(OWN[name]),
            licence=found.licence,
        ),
        metric=TwoStage(found.rule),
        release=facts.release(name),
        dataset=name,
        template=OWN[name],
    )


def twin(
    form: str,
    *,
    confusers: int = 4,
    without: tuple[str, ...] = (),
    choice: bool = False,
    name: str = "",
) -> TwinTask:
    """A generated task with settings of one's own.

    Args:
        form: `mixup` (passages) or `factrecall` (one text).
        confusers: Confusing facts.
        without: Devices that are left off; see `known.question`.
        choice: Rank the answers in place of writing one.
        name: What comes after `lv-eval/`.

    Raises:
        ConfigError: There is no such form, or nothing to choose among.
    """
    if form not in _OF:
        raise ConfigError(f"A twin is {' or '.join(_OF)}, got {form!r}.")
    if choice and ("cfi" in without or not confusers):
        raise ConfigError("A choice takes confusing facts to choose among.")
    rule: facts.Rule = "keywords" if form == "mixup" else "f1"
    said = [form, "twin", *(f"no-{d}" for d in without)]
    said += [f"{confusers}"] * (confusers != 4) + ["choice"] * choice
    spec = TaskSpec(
        name=f"lv-eval/{name or '_'.join(said)}",
        ability="twins",
        kind="choice" if choice else "generate",
        max_new_tokens=facts.DATASETS[_OF[form]].max_new_tokens,
        overflow="ends",
        unit="words",
        levels=TWIN_LEVELS,
        depths=_DEPTHS,
        metric=TwoStage(rule).id,
        prompt_fingerprint=fingerprint(OWN[_OF[form]]),
    )
    return TwinTask(
        spec=spec, metric=TwoStage(rule), form=form, confusers=confusers, without=without
    )


TASKS: dict[str, Task] = {
    **{name: _release_task(name) for name in facts.DATASETS},
    "mixup_twin": twin("mixup"),
    "mixup_twin_choice": twin("mixup", choice=True),
    "factrecall_twin": twin("factrecall", confusers=2, name="factrecall_twin"),
}
