"""What generated M4LE tasks say, in English and Chinese, in the project's own words.

Source: the order of instruction, example, numbered items, question and cue is that of M4LE (Kwan et
al. 2023, appendix B).
"""

# ruff: noqa: RUF001 - Chinese punctuation

from __future__ import annotations

from typing import NamedTuple


class Wording(NamedTuple):
    """Sentences of one language. `{…}` are filled in."""

    instruction: dict[str, str]
    """By ability."""
    item: str
    query: str
    ask: dict[str, str]
    cue: str
    comma: str
    stop: str
    joint: str
    """Between the parts of a prompt."""


EN = Wording(
    instruction={
        "explicit-single": (
            "Below are texts, each with an id and each of one of these classes: {classes}. Name "
            "the class of the text with a given id."
        ),
        "explicit-multiple": (
            "Below are texts, each with an id and each of one of these classes: {classes}. List "
            "the ids of all texts of a given class, with commas between."
        ),
        "semantic-single": (
            "Below are a query and candidate texts, each with an id. Exactly one candidate goes on "
            "where the query ends. Give its id."
        ),
        "semantic-multiple": (
            "Below are texts, each of one of these classes: {classes}. Say how many are of a given "
            "class. Write the number alone."
        ),
        "global": ("Below is one long text of one of these classes: {classes}. Name its class."),
    },
    item="Text {id}: {text}",
    query="Query: {text}",
    ask={
        "explicit-single": "Question: Of which class is text {id}?",
        "explicit-multiple": "Question: Which texts are of the class '{label}'?",
        "semantic-single": "Question: Which candidate goes on from the query?",
        "semantic-multiple": "Question: How many texts are of the class '{label}'?",
        "global": "Question: Of which class is the text?",
    },
    cue="Answer:",
    comma=", ",
    stop=".",
    joint="\n\n",
)

ZH = Wording(
    instruction={
        "explicit-single": (
            "下面是若干带编号的文本，每篇属于以下类别之一：{classes}。请说出指定编号的文本的类别。"
        ),
        "explicit-multiple": (
            "下面是若干带编号的文本，每篇属于以下类别之一：{classes}。"
            "请列出某一类别的全部文本编号，用逗号隔开。"
        ),
        "semantic-single": (
            "下面是一段查询文本和若干带编号的候选文本，其中恰有一段紧接查询文本。请给出它的编号。"
        ),
        "semantic-multiple": (
            "下面是若干文本，每篇属于以下类别之一：{classes}。请回答某一类别有几篇，只写数字。"
        ),
        "global": "下面是一篇长文，属于以下类别之一：{classes}。请说出它的类别。",
    },
    item="文本{id}：{text}",
    query="查询文本：{text}",
    ask={
        "explicit-single": "问题：文本{id}属于哪个类别？",
        "explicit-multiple": "问题：哪些文本属于“{label}”类？",
        "semantic-single": "问题：哪一段紧接查询文本？",
        "semantic-multiple": "问题：“{label}”类的文本有几篇？",
        "global": "问题：这篇文本属于哪个类别？",
    },
    cue="答案：",
    comma="，",
    stop="。",
    joint="\n\n",
)
WORDINGS = {"en": EN, "zh": ZH}
