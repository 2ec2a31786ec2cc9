"""A LongBench data set as a task: its records, its prompts, its prediction files.

Source: Bai et al. (2023), section 3; `pred.py` of the release.
Differs from the released code: samsum's rule that a newline ends the answer, but not as its first
token, cannot be asked of every model; the answer is written to its limit and the metric keeps its
first line, which is the same text unless the model begins with a newline.
Cost: one pass over the records.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from unspool.errors import ConfigError, InputError
from unspool.evaluation.spec import (
    LengthLevel,
    Parts,
    Prediction,
    Release,
    Response,
    Sample,
    Sizer,
    Source,
    TaskSpec,
    fingerprint,
)
from unspool.evaluation.tasks._release import field, prediction_lines, records
from unspool.evaluation.tasks.base import GENERATED, Task
from unspool.evaluation.tasks.longbench.facts import DATASETS, NEVER_CHAT, release
from unspool.evaluation.tasks.longbench.metric import LongBenchMetric
from unspool.evaluation.tasks.longbench.templates import OWN, parts, reference

TWINS = {
    "passage_count": "passage_count",
    "passage_retrieval_en": "passage_retrieval",
    "lcc": "lcc",
    "repobench-p": "repobench-p",
}
"""Data sets that have a generated twin, and its name in `longbench-twin`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LongBenchTask(Task):
    """One of the 21 data sets, or of the 13 of LongBench-E."""

    dataset: str
    template: str
    even: bool = False
    """Of LongBench-E."""

    def samples(
        self,
        level: LengthLevel | None,
        n: int,
        *,
        seed: int = 0,
        source: Source = GENERATED,
        size: Sizer = len,
    ) -> Iterator[Sample]:
        """The first records of the release, in its order; `seed` and `size` decide nothing."""
        path = source.path if source.kind == "release" else None
        for number, record in enumerate(islice(records(self._release, path, twin=self._twin), n)):
            where = f"Record {number + 1} of {self.dataset}"
            question = record.get("input", record.get("question"))
            if not isinstance(question, str):
                raise InputError(f"{where} has neither 'input' nor 'question'.")
            classes = tuple(record.get("all_classes") or ())
            if DATASETS[self.dataset].kind == "classification" and not classes:
                raise InputError(f"{where} has no 'all_classes', the labels it is scored with.")
            length = int(record.get("length", 0))
            context, note = self.shown(field(record, "context", str, where), question)
            unit = "chars" if DATASETS[self.dataset].language == "zh" else "words"
            yield Sample(
                id=str(record.get("_id") or number),
                parts=parts(self.template, context, question),
                references=tuple(map(str, field(record, "answers", list, where))),
                lengths={unit: length} if length else {},
                language=self.spec.language,
                classes=classes,
                meta={**({"length": length} if length else {}), **note},
            )

    def shown(self, context: str, question: str) -> tuple[str, dict[str, int]]:
        """What of a record's context the model is given, and what the sample notes of it."""
        return context, {}

    def read_predictions(self, path: Path) -> Iterator[Prediction]:
        """The JSON lines that `pred.py` writes: pred, answers, all_classes, length."""
        needs_classes = DATASETS[self.dataset].kind == "classification"
        known: tuple[str, ...] | None = None
        for number, record in prediction_lines(path):
            where = f"Line {number} of {path.name}"
            classes = tuple(record.get("all_classes") or ())
            if needs_classes and not classes:
                raise InputError(f"{where} has no 'all_classes', the labels it is scored with.")
            if needs_classes and known not in (None, classes):
                raise InputError(
                    f"{where} has other 'all_classes' than the lines before it; the labels of "
                    f"{self.dataset} are the same for every item."
                )
            known = classes
            length = record.get("length")
            if self.even and not isinstance(length, int):
                raise InputError(f"{where} has no 'length', which LongBench-E reports by.")
            sample = Sample(
                id=str(record.get("_id") or number - 1),
                parts=Parts(),
                references=tuple(map(str, field(record, "answers", list, where))),
                language=self.spec.language,
                classes=classes,
                meta={"length": length} if isinstance(length, int) else {},
            )
            yield Prediction(sample, Response(text=field(record, "pred", str, where)))

    def with_templates(self, source: str) -> LongBenchTask:
        """The same task with the release's prompts: see `templates.reference`."""
        found = reference(source)
        if self.dataset not in found:
            raise ConfigError(f"{source} holds no template for {self.dataset}.")
        template = found[self.dataset]
        spec = replace(
            self.spec, prompt_source="reference", prompt_fingerprint=fingerprint(template)
        )
        return replace(self, template=template, spec=spec)

    @property
    def _release(self) -> Release:
        return release(f"{self.dataset}_e" if self.even else self.dataset)

    @property
    def _twin(self) -> str:
        if self.dataset not in TWINS:
            return "This data set has no generated twin; longbench-twin holds those there are."
        return (
            "A generated twin: unspool evaluate make --task longbench-twin/"
            f"{TWINS[self.dataset]} --length 4k --n 200 --out data.jsonl"
        )


def make_task(dataset: str, *, even: bool = False) -> LongBenchTask:
    """The task of a data set, with the project's own prompt."""
    facts = DATASETS[dataset]
    spec = TaskSpec(
        name=f"longbench{'-e' if even else ''}/{dataset}",
        ability=facts.category,
        language=facts.language,
        max_new_tokens=facts.max_new_tokens,
        overflow="ends",
        limit_rule="thousands",
        chat="never" if dataset in NEVER_CHAT else "auto",
        unit="chars" if facts.language == "zh" else "words",
        metric=LongBenchMetric(dataset=dataset).id,
        data_source="the release" if even else f"the release, {facts.items} items",
        prompt_fingerprint=fingerprint(OWN[dataset]),
        licence="each data set keeps its own",
    )
    name = f"{dataset}_e" if even else dataset
    return LongBenchTask(
        spec=spec,
        metric=LongBenchMetric(dataset=dataset, buckets=even),
        release=release(name),
        dataset=dataset,
        template=OWN[dataset],
        even=even,
    )
