"""A document and a question, cut so that the answer stands where it is wanted and the length fits.

What: of a long document, the stretch around its answer that fills a length with the answer in the
first tenth, the bulk or the last tenth; the question before or after it.
Source: Pal et al. (2023), "Giraffe", section 4 (FreeFormQA): 2k to 16k tokens, three places of the
answer by two of the question, six rows a document.
Differs from the release: worded here; the stretch is as long as fits and is measured with its
prompt, and a document that cannot fill the length is refused, not used short.
Cost: some twenty measurements of a prompt a sample.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, TypeAlias, get_args

from unspool.errors import ConfigError, InputError
from unspool.evaluation.spec import Parts
from unspool.evaluation.tasks._fit import Fitter

AnswerAt: TypeAlias = Literal["start", "middle", "end"]
QuestionAt: TypeAlias = Literal["before", "after"]

ANSWER_PLACES: tuple[AnswerAt, ...] = get_args(AnswerAt)
QUESTION_PLACES: tuple[QuestionAt, ...] = get_args(QuestionAt)
BANDS: dict[str, tuple[float, float]] = {
    "start": (0.0, 0.1),
    "middle": (0.1, 0.9),
    "end": (0.9, 1.0),
}
"""Shares of the context within which the answer begins."""
_FILLED = 0.9
"""Least share of the wanted length that a context must reach."""
_BEFORE = "Question: {question}\nThe answer is in the following text.\n\nText:\n"
_AFTER = "Read the text. A question about it follows.\n\nText:\n"
_QUERY = "\n\nQuestion: {question}\nAnswer with words of the text, as briefly as you can."
_REMINDER = "\n\nAnswer the question above with words of the text, as briefly as you can."
_ANSWER = "\nAnswer:"
WORDING = (_BEFORE, _AFTER, _QUERY, _REMINDER, _ANSWER)


class QaPrompt(NamedTuple):
    """A question over one stretch of a document."""

    parts: Parts
    answer: str
    depth: float
    """Where the answer begins in the context, 0 to 1."""
    start: int
    """First character of the document that is in the context."""
    end: int
    """One past the last; what lies outside is not in the prompt."""
    size: int
    """Of the whole prompt, in the measure that was given."""


def make_qa(
    document: str,
    question: str,
    answer: str,
    tokens: int,
    answer_at: AnswerAt | str,
    question_at: QuestionAt | str,
    *,
    size: Callable[[str], int],
) -> QaPrompt:
    """The longest prompt of at most `tokens` whose answer stands where it is wanted.

    Args:
        document: A text that holds the answer.
        question: What is asked.
        answer: Stands word for word in the document.
        tokens: Most that the whole prompt may measure.
        answer_at: In the first tenth of the context (`start`), the last (`end`), or between.
        question_at: Before the text or after it.
        size: Measures a prompt: a tokenizer's count, with what the answer needs.

    Raises:
        ConfigError: A place is not one of those named.
        InputError: The answer is not in the document, or the document is too short on one side of
            it to fill the length; the message names both lengths.
    """
    if answer_at not in BANDS:
        raise ConfigError(f"answer_at must be start, middle or end, got {answer_at!r}.")
    if question_at not in QUESTION_PLACES:
        raise ConfigError(f"question_at must be before or after, got {question_at!r}.")
    places = list(occurrences(document, answer))
    if not places:
        raise InputError(f"The document does not hold the answer {answer!r} word for word.")
    best: QaPrompt | None = None
    for place in places:
        found = _around(document, question, answer, place, tokens, answer_at, question_at, size)
        if found is None or not _only_there(found, answer, answer_at):
            continue
        if found.size >= _FILLED * tokens:
            return found
        if best is None or found.size > best.size:
            best = found
    if best is None:
        raise InputError(
            f"No stretch of the document fits {tokens:,} tokens and holds the answer {answer!r} at "
            f"its {answer_at} only. Choose another length or another document."
        )
    raise InputError(
        f"The document gives {best.size:,} of {tokens:,} tokens with the answer {answer!r} at the "
        f"{answer_at} of its text and nowhere else. Choose a shorter length or a longer document."
    )


def occurrences(document: str, answer: str) -> Iterator[int]:
    """Where the answer stands as words of its own.

    Raises:
        InputError: The answer is empty.
    """
    wanted = answer.strip()
    if not wanted:
        raise InputError("The answer is empty.")
    before = r"(?<!\w)" if re.match(r"\w", wanted) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", wanted) else ""
    for found in re.finditer(before + re.escape(wanted) + after, document):
        yield found.start()


def _around(
    document: str,
    question: str,
    answer: str,
    place: int,
    tokens: int,
    answer_at: str,
    question_at: str,
    size: Callable[[str], int],
) -> QaPrompt | None:
    """The longest fitting stretch around one occurrence; None if no stretch fits."""
    low, high = BANDS[answer_at]
    rest, last = len(document) - place, place + len(answer.strip())

    def stretch(length: int) -> QaPrompt:
        # The answer's share moves within its band where the document ends on one side.
        share = min(max((low + high) / 2, 1 - rest / length), place / length)
        start = place - round(share * length)
        start, end = _snap(document, start, max(last, start + length), place, last)
        parts = _prompt(document[start:end], question, question_at)
        whole = parts.prefix + parts.context + parts.query + parts.answer_prefix
        depth = (place - start) / (end - start)
        return QaPrompt(parts, answer.strip(), depth, start, end, size(whole))

    longest = float(len(document))
    if low > 0:
        longest = min(longest, place / low)
    if high < 1:
        longest = min(longest, rest / (1 - high))
    # Longer stretches hold shorter ones, so sizes only grow.
    length = Fitter(tokens, low=1, most=int(longest))(lambda n: stretch(n).size)
    if length < 1:
        return None
    found = stretch(length)
    return found if low <= found.depth <= high else None


def _snap(document: str, start: int, end: int, first: int, last: int) -> tuple[int, int]:
    """Ends moved inward to white space, so that no word is cut, and never past the answer."""
    if start and not document[start - 1].isspace():
        while start < first and not document[start - 1].isspace():
            start += 1
    if end < len(document) and not document[end].isspace():
        while end > last and not document[end].isspace():
            end -= 1
    return start, end


def _only_there(found: QaPrompt, answer: str, answer_at: str) -> bool:
    """Whether every occurrence of the answer in the context lies in the band."""
    low, high = BANDS[answer_at]
    context = found.parts.context
    return all(low <= at / len(context) <= high for at in occurrences(context, answer))


def _prompt(context: str, question: str, question_at: str) -> Parts:
    if question_at == "before":
        return Parts(_BEFORE.format(question=question), context, _REMINDER, _ANSWER)
    return Parts(_AFTER, context, _QUERY.format(question=question), _ANSWER)
