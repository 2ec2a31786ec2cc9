"""The words in which a judge is asked, and the eight types of errors. The words are our own.

Source: types and structure of Chang et al. (2023), arXiv 2310.00785, table 1 and appendix.
"""

from __future__ import annotations

from collections.abc import Sequence

TYPES = (
    "entity omission",
    "event omission",
    "causal omission",
    "salience",
    "discontinuity",
    "duplication",
    "inconsistency",
    "language",
)
_KINDS = (
    "entity omission: a person, place or thing is named and never introduced\n"
    "event omission: something that happened is referred to and never told\n"
    "causal omission: the reason or way of something is missing\n"
    "salience: a detail that does nothing for the whole\n"
    "discontinuity: a jump that breaks the flow\n"
    "duplication: something said before is said again\n"
    "inconsistency: it contradicts another sentence\n"
    "language: it cannot be read, because of grammar or words\n"
)
_COUNTS = (
    "Something confuses only if it keeps a reader from following the whole and the rest of the "
    "summary does not clear it up."
)
_ONE = (
    "Summary:\n{summary}\n\nSentence:\n{sentence}\n\nRead the sentence as a part of the summary. "
    f"Does it confuse? {_COUNTS} These are the types of confusion:\n{_KINDS}\nAnswer in two lines "
    "and write nothing else. If nothing confuses:\nQuestions: no confusion\nTypes: no confusion\n"
    "Otherwise ask what a reader would ask, and name the types, separated by commas:\n"
    "Questions: (your questions)\nTypes: (types of the list)"
)
_BATCH = (
    "Summary:\n{summary}\n\nSentences:\n{sentences}\n\nRead each sentence as a part of the "
    f"summary. Does it confuse? {_COUNTS} These are the types of confusion:\n{_KINDS}\nAnswer with "
    "a JSON list that holds one object a sentence, in order, and nothing else: "
    '[{"sentence_num": 1, "sentence": "...", "questions": "...", "types": ["..."]}]. Where '
    "nothing confuses, questions and types are null."
)


def judge_one(summary: str, sentence: str) -> str:
    """The prompt of version 1."""
    before, _, after = _ONE.partition("{summary}")
    between, _, end = after.partition("{sentence}")
    return f"{before}{summary}{between}{sentence}{end}"


def judge_batch(summary: str, sentences: Sequence[str]) -> str:
    """The prompt of version 2."""
    before, _, after = _BATCH.partition("{summary}")
    between, _, end = after.partition("{sentences}")
    numbered = "\n".join(f"{i}. {each}" for i, each in enumerate(sentences, 1))
    return f"{before}{summary}{between}{numbered}{end}"


WORDING = (_ONE, _BATCH)
