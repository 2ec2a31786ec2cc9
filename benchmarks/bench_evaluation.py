"""Scoring predictions: LongBench's kinds of data sets, ours beside lm-evaluation-harness.

Predictions are as long as models write them: a phrase against a phrase (question answering), 250
words against 400 (summaries), a line against a line (code). English text is the Python language
reference, code the standard library, Chinese text words drawn from a short list. Scoring starts
from samples and answers in memory, as the runner has them. Rates are by processor time of one core,
which other work on the machine hardly moves.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from benchmarks.registry import benchmark, peer

TESTS = (
    "tests/evaluation/test_metrics.py",
    "tests/evaluation/test_metrics_rouge.py",
    "tests/evaluation/test_longbench.py",
)
SWEEP = {
    "dataset": (
        "hotpotqa",
        "passage_count",
        "trec",
        "lcc",
        "multifieldqa_zh",
        "samsum",
        "gov_report",
        "vcsum",
    )
}
MANY = 500
_LEAST = 0.25
FEW = 20
"""Of summaries: the package `rouge` takes a tenth of a second for one."""
_LABELS = [f"Kind {i} of thing" for i in range(50)]
_ZH = [
    "中国",
    "人民",
    "银行",
    "行长",
    "经济",
    "发展",
    "问题",
    "公司",
    "研究",
    "技术",
    "会议",
    "表示",
    "认为",
    "进行",
    "工作",
    "社会",
    "市场",
    "国家",
    "政府",
    "企业",
    "管理",
    "系统",
    "城市",
    "学生",
    "教育",
    "文化",
    "历史",
    "环境",
    "能源",
    "的",
    "在",
    "和",
    "了",
    "是",
    "对",
    "有",
    "为",
]


@benchmark("longbench-score", tests=TESTS, against=("lm-eval",), sweep=SWEEP, unit="thousand/s")
def longbench_score(dataset: str) -> Callable[[], float]:
    """Thousand predictions a second of one core."""
    from unspool.evaluation.spec import Parts, Response, Sample
    from unspool.evaluation.tasks.longbench.metric import LongBenchMetric

    metric = LongBenchMetric(dataset=dataset)
    items = [
        (
            Sample(id="1", parts=Parts(), references=tuple(row["answers"]), classes=tuple(_LABELS)),
            Response(text=row["pred"]),
        )
        for row in rows(dataset)
    ]
    metric.score(*items[0])  # the Chinese dictionary is read once a process
    return _rate(lambda: metric.aggregate([metric.score(*item) for item in items]), len(items))


@peer("longbench-score", "lm-eval", missing="lm_eval")
def longbench_score_harness(dataset: str) -> Callable[[], float]:
    """The same by the functions that its tasks call."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lm_eval.tasks.longbench import metrics
    from unspool.evaluation.tasks.longbench.facts import DATASETS

    names = {"qa_f1": "qa_f1", "qa_f1_zh": "qa_f1_zh", "rouge": "rouge", "rouge_zh": "rouge_zh",
             "classification": "classification", "retrieval": "retrieval", "count": "count",
             "code": "code_sim"}  # fmt: skip
    function = getattr(metrics, f"get_{names[DATASETS[dataset].kind]}_score")
    items = [({**row, "all_classes": _LABELS}, [row["pred"]]) for row in rows(dataset)]
    function(*items[0])
    return _rate(lambda: [function(*item) for item in items], len(items))


def _rate(call: Callable[[], object], items: int) -> Callable[[], float]:
    """Thousand items a second of processor time, over at least a quarter of a second."""

    def measure() -> float:
        started, done = time.process_time(), 0
        while (spent := time.process_time() - started) < _LEAST or not done:
            call()
            done += items
        return done / spent / 1000

    return measure


def rows(dataset: str) -> list[dict[str, Any]]:
    """Predictions and answers of usual lengths."""
    from unspool.evaluation.tasks.longbench.facts import DATASETS

    draw = random.Random(dataset)
    kind = DATASETS[dataset].kind
    if kind in ("qa_f1_zh", "rouge_zh"):
        given, wanted = (8, 8) if kind == "qa_f1_zh" else (120, 120)
        return [
            {"pred": _chinese(draw, given), "answers": [_chinese(draw, wanted)]}
            for _ in range(MANY if kind == "qa_f1_zh" else FEW)
        ]
    if kind == "code":
        return _lines(draw)
    if kind in ("count", "retrieval"):
        word = "Paragraph " if kind == "retrieval" else ""
        return [
            {"pred": f"There are {draw.randint(1, 30)}.", "answers": [f"{word}{i % 30}"]}
            for i in range(MANY)
        ]
    if kind == "classification":
        return [
            {"pred": draw.choice(_LABELS), "answers": [draw.choice(_LABELS)]} for _ in range(MANY)
        ]
    lengths = {"qa_f1": (12, 4), "rouge": (25, 20) if dataset == "samsum" else (250, 400)}
    given, wanted = lengths[kind]
    return [
        {"pred": _english(draw, given), "answers": [_english(draw, wanted)]}
        for _ in range(MANY if given < 100 else FEW)
    ]


def _english(draw: random.Random, words: int) -> str:
    from pydoc_data.topics import topics

    long = [text.split() for _, text in sorted(topics.items()) if len(text) > 6000]
    pieces = draw.choice(long)
    start = draw.randrange(max(1, len(pieces) - words))
    return " ".join(pieces[start : start + words])


def _chinese(draw: random.Random, words: int) -> str:
    return "".join(draw.choice(_ZH) + ("\uff0c" if i % 9 == 8 else "") for i in range(words)) + "。"


def _lines(draw: random.Random) -> list[dict[str, Any]]:
    from unspool.evaluation.tasks._passages import python_files

    lines = [
        line
        for _, text in python_files(None)[:60]
        for line in text.splitlines()
        if len(line.strip()) >= 12 and len(line) <= 80
    ]
    return [
        {"pred": "\n".join(draw.sample(lines, 3)), "answers": [draw.choice(lines)]}
        for _ in range(MANY)
    ]
