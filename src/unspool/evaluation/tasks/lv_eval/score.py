"""LV-Eval's two-stage metric: the keywords of the answer must be there before words are counted.

What: F1 of words after a test of keyword recall (English 0.2, Chinese 0.4); plain F1 for
factrecall; ROUGE-L of Chinese words that carry an answer for dureader.
Source: Yuan et al. (2024), arXiv 2402.05136, section 3.3; `metrics.py` and `evaluation.py` of the
release.
Differs from the released code: none in the numbers. Keywords that hold no word, where the release
divides by zero, are an error that says so. The denominator of the recall counts every word of the
keywords, empty ones too; only the first answer of several is compared: both as released.
Cost: O(length); jieba for Chinese, about a megabyte a second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unspool.errors import ConfigError, InputError
from unspool.evaluation.metrics.f1 import bag_f1, qa_f1, qa_f1_zh, words_zh
from unspool.evaluation.metrics.normalise import normalise, normalise_zh
from unspool.evaluation.metrics.rouge import PYTHON_LIMIT, rouge_l
from unspool.evaluation.metrics.words import cut
from unspool.evaluation.spec import Response, Sample, mean_percent
from unspool.evaluation.tasks._release import field, prediction_lines
from unspool.evaluation.tasks.lv_eval.facts import (
    DATASETS,
    EMPTY_EN,
    EMPTY_ZH,
    LEVELS,
    THRESHOLD,
    Rule,
)


def score(
    dataset: str,
    prediction: str,
    answer: str,
    keywords: str | None = None,
    *,
    recursion_limit: int | None = PYTHON_LIMIT,
) -> float:
    """The score of one prediction, in 0-1.

    Args:
        dataset: One of the eleven.
        prediction: What the model wrote.
        answer: The first answer.
        keywords: Its hand-checked words; the answer stands in for them where a Chinese data set
            has none, and the first stage is left out where an English one has none.
        recursion_limit: Of the process whose `rouge` is reproduced (dureader only).

    Raises:
        ConfigError: There is no such data set.
        InputError: The keywords hold no word.
    """
    if dataset not in DATASETS:
        raise ConfigError(f"There is no data set {dataset!r} in LV-Eval: {', '.join(DATASETS)}.")
    rule = DATASETS[dataset].rule
    return score_rule(rule, prediction, answer, keywords, recursion_limit=recursion_limit)


def score_rule(
    rule: Rule,
    prediction: str,
    answer: str,
    keywords: str | None = None,
    *,
    recursion_limit: int | None = PYTHON_LIMIT,
) -> float:
    """The score of one prediction by a rule, in 0-1; see `score`."""
    if rule == "f1":
        return qa_f1(prediction, answer)
    if rule == "f1_zh":
        return qa_f1_zh(prediction, answer)
    if rule == "rouge_zh":
        return _rouge_zh(prediction, answer, recursion_limit)
    if rule == "keywords":
        said, wanted = normalise(prediction).split(), normalise(answer).split()
        if keywords and recall(said, normalise(keywords).split(), EMPTY_EN) < THRESHOLD[rule]:
            return 0.0
        return bag_f1(said, wanted)
    said, wanted = words_zh(prediction), words_zh(answer)
    key = keywords or answer
    if key and recall(said, words_zh(key), EMPTY_ZH) < THRESHOLD[rule]:
        return 0.0
    return bag_f1(said, wanted)


def recall(said: Sequence[str], keywords: Sequence[str], empty: Collection[str]) -> float:
    """Share of the keywords that were said; empty words never count as said.

    Raises:
        InputError: There are no keywords.
    """
    if not keywords:
        raise InputError(
            "The keywords of an answer hold no word once punctuation and articles are gone, so "
            "their recall is not defined (the release divides by zero). Leave them out."
        )
    shared = Counter(said) & Counter(keywords)
    return sum(n for word, n in shared.items() if word not in empty) / len(keywords)


def _rouge_zh(prediction: str, answer: str, recursion_limit: int | None) -> float:
    found = rouge_l(_telling(prediction), _telling(answer), recursion_limit=recursion_limit)
    return found.f if found else 0.0


def _telling(text: str) -> str:
    """Words cut twice, normalised, the empty ones struck out, joined; blanks leave gaps."""
    words = [normalise_zh(word) for word in cut(" ".join(cut(text)))]
    return " ".join(word for word in words if word not in EMPTY_ZH)


@dataclass(frozen=True, slots=True)
class TwoStage:
    """The metric of a rule; `meta["keywords"]` of a sample holds the keywords."""

    rule: Rule

    @property
    def id(self) -> str:
        """Name and version of the arithmetic."""
        return f"lv-eval:{self.rule}@1"

    @property
    def packages(self) -> tuple[str, ...]:
        """Chinese numbers hang on jieba's dictionary."""
        return ("jieba",) if self.rule.endswith("zh") else ()

    def score(self, sample: Sample, response: Response) -> dict[str, float]:
        """`score`, and `plain`, the score without the first stage."""
        if sample.choices:
            best = max(range(len(response.logprobs)), key=lambda i: (response.logprobs[i], -i))
            return {"score": float(sample.choices[best] in sample.references)}
        answer = sample.references[0]
        keywords = sample.meta.get("keywords")
        found = score_rule(self.rule, response.text, answer, keywords)
        if not self.rule.startswith("keywords"):
            return {"score": found}
        plain = score_rule("f1_zh" if self.rule.endswith("zh") else "f1", response.text, answer)
        return {"score": found, "plain": plain}

    def aggregate(self, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """`round(100 * mean, 2)`, as `evaluation.py` prints it."""
        return {"score": mean_percent(scores)}


def split_name(stem: str) -> tuple[str, str]:
    """Data set and level of a file `<dataset>_<level>`.

    Raises:
        InputError: The name holds no known data set or level.
    """
    dataset, _, level = stem.rpartition("_")
    if dataset not in DATASETS or level not in LEVELS:
        raise InputError(
            f"{stem!r} is not <dataset>_<level>, such as {next(iter(DATASETS))}_{LEVELS[0]}."
        )
    return dataset, level


def read(path: Path) -> list[tuple[str, str, str | None]]:
    """Prediction, first answer and keywords of each line of a prediction file.

    Raises:
        InputError: A line lacks `pred` or `answers`, or there are no lines.
    """
    rows = []
    for number, record in prediction_lines(path):
        where = f"Line {number} of {path.name}"
        answers = field(record, "answers", list, where)
        keywords = record.get("gold_ans")
        if keywords is not None and not isinstance(keywords, str):
            raise InputError(f"{where}: field 'gold_ans' should be a text, got {keywords!r}.")
        # No answer at all scores 0 in the release; an empty one does too.
        rows.append((field(record, "pred", str, where), str(answers[0]) if answers else "",
                     keywords))  # fmt: skip
    return rows


def score_dir(folder: Path | str) -> dict[str, float]:
    """The score of every `<dataset>_<level>.jsonl` in a folder, as the release's `result.json`.

    Returns:
        `<dataset>_<level>` to `round(100 * mean, 2)`, in the order of names; and for each level
        `level/<level>`, the plain mean over its data sets, rounded to two digits.

    Raises:
        InputError: The folder holds no such file, or a line is no prediction.
    """
    found: dict[str, float] = {}
    for path in sorted(Path(folder).glob("*.jsonl")):
        dataset, _ = split_name(path.stem)
        total = [{"score": score(dataset, *row) if row[1] else 0.0} for row in read(path)]
        found[path.stem] = mean_percent(total)
    if not found:
        raise InputError(f"{folder} holds no <dataset>_<level>.jsonl file of predictions.")
    for level in LEVELS:
        values = [value for name, value in found.items() if name.endswith(f"_{level}")]
        if values:
            found[f"level/{level}"] = round(sum(values) / len(values), 2)
    return found
