"""Scores of lists and files of predictions, and the averages that the paper prints.

Source: `eval.py` of the release; Bai et al. (2023), table 2: a category is the mean of its data
sets of one language, a language the mean of its six categories, with code in both.
Differs from the released code: labels that change within a file, and a file without predictions,
are errors (there: the last line's labels count, and a division by zero).
Cost: that of the metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unspool.errors import ConfigError, InputError
from unspool.evaluation.metrics.fuzzy import RatioKind
from unspool.evaluation.metrics.rouge import PYTHON_LIMIT
from unspool.evaluation.spec import Parts, Response, Sample
from unspool.evaluation.tasks.longbench.facts import CATEGORIES, DATASETS
from unspool.evaluation.tasks.longbench.metric import LongBenchMetric
from unspool.evaluation.tasks.longbench.task import make_task


class Summary(NamedTuple):
    """Averages of the paper's table, in percent; None where a data set is missing."""

    categories: Mapping[str, Mapping[str, float]]
    """By language, then category: the mean over the data sets there are."""
    languages: Mapping[str, float | None]
    """Mean of the six categories."""
    missing: tuple[str, ...]
    """Data sets without a score."""


def score(
    dataset: str,
    predictions: Sequence[str],
    answers: Sequence[Sequence[str]],
    all_classes: Sequence[str] | None = None,
    *,
    ratio: RatioKind = "difflib",
    recursion_limit: int | None = PYTHON_LIMIT,
    first_line: bool = True,
) -> float:
    """The score of one data set as the release prints it, in percent to two decimals.

    Args:
        dataset: One of the 21, with or without `_e`.
        predictions: Answers of a model.
        answers: References of each.
        all_classes: Labels; trec and lsht need them.
        ratio: How lines of code are compared.
        recursion_limit: See `LongBenchMetric`.
        first_line: False for the release's scorer of retrieved contexts.

    Raises:
        ConfigError: There is no such data set.
        InputError: The lists differ in length or are empty, or labels are missing.
    """
    name = _known(dataset)
    if len(predictions) != len(answers):
        raise InputError(f"{len(predictions)} predictions meet {len(answers)} lists of answers.")
    if not predictions:
        raise InputError("There are no predictions to score.")
    if DATASETS[name].kind == "classification" and not all_classes:
        raise InputError(f"{name} is scored with its labels: give 'all_classes'.")
    metric = LongBenchMetric(
        dataset=name, ratio=ratio, recursion_limit=recursion_limit, first_line=first_line
    )
    classes = tuple(all_classes or ())
    scores = [
        metric.score(
            Sample(id="", parts=Parts(), references=tuple(references), classes=classes),
            Response(text=prediction),
        )
        for prediction, references in zip(predictions, answers, strict=True)
    ]
    return metric.aggregate(scores)["score"]


def score_file(
    path: str | Path, dataset: str | None = None, *, e: bool = False, ratio: RatioKind = "difflib"
) -> dict[str, float]:
    """The scores of a prediction file of the release.

    Args:
        path: JSON lines with `pred`, `answers`, `all_classes`, `length`.
        dataset: Its data set; by default the file's name up to the first full stop, as there.
        e: LongBench-E: also by length.
        ratio: How lines of code are compared.
    """
    file = Path(path)
    task = make_task(_known(dataset or file.name.split(".")[0]), even=e)
    metric = LongBenchMetric(dataset=task.dataset, ratio=ratio, buckets=e)
    return metric.aggregate(
        [metric.score(p.sample, p.response) for p in task.read_predictions(file)]
    )


def summary(scores: Mapping[str, float]) -> Summary:
    """Categories and languages from the scores of data sets."""
    for name in scores:
        _known(name)
    categories: dict[str, dict[str, float]] = {}
    languages: dict[str, float | None] = {}
    for language in ("en", "zh"):
        found: dict[str, float] = {}
        for category in CATEGORIES:
            values = [
                scores[name]
                for name, facts in DATASETS.items()
                if facts.category == category and facts.language in (language, "code")
                if name in scores
            ]
            if values:
                found[category] = _mean(values)
        categories[language] = found
        languages[language] = _mean(found.values()) if len(found) == len(CATEGORIES) else None
    return Summary(categories, languages, tuple(name for name in DATASETS if name not in scores))


def summarise(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Categories and languages of a report's tasks, by names such as `en summarization`."""
    found = summary({name: task["overall"]["metric"]["score"] for name, task in tasks.items()})
    named = {
        f"{language} {category}": value
        for language, categories in found.categories.items()
        for category, value in categories.items()
    }
    return named | {name: value for name, value in found.languages.items() if value is not None}


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def _known(dataset: str) -> str:
    name = dataset.removesuffix("_e")
    if name not in DATASETS:
        raise ConfigError(
            f"LongBench has no data set {dataset!r}. It has {', '.join(DATASETS)}; a prediction "
            f"file is named after its own."
        )
    return name
