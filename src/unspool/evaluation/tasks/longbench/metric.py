"""Score one LongBench answer and a data set of them as the release's `eval.py` does.

Source: Bai et al. (2023), section 3.3; `eval.py` and `metrics.py` of the release.
Differs from the released code: an empty bucket of LongBench-E is left out (there: NaN); the backend
of the code score is stated (there: whichever package is installed decides).
Cost: see the metrics; ROUGE and difflib dominate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from unspool.errors import InputError
from unspool.evaluation.metrics.choice import classification, count, retrieval
from unspool.evaluation.metrics.f1 import qa_f1, qa_f1_zh
from unspool.evaluation.metrics.fuzzy import RatioKind, code_similarity
from unspool.evaluation.metrics.normalise import first_line
from unspool.evaluation.metrics.rouge import PYTHON_LIMIT, rouge_l, spaced
from unspool.evaluation.spec import Response, Sample, mean_percent
from unspool.evaluation.tasks.longbench.facts import DATASETS, FIRST_LINE, Kind

BUCKETS = (("0-4k", 4000), ("4-8k", 8000), ("8k+", None))
"""Of LongBench-E, by the record's `length`; an item below the bound belongs to the bucket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LongBenchMetric:
    """The metric of one data set."""

    dataset: str
    ratio: RatioKind = "difflib"
    """How lines of code are compared; `levenshtein` is what fuzzywuzzy does where
    python-Levenshtein is installed. The release's requirements give difflib."""
    recursion_limit: int | None = PYTHON_LIMIT
    """Texts on which `rouge` would exceed it score 0, as in the release; None: they are scored."""
    first_line: bool = True
    """Keep the first line only, for the few-shot data sets. The release's scorer for retrieved
    contexts does not."""
    buckets: bool = False
    """Report LongBench-E's three lengths too."""

    @property
    def id(self) -> str:
        kind = DATASETS[self.dataset].kind
        options: list[str] = []
        if kind == "code" and self.ratio != "difflib":
            options.append(self.ratio)
        if kind in ("rouge", "rouge_zh") and self.recursion_limit != PYTHON_LIMIT:
            options.append(f"recursion={self.recursion_limit}")
        if self.dataset in FIRST_LINE and not self.first_line:
            options.append("all-lines")
        return f"longbench.{'.'.join([kind, *options])}@1"

    @property
    def packages(self) -> tuple[str, ...]:
        return ("jieba",) if DATASETS[self.dataset].kind in ("qa_f1_zh", "rouge_zh") else ()

    def score(self, sample: Sample, response: Response) -> dict[str, float]:
        """The best score over the references; 0 without references."""
        text = response.text
        if self.first_line and self.dataset in FIRST_LINE:
            text = first_line(text)
        function = _FUNCTIONS[DATASETS[self.dataset].kind]
        best = 0.0
        for reference in sample.references:
            best = max(best, function(self, text, reference, sample.classes))
        found = {"score": best}
        if self.buckets:
            length = sample.meta.get("length")
            if not isinstance(length, int):
                raise InputError(
                    f"Item {sample.id} has no 'length', which LongBench-E reports its scores by."
                )
            found["length"] = float(length)
        return found

    def aggregate(self, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """100 x mean to two decimals; with buckets also that of each."""
        found = {"score": mean_percent(scores)}
        if self.buckets:
            found.update(bucket_scores(scores))
        return found


def bucket_scores(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """100 x mean of each of LongBench-E's lengths; an empty one is left out."""
    found: dict[str, list[float]] = {name: [] for name, _ in BUCKETS}
    for each in scores:
        name = next(n for n, bound in BUCKETS if bound is None or each["length"] < bound)
        found[name].append(each["score"])
    # numpy's mean and rounding, which the release uses here, differ in last digits from Python's
    return {
        name: float(round(cast("np.float64", 100 * np.mean(values)), 2))
        for name, values in found.items()
        if values
    }


def _rouge(metric: LongBenchMetric, prediction: str, reference: str) -> float:
    found = rouge_l(prediction, reference, recursion_limit=metric.recursion_limit)
    return found.f if found else 0.0


_FUNCTIONS: dict[Kind, Callable[[LongBenchMetric, str, str, Sequence[str]], float]] = {
    "qa_f1": lambda m, p, r, c: qa_f1(p, r),
    "qa_f1_zh": lambda m, p, r, c: qa_f1_zh(p, r),
    "rouge": lambda m, p, r, c: _rouge(m, p, r),
    "rouge_zh": lambda m, p, r, c: _rouge(m, spaced(p), spaced(r)),
    "classification": lambda m, p, r, c: classification(p, r, c),
    "retrieval": lambda m, p, r, c: retrieval(p, r, "zh" if m.dataset.endswith("_zh") else "en"),
    "count": lambda m, p, r, c: count(p, r),
    "code": lambda m, p, r, c: code_similarity(p, r, m.ratio),
}
