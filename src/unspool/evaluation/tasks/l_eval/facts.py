"""The 20 sub-tasks of L-Eval: group, how each is scored, where its records are.

Source: An et al. (2023), table 2 and section 3; `LEval_config.py` and the folder `LEval-data` of
the release.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from unspool.evaluation.spec import Release

Scoring: TypeAlias = Literal["exam", "f1", "rouge"]
Rule: TypeAlias = Literal["letter", "letters", "number", "code", "topic", "true-false", "text"]
"""What is taken out of an answer before it is matched."""


class SubTask(NamedTuple):
    """Facts of one sub-task."""

    group: Literal["closed", "open"]
    scoring: Scoring
    rule: Rule = "text"


TASKS: dict[str, SubTask] = {
    "coursera": SubTask("closed", "exam", "letters"),
    "gsm100": SubTask("closed", "exam", "number"),
    "quality": SubTask("closed", "exam", "letter"),
    "topic_retrieval_longchat": SubTask("closed", "exam", "topic"),
    "tpo": SubTask("closed", "exam", "letter"),
    "codeU": SubTask("closed", "exam", "code"),
    "sci_fi": SubTask("closed", "exam", "true-false"),
    "financial_qa": SubTask("open", "f1"),
    "legal_contract_qa": SubTask("open", "f1"),
    "multidoc_qa": SubTask("open", "f1"),
    "narrative_qa": SubTask("open", "f1"),
    "natural_question": SubTask("open", "f1"),
    "scientific_qa": SubTask("open", "f1"),
    "gov_report_summ": SubTask("open", "rouge"),
    "meeting_summ": SubTask("open", "rouge"),
    "news_summ": SubTask("open", "rouge"),
    "paper_assistant": SubTask("open", "rouge"),
    "patent_summ": SubTask("open", "rouge"),
    "review_summ": SubTask("open", "rouge"),
    "tv_show_summ": SubTask("open", "rouge"),
}
SUPPORTED = ("exam", "f1", "rouge")
"""Values of a record's `evaluation` that a program scores; `human` and `LLM` need a judge."""
SUBSETS = {"judge": ("LLM",), "human": ("human",), "cheap-judge": ("human", "LLM")}
"""Parts of the open tasks that are judged in pairs, by the `evaluation` of their documents."""

MAX_NEW_TOKENS = 512
REVISION = "cd34b050269148aed75acbbe4a599873ad0f37e9"
SCHEMA = {
    "input": "str",
    "instructions": "list[str]",
    "outputs": "list[str]",
    "source": "str",
    "evaluation": "exam | f1 | rouge | LLM | human",
}


def release(name: str) -> Release:
    """Where the records of a sub-task are."""
    folder = f"{TASKS[name].group.capitalize()}-ended-tasks"
    return Release(
        dataset="github:OpenLMLab/LEval",
        files=(f"LEval-data/{folder}/{name}.jsonl", f"{folder}/{name}.jsonl"),
        revision=REVISION,
        schema=SCHEMA,
        licence="GPL-3.0; each sub-task also that of its source",
        note="The hub has it as L4NLP/LEval, one config a sub-task, split test.",
    )
