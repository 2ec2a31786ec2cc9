"""The 39 configurations of M4LE: ability, kind of task, language, metric, where an answer ends.

Source: Kwan et al. (2023), section 3 and table 2; the table in `evaluation.py` of the release.
Differs from the released code: tasks are found by the names of the data and by those of the scorer,
which adds suffixes (`_cls+ret`, `_qa`, `_ret`, `_cls+cnt`) that the data lacks.
"""

# ruff: noqa: RUF001 - Chinese punctuation ends Chinese answers

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from unspool.evaluation.spec import Release

Kind: TypeAlias = Literal["acc", "exact_match", "ids", "rouge", "bleu"]
ABILITIES = (
    "explicit-single", "explicit-multiple", "semantic-single", "semantic-multiple", "global",
)  # fmt: skip


class Config(NamedTuple):
    """Facts of one configuration."""

    folder: str
    """Of its file in the data set."""
    ability: str
    kind: Kind
    language: str
    ends: tuple[str, ...] = ()
    """An answer is cut at each of these in turn."""
    suffix: str = ""
    """What the release's scorer adds to the name."""
    max_new_tokens: int = 64
    rule: str = ""
    """Preparation of answers and references that only this configuration has."""


_LINE = ("\n",)
_EN_QA = ("\n", ".")
_ZH_QA = ("\n", "。")
_SUM = 512
_TRANSLATE = 1024

CONFIGS: dict[str, Config] = {
    "mnds-news_explicit-single": Config(
        "classification", "explicit-single", "exact_match", "en", suffix="_cls+ret"
    ),
    "thucnews_explicit-single": Config(
        "classification", "explicit-single", "exact_match", "zh", suffix="_cls+ret"
    ),
    "newsqa": Config("qa", "explicit-single", "acc", "en", _EN_QA),
    "c3": Config("qa", "explicit-single", "acc", "zh", _ZH_QA),
    "wow": Config("topic_retrieval", "explicit-single", "acc", "en", (",", "\n")),
    "drcd_explicit-single": Config(
        "topic_retrieval", "explicit-single", "acc", "zh", ("，", "\n"), "_ret"
    ),
    "cnnnews": Config("summarization", "explicit-single", "rouge", "en", _LINE, "", _SUM),
    "cepsum": Config("summarization", "explicit-single", "rouge", "zh", _LINE, "", _SUM),
    "lcsts": Config("summarization", "explicit-single", "rouge", "zh", _LINE, "", _SUM),
    "ncls": Config("summarization", "explicit-single", "rouge", "zh", _LINE, "", _SUM),
    "mnds-news_explicit-multiple": Config(
        "classification", "explicit-multiple", "ids", "en", (), "_cls+ret", 512
    ),
    "thucnews_explicit-multiple": Config(
        "classification", "explicit-multiple", "ids", "zh", (), "_cls+ret", 512
    ),
    "marc": Config("classification", "explicit-multiple", "ids", "en", (), "", 512, "cut-gold"),
    "online-shopping": Config("classification", "explicit-multiple", "ids", "zh", (), "", 512),
    "wikitext-103": Config("nli", "semantic-single", "exact_match", "en", (".",)),
    "wiki2019zh": Config("nli", "semantic-single", "exact_match", "zh", ("。",)),
    "duorc": Config("qa", "semantic-single", "acc", "en", _EN_QA),
    "nq-open": Config("qa", "semantic-single", "acc", "en", _EN_QA),
    "dureader": Config("qa", "semantic-single", "acc", "zh", _ZH_QA),
    "drcd_semantic-single": Config("qa", "semantic-single", "acc", "zh", _ZH_QA, "_qa"),
    "wikihow": Config("summarization", "semantic-single", "rouge", "en", _LINE, "", _SUM),
    "news2016": Config(
        "summarization", "semantic-single", "rouge", "zh", _LINE, "", _SUM, "quoted"
    ),
    "tedtalks-en2zh": Config("translation", "semantic-single", "bleu", "zh", (), "", _TRANSLATE),
    "tedtalks-zh2en": Config("translation", "semantic-single", "bleu", "en", (), "", _TRANSLATE),
    "mnds-news_semantic-multiple": Config(
        "classification", "semantic-multiple", "exact_match", "en", (".",), "_cls+cnt",
        rule="cut-gold",
    ),
    "thucnews_semantic-multiple": Config(
        "classification", "semantic-multiple", "exact_match", "zh", ("。",), "_cls+cnt",
        rule="cut-gold",
    ),
    "hotpotqa": Config("qa", "semantic-multiple", "acc", "en", _EN_QA),
    "bigpatent_global_cls": Config("classification", "global", "acc", "en", (":",)),
    "triviaqa": Config("qa", "global", "acc", "en", _EN_QA),
    "arxiv": Config("summarization", "global", "rouge", "en", _LINE, "", _SUM),
    "bigpatent_global_sum": Config("summarization", "global", "rouge", "en", _LINE, "", _SUM),
    "pubmed": Config("summarization", "global", "rouge", "en", _LINE, "", _SUM),
    "booksum": Config("summarization", "global", "rouge", "en", _LINE, "", _SUM),
    "cnewsum": Config("summarization", "global", "rouge", "zh", ("\n", "新闻"), "", _SUM),
    "clts+": Config("summarization", "global", "rouge", "zh", ("\n", "新闻"), "", _SUM),
    "open-subtitles-en2zh": Config("translation", "global", "bleu", "zh", (), "", _TRANSLATE),
    "open-subtitles-zh2en": Config("translation", "global", "bleu", "en", (), "", _TRANSLATE),
    "news-commentary-en2zh": Config("translation", "global", "bleu", "zh", (), "", _TRANSLATE),
    "news-commentary-zh2en": Config("translation", "global", "bleu", "en", (), "", _TRANSLATE),
}  # fmt: skip
BUCKETS = (1000, 2000, 4000, 6000, 8000)
"""Of the paper; the release goes on to 12k-128k."""
REVISION = "6bd9df9f6ae376d324689621755010dc2a563ffd"
SCHEMA = {
    "instruction": "str",
    "input": "str",
    "answers": "list[str]",
    "input_length": "int",
    "total_length": "int",
    "length_bucket": "int",
}


def release(name: str) -> Release:
    """Where the records of a configuration are."""
    return Release(
        dataset="wckwan/M4LE",
        files=(f"{CONFIGS[name].folder}/{name}.jsonl", f"data.zip!{name}.jsonl"),
        revision=REVISION,
        schema=SCHEMA,
        licence="MIT; each source keeps its own",
    )


def config_of(name: str) -> str | None:
    """The configuration that a name of the data or of the release's scorer stands for."""
    if name in CONFIGS:
        return name
    return next((n for n, c in CONFIGS.items() if c.suffix and n + c.suffix == name), None)
