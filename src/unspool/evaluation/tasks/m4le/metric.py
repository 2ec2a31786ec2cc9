"""Score one M4LE answer, and a task bucket by bucket, as the release's `evaluation.py` does.

What: where an answer ends, then a substring, an equality, a set F1, a ROUGE-L RECALL or a corpus
BLEU; scores are in 0-1 and averaged within each length bucket.
Source: Kwan et al. (2023), section 4.2; `evaluation.py` and `utils/bleu.py` of the release.
Differs from the released code: items without an answer are counted in `coverage` (there: passed
over); a bucket in which every prediction lacks tokens has BLEU 0 (there: division by zero).
Cost: see the metrics.
"""

# ruff: noqa: RUF001 - Chinese punctuation

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unspool.evaluation.metrics.bleu import ORDERS, BleuCounts, bleu, bleu_counts
from unspool.evaluation.metrics.f1 import set_f1
from unspool.evaluation.metrics.rouge import rouge_l, rouge_l_zh, spaced
from unspool.evaluation.spec import Response, Sample
from unspool.evaluation.tasks.m4le.facts import CONFIGS, Kind

MISSING = "missing"
"""Finish reason of a line that holds no answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class M4LEMetric:
    """The metric of a configuration."""

    kind: Kind
    language: str = "en"
    ends: tuple[str, ...] = ()
    rule: str = ""

    @classmethod
    def of(cls, name: str) -> M4LEMetric:
        """The metric of a configuration by name."""
        facts = CONFIGS[name]
        return cls(kind=facts.kind, language=facts.language, ends=facts.ends, rule=facts.rule)

    @property
    def id(self) -> str:
        ends = "".join({"\n": "n", ".": "p", ",": "c", ":": "l", "。": "P", "，": "C"}.get(e, "w")
                       for e in self.ends)  # fmt: skip
        parts = [self.kind, self.language, *filter(None, (ends, self.rule))]
        return f"m4le.{'.'.join(parts)}@1"

    @property
    def packages(self) -> tuple[str, ...]:
        return ("jieba",) if self.kind == "rouge" and self.language == "zh" else ()

    def score(self, sample: Sample, response: Response) -> dict[str, float]:
        """`score`, the sample's `bucket`, and for BLEU the counts that a corpus adds up."""
        bucket = {"bucket": float(sample.meta.get("bucket", 0))}
        if response.finish_reason == MISSING:
            return {"score": 0.0, "missing": 1.0, **bucket}
        text, gold = response.text, sample.references
        if self.kind == "ids":
            return {"score": set_f1(self._ids(text, gold=False), self._ids(gold[0])), **bucket}
        if self.rule == "quoted" and '"' in text:
            text = text.split('"')[1].strip()
        for end in self.ends:
            text = text.split(end)[0].strip()
        text = text.strip()
        if self.kind == "bleu":
            counts = bleu_counts(text, gold, tokens="zh" if self.language == "zh" else "13a")
            return {"score": bleu([counts]) if counts.wanted else 0.0, **_flat(counts), **bucket}
        if self.kind == "rouge":
            return {"score": self._recall(text, gold), **bucket}
        if self.kind == "exact_match":
            if self.rule == "cut-gold":
                gold = (gold[0].split(self.ends[0])[0],)
            right = any(text.lower() == answer.lower().strip() for answer in gold)
        else:
            right = any(answer.lower() in text.lower() for answer in gold)
        return {"score": float(right), **bucket}

    def _ids(self, text: str, *, gold: bool = True) -> set[str]:
        """The ids of an answer up to its first full stop; a reference is cut for marc only."""
        stop, comma = ("。", "，") if self.language == "zh" else (".", ",")
        if not gold or self.rule == "cut-gold":
            text = text.split(stop)[0].strip()
        return {each.strip() for each in text.split(comma)}

    def _recall(self, text: str, gold: Sequence[str]) -> float:
        """The best recall; 0 if the text or any reference that is not empty cannot be scored."""
        best: list[float] = []
        for answer in filter(None, gold):
            if self.language == "zh":
                found = rouge_l_zh(spaced(text), spaced(answer))
            else:
                found = rouge_l(text, answer)
            if found is None:
                return 0.0
            best.append(found.recall)
        return max(best, default=0.0)

    def aggregate(self, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """The score of each bucket by its length, their mean as `score`, and the `coverage`."""
        found: dict[float, list[Mapping[str, float]]] = {}
        for each in scores:
            if "missing" not in each:
                found.setdefault(each["bucket"], []).append(each)
        buckets = {f"{bucket:.0f}": self._bucket(found[bucket]) for bucket in sorted(found)}
        held = sum(len(each) for each in found.values())
        mean = sum(buckets.values()) / len(buckets) if buckets else 0.0
        return {"score": mean, **buckets, "coverage": held / len(scores)}

    def _bucket(self, scores: Sequence[Mapping[str, float]]) -> float:
        if self.kind == "bleu":
            counts = [_counts(each) for each in scores]
            return bleu(counts) if sum(each.wanted for each in counts) else 0.0
        return sum(each["score"] for each in scores) / len(scores)


def _flat(counts: BleuCounts) -> dict[str, float]:
    return {
        **{f"match{i + 1}": float(counts.matches[i]) for i in range(ORDERS)},
        **{f"possible{i + 1}": float(counts.possible[i]) for i in range(ORDERS)},
        "given": float(counts.given),
        "wanted": float(counts.wanted),
    }


def _counts(flat: Mapping[str, float]) -> BleuCounts:
    return BleuCounts(
        tuple(int(flat[f"match{i + 1}"]) for i in range(ORDERS)),
        tuple(int(flat[f"possible{i + 1}"]) for i in range(ORDERS)),
        int(flat["given"]),
        int(flat["wanted"]),
    )
