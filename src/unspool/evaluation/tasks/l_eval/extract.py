"""What L-Eval takes out of answers and references before it compares them.

What: letters, a number, a code output, true or false; each as odd as in the release, whose loops
shorten the text that they walk. The order of operations is the specification here.
Source: `auto_eval.py` of the release.
Differs from the released code: a reference that cannot be read is an InputError that quotes it
(there: an IndexError); a true-or-false answer without its second half is wrong in that half.
Cost: O(length).
"""

from __future__ import annotations

import re
from itertools import takewhile

from unspool.errors import InputError

ERROR = "<error>"
"""Stands for an answer that holds neither true nor false."""
FACT = "[fact:"
_CAPITAL = re.compile(r"\s*[A-Z](?=[\s.)])")
_NOT_LETTER = re.compile(r"[^A-D]")
_THE_ANSWER = re.compile(r"The answer is (\S+)")
_BLANKS = re.compile(r"\s+")
_TIDY = ((",", ""), ("'", ""), ("\\", ""), (".0", ""), ("] [", "]["), ("[ [", "[["), ("] ]", "]]"))
_FILLERS = (
    "will be", "of the code", "is", "would be", "the value of", "the result of", "printed",
)  # fmt: skip
_FINAL = "the final output"
_SPARE_WORDS = 3


def letters_of_reference(gold: str) -> str:
    """Letters A-D of the first word; A if it has none."""
    words = gold.split()
    if not words:
        raise InputError("A reference with options is blank; it should begin with its letters.")
    return _NOT_LETTER.sub("", words[0]) or "A"


def letters(answer: str, *, several: bool) -> str:
    """The letters that an answer chooses.

    Args:
        answer: What the model wrote.
        several: Whether more than one letter may be right (coursera).
    """
    if not answer.strip():
        return "None"
    if answer in "ABCD":
        return answer
    if not several:
        first = next((c for c in answer if c in "ABCD"), None)
        if first is not None:
            return first
    run = "".join(takewhile(lambda c: c in "ABCD", answer))
    if len(run) > 1:
        return "".join(sorted(set(run)))
    rest = answer[len(run) :].split("Question")[0]
    found = _NOT_LETTER.sub("", run + " ".join(_CAPITAL.findall(rest)).strip())
    if found:
        return "".join(sorted(set(found)))
    start = next((i for i, c in enumerate(rest) if c in "ABCD"), None)
    if start is None:
        return "A"
    return "".join(takewhile(lambda c: c in "ABCD", rest[start:]))


def number(text: str) -> str:
    """Digits, up to a full stop, of the word after "The answer is", else of the last word before
    the first blank line that has a digit; empty if there is none."""
    match = _THE_ANSWER.search(text)
    if match:
        word = match[1]
    else:
        words = text.split("\n\n")[0].split(" ")
        word = next((w for w in reversed(words) if any(c.isdigit() for c in w)), "")
    return "".join(c for c in takewhile(lambda c: c != ".", word) if c.isdigit())


def code(text: str) -> str:
    """An output in one form: blanks single, commas, quotes and `.0` gone, brackets closed up."""
    text = _BLANKS.sub(" ", text)
    for old, new in _TIDY:
        text = text.replace(old, new)
    return text


def code_answer(answer: str, gold: str) -> str:
    """The words of an answer that may be the output: as many as the reference has, and three.

    They follow "the final output" where that stands, else they end the answer. Filler words go
    first, as substrings: `is` leaves "th" of "this".
    """
    keep = len(gold.split()) + _SPARE_WORDS
    text = code(answer)
    for filler in _FILLERS:
        text = text.replace(filler, "")
    if _FINAL in text:
        return " ".join(_BLANKS.split(text.split(_FINAL)[-1])[:keep])
    return " ".join(_BLANKS.split(text)[-keep:])


def halves_of_reference(gold: str) -> tuple[str, str]:
    """Truth by the document, and in the world, in lower case."""
    pieces = gold.lower().split(FACT)
    if len(pieces) < 2:
        raise InputError(f"A reference of sci_fi should hold '{FACT} …]', got {gold!r}.")
    return pieces[0].strip(), pieces[1][:-1].strip()


def halves(answer: str) -> tuple[str, str]:
    """`true`, `false` or an error mark, for either half of `ANSWER [fact: ANSWER]`."""
    pieces = answer.lower().split(FACT)
    return truth(pieces[0]), truth(pieces[1][:-1]) if len(pieces) > 1 else ERROR


def truth(text: str) -> str:
    """What the first word with `true` or `false` in it says."""
    for word in text.lower().split():
        if "true" in word:
            return "true"
        if "false" in word:
            return "false"
    return ERROR
