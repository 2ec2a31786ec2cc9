"""A configuration of M4LE as a task: its records by length bucket, its prediction files.

Source: Kwan et al. (2023), section 3; `inference.py` of the release: prompt = instruction, newline,
input.
Differs from the released code: the limit of new tokens is by kind of task (there: the bucket's
length); answers are matched to records by line and never by order of arrival.
Cost: one pass over the records.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

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
)
from unspool.evaluation.tasks._release import field, prediction_lines, records
from unspool.evaluation.tasks.base import GENERATED, Task
from unspool.evaluation.tasks.m4le.facts import BUCKETS, CONFIGS, release
from unspool.evaluation.tasks.m4le.metric import MISSING, M4LEMetric


@dataclass(frozen=True, slots=True, kw_only=True)
class M4LETask(Task):
    """One configuration."""

    config: str

    def samples(
        self,
        level: LengthLevel | None,
        n: int,
        *,
        seed: int = 0,
        source: Source = GENERATED,
        size: Sizer = len,
    ) -> Iterator[Sample]:
        """The first records of a bucket, in the release's order; None takes every bucket."""
        path = source.path if source.kind == "release" else None
        yield from islice(self._of(level, path), n)

    def _of(self, level: LengthLevel | None, path: str | None) -> Iterator[Sample]:
        twin = (
            f"A generated relative: unspool evaluate make --task m4le-twin/{self.spec.ability} "
            "--length 1k --n 200 --out data.jsonl"
        )
        seen: set[int] = set()
        found = False
        for number, record in enumerate(records(release(self.config), path, twin=twin)):
            where = f"Record {number + 1} of {self.config}"
            sample = self._sample(record, number, where)
            bucket = int(sample.meta["bucket"])
            seen.add(bucket)
            if level is None or bucket == level.nominal:
                found = True
                yield sample
        if not found and level is not None:
            held = ", ".join(str(bucket) for bucket in sorted(seen)) or "none"
            raise InputError(
                f"{self.config} has no records of length {level.nominal}. Its buckets: {held}."
            )

    def _sample(self, record: dict[str, Any], number: int, where: str) -> Sample:
        answers = tuple(map(str, field(record, "answers", list, where)))
        if not answers:
            raise InputError(f"{where} has no answers.")
        bucket = field(record, "length_bucket", int, where)
        unit = self.spec.unit
        length = record.get("input_length")
        return Sample(
            id=str(number),
            parts=Parts(
                f"{field(record, 'instruction', str, where)}\n", field(record, "input", str, where)
            ),
            references=answers,
            level=LengthLevel(unit, bucket).name,
            lengths={unit: length} if isinstance(length, int) else {},
            language=self.spec.language,
            meta={"bucket": bucket},
        )

    def read_predictions(self, path: Path) -> Iterator[Prediction]:
        """The JSON lines of `inference.py`: the record with `gen_resp`.

        A line without an answer counts as missing: the release passes over it.
        """
        for number, record in prediction_lines(path):
            where = f"Line {number} of {path.name}"
            sample = Sample(
                id=str(number - 1),
                parts=Parts(),
                references=tuple(map(str, field(record, "answers", list, where))),
                level=LengthLevel(self.spec.unit, field(record, "length_bucket", int, where)).name,
                language=self.spec.language,
                meta={"bucket": record["length_bucket"]},
            )
            if not sample.references:
                raise InputError(f"{where} has no answers.")
            if "gen_resp" not in record:
                yield Prediction(sample, Response(finish_reason=MISSING))
                continue
            yield Prediction(sample, Response(text=field(record, "gen_resp", str, where)))


def make_task(name: str) -> M4LETask:
    """The task of a configuration."""
    facts = CONFIGS[name]
    unit = "chars" if facts.language == "zh" else "words"
    metric = M4LEMetric.of(name)
    return M4LETask(
        spec=TaskSpec(
            name=f"m4le/{name}",
            ability=facts.ability,
            language=facts.language,
            max_new_tokens=facts.max_new_tokens,
            unit=unit,
            levels=tuple(LengthLevel(unit, bucket) for bucket in BUCKETS),
            metric=metric.id,
            data_source="the release, 200 items a length",
            prompt_source="reference",
            licence="MIT",
        ),
        metric=metric,
        release=release(name),
        config=name,
    )
