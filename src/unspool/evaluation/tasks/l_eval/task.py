"""A sub-task of L-Eval: one sample a question, the document cut by words where it is too long.

What: a document is cut to its first M words, then to 250 fewer, and again, until the prompt fits
(codeU: to its last words); the rest of the prompt is never cut.
Source: An et al. (2023), section 4.1; the runners of the release.
Differs from the released code: M bounds the whole prompt in tokens, not the document alone; the two
questions of sci_fi are two samples, `loyalty` and `fact`; n-gram runs take documents that a program
can score, and the judged subsets are tasks of their own.
Cost: a count of the prompt for every 250 words that go.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from unspool._overflow import shorten
from unspool.errors import InputError, OverflowPolicyError
from unspool.evaluation.spec import (
    LengthLevel,
    Parts,
    Prediction,
    Request,
    Response,
    Room,
    Sample,
    Sizer,
    Source,
    TaskSpec,
    fingerprint,
)
from unspool.evaluation.tasks._release import field, prediction_lines, records
from unspool.evaluation.tasks.base import GENERATED, NO_ROOM, Task
from unspool.evaluation.tasks.l_eval.facts import (
    MAX_NEW_TOKENS,
    SUBSETS,
    SUPPORTED,
    TASKS,
    release,
)
from unspool.evaluation.tasks.l_eval.metric import LEvalMetric
from unspool.evaluation.tasks.l_eval.prompts import TEXTS, around, fact_question, system

_STEP = 250
_TWIN = (
    "Generated relatives: unspool evaluate make --task l-eval-twin/topic_retrieval --length 4k "
    "--n 200 --out data.jsonl"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LEvalTask(Task):
    """One sub-task, or (`subset`) the judged documents of all open ones."""

    sub_tasks: tuple[str, ...]
    kinds: tuple[str, ...] = SUPPORTED
    """Values of `evaluation` that are taken."""
    length_instruction: bool = True
    """Tell the model how many words the reference has (open tasks)."""

    def samples(
        self,
        level: LengthLevel | None,
        n: int,
        *,
        seed: int = 0,
        source: Source = GENERATED,
        size: Sizer = len,
    ) -> Iterator[Sample]:
        """The first questions of the release, in its order; `seed` and `size` decide nothing."""
        path = source.path if source.kind == "release" else None
        yield from islice(self._all(path), n)

    def _all(self, path: str | None) -> Iterator[Sample]:
        for name in self.sub_tasks:
            index = 0
            for number, record in enumerate(records(release(name), path, twin=_TWIN), 1):
                where = f"Document {number} of {name}"
                if field(record, "evaluation", str, where) not in self.kinds:
                    continue
                questions = field(record, "instructions", list, where)
                answers = field(record, "outputs", list, where)
                document = field(record, "input", str, where)
                for at, (question, gold) in enumerate(zip(questions, answers, strict=False)):
                    yield from self._asked(
                        name, f"{name}-{number}-{at + 1}", document, str(question), str(gold), index
                    )
                    index += 1

    def _asked(
        self, name: str, id: str, document: str, question: str, gold: str, index: int
    ) -> Iterator[Sample]:
        words = len(gold.split()) if self.length_instruction else None
        before, after = around(name, question, words)
        meta: dict[str, Any] = {"sub_task": name, "index": index, "query": question}
        sample = Sample(
            id=id,
            parts=Parts(before, document, after),
            references=(gold,),
            meta=meta,
        )
        if name != "sci_fi":
            yield sample
            return
        yield replace(sample, meta={**meta, "part": "loyalty"})
        yield replace(
            sample,
            id=f"{id}-fact",
            parts=Parts("", "", fact_question(question)),
            meta={**meta, "part": "fact"},
        )

    def build(self, sample: Sample, room: Room = NO_ROOM) -> Request:
        """The request with its document cut by words until the prompt fits."""
        name = str(sample.meta["sub_task"])
        text, dropped = self._fitted(name, sample, room)
        return Request(
            kind="generate",
            prompt=text,
            system=system(name),
            max_new_tokens=self.spec.max_new_tokens,
            dropped_tokens=dropped,
        )

    def _fitted(self, name: str, sample: Sample, room: Room) -> tuple[str, int]:
        before, document, after = sample.parts.prefix, sample.parts.context, sample.parts.query
        whole = before + document + after
        limit = room.limit
        size = room.count(whole) if limit is not None else 0
        if limit is None or size <= limit:
            return whole, 0
        words = document.split(" ")
        keep = limit
        while keep > 0:
            kept = shorten(range(len(words)), keep, "tail" if name == "codeU" else "head").ids
            text = before + " ".join(words[i] for i in kept) + after
            left = room.count(text)
            if left <= limit:
                return text, size - left
            keep = min(keep, len(words)) - _STEP
        raise OverflowPolicyError(
            f"Question {sample.id} of {self.spec.name} leaves no room for its document: the window "
            f"holds {limit:,} tokens of prompt and the question alone takes "
            f"{room.count(before + after):,}. Choose a model with a longer window."
        )

    def read_predictions(self, path: Path) -> Iterator[Prediction]:
        """The JSON lines of the release: query, gt, MODEL_pred, evaluation.

        Lines that a program cannot score are passed over, as the release does; a file whose lines
        are to be scored in different ways is refused.
        """
        key: str | None = None
        kind: str | None = None
        for number, record in prediction_lines(path):
            where = f"Line {number} of {path.name}"
            if key is None:
                key = next((name for name in record if "_pred" in name), None)
                if key is None:
                    raise InputError(
                        f"{where} has no field that ends in '_pred'. It has "
                        f"{', '.join(sorted(record))}."
                    )
            evaluation = field(record, "evaluation", str, where)
            if evaluation not in SUPPORTED:
                continue
            if kind not in (None, evaluation):
                raise InputError(
                    f"{where} is to be scored as {evaluation!r} and the lines before it as "
                    f"{kind!r}. Split the file, so that each part has one kind of score."
                )
            kind = evaluation
            sample = Sample(
                id=str(number),
                parts=Parts(),
                references=(str(field(record, "gt", (str, int, float), where)),),
                meta={"index": number - 1, "query": str(record.get("query", ""))},
            )
            yield Prediction(sample, Response(text=field(record, key, str, where)))

    def without_length_instruction(self) -> LEvalTask:
        """The same task, the model not being told how long to answer."""
        return replace(self, length_instruction=False)


def make_task(name: str) -> LEvalTask:
    """The task of a sub-task."""
    facts = TASKS[name]
    metric = LEvalMetric.of(name)
    return LEvalTask(
        spec=_spec(name, facts.group, metric, "the release"),
        metric=metric,
        release=release(name),
        sub_tasks=(name,),
    )


def make_subset(subset: str) -> LEvalTask:
    """The documents of the open tasks that are judged in pairs; F1 stands in until they are."""
    metric = LEvalMetric(scoring="f1")
    return LEvalTask(
        spec=_spec(f"{subset}-subset", "judged", metric, "the release, marked documents"),
        metric=metric,
        sub_tasks=tuple(name for name, facts in TASKS.items() if facts.group == "open"),
        kinds=SUBSETS[subset],
    )


def _spec(name: str, ability: str, metric: LEvalMetric, source: str) -> TaskSpec:
    return TaskSpec(
        name=f"l-eval/{name}",
        ability=ability,
        max_new_tokens=MAX_NEW_TOKENS,
        overflow="own",
        unit="words",
        metric=metric.id,
        data_source=source,
        prompt_fingerprint=fingerprint(*TEXTS),
        licence="GPL-3.0",
    )
