"""Exact match, F1 and ROUGE as L-Eval reports them.

Source: `em.py`, `f1.py`, `rouge.py` and `auto_eval.py` of the release; An et al. (2023), section 4.
Differs from the released code: rougeLsum, which no headline uses, is left out, so no sentence
splitter is needed; a group of topics without questions is left out of the mean.
Cost: see the metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unspool.evaluation.metrics.f1 import qa_f1
from unspool.evaluation.metrics.normalise import normalise
from unspool.evaluation.metrics.rouge_score import rouge_scores
from unspool.evaluation.spec import Response, Sample
from unspool.evaluation.tasks.l_eval import extract
from unspool.evaluation.tasks.l_eval.facts import TASKS, Rule, Scoring

DIGITS = 4
PARTIAL = 0.25
_ROUGE = ("rouge1", "rouge2", "rougeL")
_TOPICS = 3


def exact_match(prediction: str, gold: str) -> float:
    """1, 0.25 or 0.

    Where the reference is letters A-D only: 1 if the normalised strings are equal, 0.25 if the
    prediction's characters are a part of the reference's (none is a part too). Otherwise: both
    numbers, 1 if they are equal; else 1 if the reference, blanks aside and in lower case, stands
    in the prediction.
    """
    wanted = normalise(gold, lower=False)
    if all(character in "ABCD" for character in wanted):
        given = normalise(prediction, lower=False)
        if given == wanted:
            return 1.0
        return PARTIAL if set(given) <= set(wanted) else 0.0
    try:
        return float(float(prediction) == float(gold))
    except ValueError:
        return float(_bare(gold) in _bare(prediction))


def _bare(text: str) -> str:
    return text.lower().replace(" ", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class LEvalMetric:
    """The metric of a sub-task."""

    scoring: Scoring
    rule: Rule = "text"
    packages: tuple[str, ...] = ()

    @classmethod
    def of(cls, task: str) -> LEvalMetric:
        """The metric of a sub-task by name."""
        facts = TASKS[task]
        return cls(scoring=facts.scoring, rule=facts.rule)

    @property
    def id(self) -> str:
        return f"l-eval.{self.scoring}.{self.rule}@1"

    def score(self, sample: Sample, response: Response) -> dict[str, float]:
        """The best score over the references, with what `aggregate` groups and averages by.

        Numbers and words that say the length of answer and reference go along for every open task.
        """
        text = response.text
        if self.scoring == "rouge":
            return {**_rouge(text, sample.references), **_words(text, sample.references)}
        if self.scoring == "f1":
            found = max((qa_f1(text, gold) for gold in sample.references), default=0.0)
            return {"score": found, **_words(text, sample.references)}
        if self.rule == "true-false":
            return self._truth(sample, text)
        found = max((self._exact(text, gold) for gold in sample.references), default=0.0)
        if self.rule == "topic":
            return {"score": found, "group": float(int(sample.meta["index"]) % _TOPICS)}
        return {"score": found}

    def _exact(self, text: str, gold: str) -> float:
        if self.rule in ("letter", "letters"):
            wanted = extract.letters_of_reference(gold)
            return exact_match(extract.letters(text, several=self.rule == "letters"), wanted)
        if self.rule == "number":
            return exact_match(extract.number(text), extract.number(gold))
        if self.rule == "code":
            return exact_match(extract.code_answer(text, gold), extract.code(gold))
        return exact_match(text, gold)

    def _truth(self, sample: Sample, text: str) -> dict[str, float]:
        """`loyalty` and `fact`; a sample of a run asks for one of them, a file's line has both."""
        wanted = extract.halves_of_reference(sample.references[0])
        part = sample.meta.get("part")
        if part is None:
            given = extract.halves(text)
            both = [exact_match(a, b) for a, b in zip(given, wanted, strict=True)]
            return {"score": sum(both) / 2, "loyalty": both[0], "fact": both[1]}
        found = exact_match(extract.truth(text), wanted[part == "fact"])
        return {"score": found, str(part): found}

    def aggregate(self, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """What the release prints, in percent to four decimals; means of groups are not rounded."""
        if self.scoring == "rouge":
            means = {k: _mean([100 * each[k] for each in scores]) for k in _ROUGE}
            product = means["rouge1"] * means["rouge2"] * means["rougeL"]
            found = {"score": round(product ** (1.0 / 3.0), DIGITS)}
            found |= {key: round(value, DIGITS) for key, value in means.items()}
        elif self.rule == "topic":
            groups = {
                f"topic{g + 1}": _percent([e["score"] for e in scores if e["group"] == g])
                for g in range(_TOPICS)
                if any(e["group"] == g for e in scores)
            }
            found = {"score": sum(groups.values()) / len(groups), **groups}
        elif self.rule == "true-false":
            parts = {
                part: _percent([e[part] for e in scores if part in e])
                for part in ("loyalty", "fact")
                if any(part in e for e in scores)
            }
            found = {"score": sum(parts.values()) / len(parts), **parts}
        else:
            found = {"score": _percent([each["score"] for each in scores])}
        if scores and "words" in scores[0]:
            found["words"] = _mean([each["words"] for each in scores])
            found["reference_words"] = _mean([each["reference_words"] for each in scores])
        return found


def _rouge(text: str, references: Sequence[str]) -> dict[str, float]:
    pairs = [rouge_scores(text, gold) for gold in references]
    best = {key: max((getattr(p, key) for p in pairs), default=0.0) for key in _ROUGE}
    product = best["rouge1"] * best["rouge2"] * best["rougeL"]
    return {"score": product ** (1.0 / 3.0), **best}


def _words(text: str, references: Sequence[str]) -> dict[str, float]:
    wanted = references[0] if references else ""
    return {"words": float(len(text.split())), "reference_words": float(len(wanted.split()))}


def _percent(values: Sequence[float]) -> float:
    total = 0.0
    for value in values:
        total += value
    return round(100.0 * total / len(values), DIGITS)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
