"""The eleven data sets of LV-Eval: hops, language, rule, most new tokens, questions, devices.

Source: Yuan et al. (2024), arXiv 2402.05136, tables 2 and 3; `config.py` of the release. The lists
of words that carry no answer are those of its `metrics.py` (MIT).
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from unspool.evaluation.spec import LengthLevel, Release

Rule: TypeAlias = Literal["f1", "f1_zh", "keywords", "keywords_zh", "rouge_zh"]

LEVELS = ("16k", "32k", "64k", "128k", "256k")
THRESHOLD = {"keywords": 0.2, "keywords_zh": 0.4}
"""Recall of the keywords below which an answer scores 0."""


class Dataset(NamedTuple):
    """Facts of one data set."""

    hops: Literal["single-hop", "multi-hop"]
    language: Literal["en", "zh"]
    rule: Rule
    questions: int
    max_new_tokens: int = 64
    confusing_facts: bool = False
    replaced: int = 0
    """Pairs of a phrase and what replaces it."""
    licence: str = "MIT"


DATASETS: dict[str, Dataset] = {
    "loogle_SD_mixup": Dataset("single-hop", "en", "keywords", 160),
    "cmrc_mixup": Dataset("single-hop", "zh", "keywords_zh", 200, 64, False, 786, "CC-BY-SA-4.0"),
    "multifieldqa_en_mixup": Dataset("single-hop", "en", "keywords", 101, 64, True, 476),
    "multifieldqa_zh_mixup": Dataset("single-hop", "zh", "keywords_zh", 133, 64, True, 424),
    "factrecall_en": Dataset("single-hop", "en", "f1", 200, 16, True, 3),
    "factrecall_zh": Dataset("single-hop", "zh", "f1_zh", 200, 16, True, 3),
    "dureader_mixup": Dataset("multi-hop", "zh", "rouge_zh", 176),
    "loogle_CR_mixup": Dataset("multi-hop", "en", "keywords", 99),
    "loogle_MIR_mixup": Dataset("multi-hop", "en", "keywords", 139),
    "hotpotwikiqa_mixup": Dataset("multi-hop", "en", "keywords", 124, 64, True, 232),
    "lic_mixup": Dataset("multi-hop", "zh", "keywords_zh", 197, 64, True, 0, "CC-BY-SA-4.0"),
}

_WORDS_EN = (
    "about and are as at be because being but by does for from had has have he her his in is "
    "it of on or she that their they this to was were what when which who with"
)
_WORDS_ZH = (
    "的 和 是 等 在 年 可以 为 与 ‰ 了 或 一种 月 c 至 日 有 进行 于 不 "
    "中 × 根据 小 由 亩 也 要 指 法 会 元 主要 以及 通过 首先 对 然后 号 "
    "以 所 后 丁 包括 无 将 用 能 形 方面 因素 位于 而 从 到 一定 用于 但 "
    "使用 让 具有 并 亿元 万元 上 类 基于 才 来 地 片 其他 个 或者 变得 时 "
    "给 你 使 条 受 已经 带 度"
)
EMPTY_EN = frozenset(_WORDS_EN.split(" "))
"""English words that do not count towards the recall of keywords."""
EMPTY_ZH = frozenset(_WORDS_ZH.split(" "))
"""Chinese words that do not count, and that are struck out before ROUGE."""

SCHEMA = {
    "input": "str",
    "context": "str",
    "answers": "list[str]",
    "length": "int (words; characters for Chinese)",
    "dataset": "str",
    "language": "str",
    "answer_keywords": "str",
    "confusing_facts": "str or list[str]",
}


def unit(name: str) -> str:
    """What lengths of a data set are counted in."""
    return "chars" if DATASETS[name].language == "zh" else "words"


def levels(name: str) -> tuple[LengthLevel, ...]:
    """The five lengths of a data set, in its unit."""
    return tuple(LengthLevel.parse(level, unit(name)) for level in LEVELS)


def release(name: str, level: str = LEVELS[0]) -> Release:
    """Where the records of a data set and level are."""
    file = f"{name}_{level}.jsonl"
    return Release(
        dataset="Infinigence/LVEval",
        files=(f"{name}.zip!{file}",),
        revision="",
        schema=SCHEMA,
        licence=DATASETS[name].licence,
        note=(
            "The data set is gated: it takes a token. Its code names it infini-ai/LVEval. The "
            "revision is not pinned."
        ),
    )
