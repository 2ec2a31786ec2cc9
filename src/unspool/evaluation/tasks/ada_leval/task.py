"""Ada-LEval as tasks: TSort and BestAnswer, generated or released, written or ranked.

What: four tasks; `tsort` and `bestanswer` ask for a text, `tsort_choice` ranks the 24 orders and
`bestanswer_choice` the labels.
Source: Wang et al. (2024), arXiv 2404.06480, section 3; levels of `fetch_data.sh`.
Differs from the release: levels are tokens of the model at hand and bound the whole prompt with its
answer (there: GPT-4 tokens, see the names of its files). A prompt is never shortened.
Cost: see `tsort` and `bestanswer`.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from unspool.errors import InputError, MissingData
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
from unspool.evaluation.tasks._texts import texts
from unspool.evaluation.tasks.ada_leval import bestanswer, data, tsort
from unspool.evaluation.tasks.ada_leval.score import Label, Order
from unspool.evaluation.tasks.ada_leval.sources import threads
from unspool.evaluation.tasks.base import GENERATED, Task

_LEVELS = {
    "tsort": tuple(LengthLevel.parse(name, "tokens") for name in data.TSORT_LEVELS),
    "bestanswer": tuple(LengthLevel.parse(name, "tokens") for name in data.BESTANSWER_LEVELS),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TSortTask(Task):
    """The order of four segments."""

    def samples(
        self,
        level: LengthLevel | None,
        n: int,
        *,
        seed: int = 0,
        source: Source = GENERATED,
        size: Sizer = len,
    ) -> Iterator[Sample]:
        """See `Task.samples`. Texts that are too short are left out."""
        level = level or _LEVELS["tsort"][0]
        if source.kind == "release":
            for row in data.load(_folder(source, "tsort"), "tsort", level.name)[:n]:
                index = "_".join(map(str, [row["book_id"], *row["para_offset"]]))
                parts = Parts(context=str(row["prompt"]))
                yield self._sample(index, parts, row["answer"], level, {"source": "release"})
            return
        maker = tsort.TSort(texts(source), level.upper, size, seed=seed)
        made = 0
        for item in itertools.islice(maker, n):
            made += 1
            yield self._sample(
                item.index,
                item.parts(),
                item.answer,
                level,
                {"book": item.book_id, "offsets": item.para_offset, "example": tsort.EXAMPLE},
                seed,
            )
        if not made:
            raise _nothing(self.spec.name, level, maker.skipped, "longer texts (--source)")

    def _sample(
        self,
        index: str,
        parts: Parts,
        answer: list[int] | str,
        level: LengthLevel,
        meta: Mapping[str, object],
        seed: int = 0,
    ) -> Sample:
        order = json.loads(answer) if isinstance(answer, str) else list(answer)
        choice = self.spec.kind == "choice"
        space = " " if choice else ""
        orders = itertools.permutations(range(1, len(order) + 1))
        return Sample(
            id=index,
            parts=parts,
            references=(f"{space}{json.dumps(order)}",),
            choices=tuple(f" {json.dumps(list(o))}" for o in orders) if choice else (),
            level=level.name,
            seed=seed,
            meta=meta,
        )

    def read_predictions(self, path: Path) -> Iterator[Prediction]:
        """Rows of a table of the release's runner: `answer` and `prediction`."""
        for number, row in enumerate(data.read_table(path, "tsort"), 1):
            answer = row["answer"]
            gold = answer if isinstance(answer, str) else json.dumps(answer)
            index = str(row.get("index") or number)
            sample = Sample(id=f"{index}#{number}", parts=Parts(), references=(gold,))
            yield Prediction(sample, Response(text=row["prediction"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class BestAnswerTask(Task):
    """The accepted answer among many."""

    wording: data.Wording | None = None
    """The released prompt; None: this project's."""

    def samples(
        self,
        level: LengthLevel | None,
        n: int,
        *,
        seed: int = 0,
        source: Source = GENERATED,
        size: Sizer = len,
    ) -> Iterator[Sample]:
        """See `Task.samples`. `source.path` is a JSON-lines file of threads.

        A level in `pairs` is a number of candidates.
        """
        level = level or _LEVELS["bestanswer"][0]
        if source.kind == "release":
            yield from self._released(level, n, source)
            return
        fixed = level.nominal if level.unit == "pairs" else None
        limit = 1 << 62 if fixed else level.upper
        found = threads(source)
        maker = bestanswer.BestAnswer(
            found, limit, len if fixed else size, seed=seed, candidates=fixed
        )
        made = 0
        for item in itertools.islice(maker, n):
            made += 1
            meta = {"example": bestanswer.EXAMPLE, "tags": item.tags, "intra": item.intra}
            yield self._sample(
                item.index, item.parts(), item.answer, len(item.all_answers), level, meta, seed
            )
        if not made:
            raise _nothing(self.spec.name, level, maker.skipped, "more threads (--source)")

    def _released(self, level: LengthLevel, n: int, source: Source) -> Iterator[Sample]:
        folder = _folder(source, "bestanswer")
        for item in data.load(folder, "bestanswer", level.name)[:n]:
            answers = [str(answer) for answer in item["all_answers"]]
            question = str(item["question"])
            index = f"{item['question_id']}_{item['answer']}"
            meta = {"source": "release"}
            parts = self._parts(question, answers)
            yield self._sample(index, parts, str(item["answer"]), len(answers), level, meta)

    def _parts(self, question: str, answers: list[str]) -> Parts:
        if self.wording is not None:
            return self.wording.parts(question, answers)
        return bestanswer.BestAnswerItem("", question, "", [], answers, "").parts()

    def with_templates(self, source: str) -> BestAnswerTask:
        """The same task with the release's prompt on its items: see `data.reference`."""
        wording = data.reference(source)
        spec = replace(
            self.spec, prompt_source="reference", prompt_fingerprint=fingerprint(*wording)
        )
        return replace(self, wording=wording, spec=spec)

    def _sample(
        self,
        index: str,
        parts: Parts,
        answer: str,
        n: int,
        level: LengthLevel,
        meta: Mapping[str, object],
        seed: int = 0,
    ) -> Sample:
        choice = self.spec.kind == "choice"
        # The line end keeps A1 from being the beginning of A12.
        labels = tuple(f" A{i}\n" for i in range(1, n + 1))
        return Sample(
            id=index,
            parts=parts,
            references=(f" {answer}\n" if choice else answer,),
            choices=labels if choice else (),
            level=level.name,
            seed=seed,
            meta={**meta, "candidates": n},
        )

    def read_predictions(self, path: Path) -> Iterator[Prediction]:
        """Rows of a table of the release's runner: `answer`, `num_choice` and `prediction`."""
        for number, row in enumerate(data.read_table(path, "bestanswer"), 1):
            index = str(row.get("index") or number)
            sample = Sample(
                id=f"{index}#{number}",
                parts=Parts(),
                references=(str(row["answer"]),),
                meta={"candidates": row["num_choice"]},
            )
            yield Prediction(sample, Response(text=row["prediction"]))


def _folder(source: Source, kind: Literal["tsort", "bestanswer"]) -> Path:
    if source.path is None or source.path == "hub":
        raise MissingData(
            f"The released items of {kind} lie on a project server without revisions and are not "
            f"fetched by this command. Download {data.release(kind).files[0]} and the like from "
            f"{data.release(kind).dataset} and give their folder. A generated twin: unspool "
            f"evaluate make --task ada-leval/{kind} --length 4k --n 200 --out data.jsonl"
        )
    return Path(source.path)


def _nothing(task: str, level: LengthLevel, skipped: Counter[str], what: str) -> InputError:
    said = ", ".join(f"{reason}: {count}" for reason, count in sorted(skipped.items()))
    return InputError(
        f"{task} makes no item of {level.name} {level.unit} ({said or 'nothing to build from'}). "
        f"Choose a shorter level, or give {what}."
    )


_TSORT = TaskSpec(
    name="ada-leval/tsort",
    ability="order",
    max_new_tokens=32,
    unit="tokens",
    levels=_LEVELS["tsort"],
    metric=Order().id,
    prompt_fingerprint=fingerprint(*tsort.WORDING),
)
_BEST = TaskSpec(
    name="ada-leval/bestanswer",
    ability="selection",
    max_new_tokens=16,
    unit="tokens",
    levels=_LEVELS["bestanswer"],
    metric=Label().id,
    prompt_fingerprint=fingerprint(*bestanswer.WORDING),
)

TASKS: dict[str, Task] = {
    "tsort": TSortTask(spec=_TSORT, metric=Order(), release=data.release("tsort")),
    "tsort_choice": TSortTask(
        spec=replace(_TSORT, name="ada-leval/tsort_choice", kind="choice"),
        metric=Order(),
        release=data.release("tsort"),
    ),
    "bestanswer": BestAnswerTask(spec=_BEST, metric=Label(), release=data.release("bestanswer")),
    "bestanswer_choice": BestAnswerTask(
        spec=replace(_BEST, name="ada-leval/bestanswer_choice", kind="choice"),
        metric=Label(),
        release=data.release("bestanswer"),
    ),
}
