"""How well a model does: entities, answers, classes.

What: precision, recall and F1 of whole entities; exact match and F1 of answers; accuracy, F1 and
area under the curve of classes.
Source: conlleval and seqeval (its default mode); the scripts of SQuAD 1.1 and 2.0; AUC as the
share of pairs in the right order (Mann and Whitney).
Differs from them: figures are shares between 0 and 1, also for SQuAD.
Cost: linear in the records, but for AUC, which sorts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unspool.errors import InputError
from unspool.evaluation.metrics.f1 import qa_f1
from unspool.evaluation.metrics.normalise import normalise
from unspool.models.long_encoder.tasks.examples import Example
from unspool.models.long_encoder.tasks.fitting import labels_of
from unspool.models.long_encoder.tasks.predicting import Prediction, entities_of, predict
from unspool.models.long_encoder.tasks.windows import Reading

if TYPE_CHECKING:
    from unspool.models.long_encoder.tasks.heads import TaskModel


@dataclass(frozen=True, slots=True)
class Scores:
    """Figures of a task on labelled records."""

    figures: Mapping[str, float | None]
    """By name, as shares; None where a figure is not defined, as the AUC of one class."""
    by_label: Mapping[str, Mapping[str, float | None]]
    """Of each type of entity or class."""
    reading: Reading

    def to_json(self) -> dict[str, Any]:
        return {
            "figures": dict(self.figures),
            "by_label": {label: dict(each) for label, each in self.by_label.items()},
            "reading": self.reading.to_json(),
        }


def evaluate(model: TaskModel, examples: Sequence[Example], **options: Any) -> Scores:
    """Predict labelled records and compare.

    Args:
        model: Trained.
        examples: Labelled.
        **options: As `predict` takes them.

    Raises:
        InputError: A record has no label.
    """
    labels_of(model.task, examples)
    found = predict(model, examples, **options)
    return Scores(*compare(model, examples, found.predictions), found.reading)


def compare(
    model: TaskModel, examples: Sequence[Example], predictions: Sequence[Prediction]
) -> tuple[dict[str, float | None], dict[str, dict[str, float | None]]]:
    """Figures, and figures by label, of predictions beside what is known."""
    if model.task == "ner":
        return entity_scores([e.labels or () for e in examples], [p.labels for p in predictions])
    if model.task == "qa":
        pairs = [
            ("" if p.answer is None else p.answer.text, [a.text for a in e.answers or ()])
            for e, p in zip(examples, predictions, strict=True)
        ]
        return answer_scores(pairs), {}
    unknown = {label for e in examples for label in e.labels or ()} - set(model.labels)
    if unknown:
        raise InputError(
            f"The model does not know the label {sorted(unknown)[0]!r}; it has "
            f"{', '.join(model.labels)}."
        )
    right = np.array([[la in (e.labels or ()) for la in model.labels] for e in examples])
    said = np.array([[la in p.labels for la in model.labels] for p in predictions])
    shares = np.array([[share for _, share in p.probabilities] for p in predictions])
    return class_scores(model.labels, right, said, shares)


def entity_scores(
    right: Sequence[Sequence[str]], said: Sequence[Sequence[str]]
) -> tuple[dict[str, float | None], dict[str, dict[str, float | None]]]:
    """Precision, recall and F1 of whole entities, over all and by type."""
    counts: dict[str, list[int]] = {}  # hits, said, right
    for one, other in zip(right, said, strict=True):
        if len(one) != len(other):
            raise InputError(f"{len(other):,} tags for {len(one):,} words.")
        wanted, given = set(entities_of(one)), set(entities_of(other))
        for column, found in enumerate((wanted & given, given, wanted)):
            for label, _, _ in found:
                counts.setdefault(label, [0, 0, 0])[column] += 1
    by_label = {label: _prf(*each) for label, each in sorted(counts.items())}
    total = [sum(each[column] for each in counts.values()) for column in range(3)]
    return _prf(*total), by_label


def _prf(hits: int, said: int, right: int) -> dict[str, float | None]:
    return {
        "precision": hits / said if said else 0.0,
        "recall": hits / right if right else 0.0,
        "f1": 2 * hits / (said + right) if said + right else 0.0,
    }


def answer_scores(pairs: Sequence[tuple[str, Sequence[str]]]) -> dict[str, float | None]:
    """Exact match and F1 of (answer, right answers); no answer is the empty text.

    An answer counts as the best of its right ones says. With records that have no answer, the
    figures of either kind are given as well.
    """
    rows = [
        (max(map(float, (_exact(said, t) for t in right or [""]))),
         max(_f1(said, t) for t in right or [""]), bool(right))
        for said, right in pairs
    ]  # fmt: skip
    out: dict[str, float | None] = {
        "exact": _mean([row[0] for row in rows]),
        "f1": _mean([row[1] for row in rows]),
    }
    if not all(row[2] for row in rows):
        for name, has in (("with an answer", True), ("without one", False)):
            out[f"exact, {name}"] = _mean([row[0] for row in rows if row[2] is has])
            out[f"f1, {name}"] = _mean([row[1] for row in rows if row[2] is has])
    return out


def _exact(said: str, right: str) -> bool:
    return normalise(said) == normalise(right)


def _f1(said: str, right: str) -> float:
    if not normalise(said) or not normalise(right):  # no answer is right or wrong as a whole
        return float(_exact(said, right))
    return float(qa_f1(said, right))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def class_scores(
    labels: Sequence[str], right: Any, said: Any, shares: Any
) -> tuple[dict[str, float | None], dict[str, dict[str, float | None]]]:
    """Accuracy, F1 and AUC of classes.

    Args:
        labels: The classes.
        right: [records, classes] of bool.
        said: [records, classes] of bool.
        shares: [records, classes], higher is likelier.
    """
    by_label: dict[str, dict[str, float | None]] = {}
    for column, label in enumerate(labels):
        hits = int((right[:, column] & said[:, column]).sum())
        counts = hits, int(said[:, column].sum()), int(right[:, column].sum())
        by_label[label] = {**_prf(*counts), "auc": auc(right[:, column], shares[:, column])}
    areas = [each["auc"] for each in by_label.values() if each["auc"] is not None]
    f1s = [each["f1"] for each in by_label.values() if each["f1"] is not None]
    micro = _prf(int((right & said).sum()), int(said.sum()), int(right.sum()))
    return {
        "accuracy": float((right == said).all(-1).mean()),
        "micro f1": micro["f1"],
        "macro f1": _mean(f1s),
        "auc": _mean(areas),
    }, by_label


def auc(right: Any, shares: Any) -> float | None:
    """Share of pairs, one of the class and one not, whose order is right; ties are half."""
    yes = int(right.sum())
    no = len(right) - yes
    if not yes or not no:
        return None
    _, place, counts = np.unique(shares, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((ranks[right].sum() - yes * (yes + 1) / 2) / (yes * no))
