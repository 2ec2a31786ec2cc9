"""What L-Eval tells a model: a system sentence by kind of task, the document, the question.

Source: An et al. (2023), section 4.1 and appendix; `LEval_config.py` and the runners of the
release, whose order of parts and cues are kept. The words here are ours.
Differs from the release: "about N words" is the project's wording of the length instruction.
"""

from __future__ import annotations

from unspool.evaluation.tasks.l_eval.facts import TASKS

_OPEN = (
    "You will get a long document and, after it, an instruction: to summarise it, to answer a "
    "question about it, or to write a part of it. Follow the instruction."
)
_EXAM = (
    "You will get a long document and a question about it. If the question has options, exactly "
    "one is right: reply with its letter alone, such as A or B. Otherwise reply with the answer "
    "alone, short and exact."
)
_SYSTEM = {
    "gsm100": (
        "You will get questions with worked answers, and one more question. Answer it in the same "
        "way, and end with the words: The answer is, followed by the number."
    ),
    "topic_retrieval_longchat": (
        "Here is the record of our earlier conversation, in which you are the ASSISTANT and I am "
        "the USER. Each topic begins where the USER says: 'I would like to discuss the topic of "
        "<TOPIC>'. Remember each <TOPIC>; at the end I will ask for the first, second or third."
    ),
    "coursera": (
        "You will get a long document and questions about it. One or several of the options may be "
        "right: reply with the letters of those that are, such as A or AB, and nothing else."
    ),
    "codeU": (
        "You will get a code base of many functions with comments. At the end some of its "
        "functions are called. Read the code and the comments, and answer the question."
    ),
    "sci_fi": (
        "You will get a science fiction story and statements. Reply True or False to each, by what "
        "the story says and not by what you know."
    ),
}
_IN_THE_WORLD = "by what is known of the real world"
BY_DOCUMENT = "based on the world described in the document."
"""Words of the release's questions that the second question of sci_fi puts in place of others."""
TEXTS = (_OPEN, _EXAM, *_SYSTEM.values(), _IN_THE_WORLD)


def system(task: str) -> str:
    """The system sentence of a sub-task."""
    return _SYSTEM.get(task, _EXAM if TASKS[task].group == "closed" else _OPEN)


def around(task: str, question: str, words: int | None) -> tuple[str, str]:
    """What stands before the document and what after it.

    Args:
        task: The sub-task.
        question: Its question or instruction.
        words: Words of this question's reference, for the length instruction of open tasks; None
            leaves it out.
    """
    if task in ("gsm100", "codeU"):
        return "", f"\n\n{question}"
    if TASKS[task].group == "closed":
        ask = "Give the answer alone, without explanation."
        return "The document:\n", f"\n\nQuestion: {question}\n{ask}\nAnswer: "
    length = "" if words is None else f"Write about {words} words. "
    return "The document:\n", f"\n\nInstruction: {question}\n{length}Output: "


def fact_question(question: str) -> str:
    """The second question of sci_fi, which is asked without the document."""
    if BY_DOCUMENT in question:
        question = question.replace(BY_DOCUMENT, f"{_IN_THE_WORLD}.")
    else:
        question = f"{question}\nJudge {_IN_THE_WORLD}."
    return f"{question}\nGive the answer alone, without explanation.\nAnswer:"
