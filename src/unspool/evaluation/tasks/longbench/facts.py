"""The 21 data sets of LongBench: category, language, metric, most new tokens, size.

Source: Bai et al. (2023), table 1 and appendix A; the release's `dataset2maxlen.json`, `eval.py`
and `pred.py`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from unspool.evaluation.spec import Release

Kind: TypeAlias = Literal[
    "qa_f1", "qa_f1_zh", "rouge", "rouge_zh", "classification", "retrieval", "count", "code"
]


class Dataset(NamedTuple):
    """Facts of one data set."""

    category: str
    language: str
    kind: Kind
    max_new_tokens: int
    items: int = 200


DATASETS: dict[str, Dataset] = {
    "narrativeqa": Dataset("single-doc-qa", "en", "qa_f1", 128),
    "qasper": Dataset("single-doc-qa", "en", "qa_f1", 128),
    "multifieldqa_en": Dataset("single-doc-qa", "en", "qa_f1", 64, 150),
    "multifieldqa_zh": Dataset("single-doc-qa", "zh", "qa_f1_zh", 64),
    "hotpotqa": Dataset("multi-doc-qa", "en", "qa_f1", 32),
    "2wikimqa": Dataset("multi-doc-qa", "en", "qa_f1", 32),
    "musique": Dataset("multi-doc-qa", "en", "qa_f1", 32),
    "dureader": Dataset("multi-doc-qa", "zh", "rouge_zh", 128),
    "gov_report": Dataset("summaries", "en", "rouge", 512),
    "qmsum": Dataset("summaries", "en", "rouge", 512),
    "multi_news": Dataset("summaries", "en", "rouge", 512),
    "vcsum": Dataset("summaries", "zh", "rouge_zh", 512),
    "trec": Dataset("few-shot", "en", "classification", 64),
    "triviaqa": Dataset("few-shot", "en", "qa_f1", 32),
    "samsum": Dataset("few-shot", "en", "rouge", 128),
    "lsht": Dataset("few-shot", "zh", "classification", 64),
    "passage_count": Dataset("synthetic", "en", "count", 32),
    "passage_retrieval_en": Dataset("synthetic", "en", "retrieval", 32),
    "passage_retrieval_zh": Dataset("synthetic", "zh", "retrieval", 32),
    "lcc": Dataset("code", "code", "code", 64, 500),
    "repobench-p": Dataset("code", "code", "code", 64, 500),
}
CATEGORIES = ("single-doc-qa", "multi-doc-qa", "summaries", "few-shot", "synthetic", "code")

FIRST_LINE = frozenset({"trec", "triviaqa", "samsum", "lsht"})
"""Only the first line of an answer counts."""
NEVER_CHAT = FIRST_LINE | {"lcc", "repobench-p"}
"""Never wrapped in a chat template."""
EVEN = (
    "qasper", "multifieldqa_en", "hotpotqa", "2wikimqa", "gov_report", "multi_news", "trec",
    "triviaqa", "samsum", "passage_count", "passage_retrieval_en", "lcc", "repobench-p",
)  # fmt: skip
"""Data sets of LongBench-E, whose items are spread evenly over three lengths."""

REVISION = "f72191f71cd6fcd0da8a54f0915078efda579449"
SCHEMA = {
    "input": "str",
    "context": "str",
    "answers": "list[str]",
    "length": "int",
    "dataset": "str",
    "language": "str",
    "all_classes": "list[str] | null",
    "_id": "str",
}


def release(name: str) -> Release:
    """Where the records of a data set are; `name` ends in `_e` for LongBench-E."""
    return Release(
        dataset="THUDM/LongBench",
        files=(f"data.zip!data/{name}.jsonl", f"data.zip!{name}/test-00000-of-00001.parquet"),
        revision=REVISION,
        schema=SCHEMA,
        licence="each data set keeps its own",
        note="Parquet mirrors of it call the field 'input' 'question'; both are read.",
    )
