"""ROUGE-L as the packages `rouge` 1.0.1 and `rouge-chinese` 1.0.3 compute it.

Source: Lin (2004), "ROUGE", section 3; the two packages, which differ from the paper and from each
other. `rouge`: the text is split at every full stop, each sentence of the reference meets each of
the prediction, the words of their longest common subsequences are united as a SET, and counted
against the numbers of DISTINCT words. `rouge-chinese`: one subsequence of all words, with repeats.
Both: F = 2PR / (P + R + 1e-8), so that equal texts do not reach 1.
Differs from the released code: numbers are equal; pairs of sentences that can add no new word are
skipped; recursion is a count of steps, compared with what Python's limit would let through.
Cost: `rouge` O(sentences²) set operations and a bit-parallel LCS where a pair can add a word.
"""

# ruff: noqa: RUF001 - Chinese punctuation ends Chinese sentences

from __future__ import annotations

import re
from typing import NamedTuple

from unspool.evaluation.metrics.lcs import lcs_length, lcs_path
from unspool.evaluation.metrics.words import cut

FRAMES = 10
"""Python's recursion limit minus the longest path that `rouge` gets through when it is called as
LongBench's script calls it: eight callers, itself, and the call that ends the path."""
PYTHON_LIMIT = 1000

_ZH_BREAKS = (
    (re.compile(r"([。！？?])([^”’])"), r"\1\n\2"),
    (re.compile(r"(\.{6})([^”’])"), r"\1\n\2"),
    (re.compile(r"(…{2})([^”’])"), r"\1\n\2"),
    (re.compile(r"([。！？?][”’])([^，。！？?])"), r"\1\n\2"),
)


class Rouge(NamedTuple):
    """Recall, precision and F of one pair."""

    recall: float
    precision: float
    f: float


def rouge_l(prediction: str, reference: str, *, recursion_limit: int | None = None) -> Rouge | None:
    """ROUGE-L of package `rouge`; None where the package raises.

    Args:
        prediction: Words between blanks, sentences between full stops.
        reference: The same.
        recursion_limit: Python's limit in the process that is reproduced: a pair of sentences whose
            path is longer makes the package fail. None: there is none.

    Returns:
        None if either text holds no sentence (empty, or full stops only) or the limit is met.
    """
    hypotheses, references = _sentences(prediction), _sentences(reference)
    if not hypotheses or not references:
        return None
    sets = [set(words) for words in hypotheses]
    given, wanted = set().union(*sets), set().union(*references)
    most = None if recursion_limit is None else recursion_limit - FRAMES
    if most is not None and _too_long(references, hypotheses, most):
        return None
    union: set[str] = set()
    left = given & wanted  # in both texts, not in the union yet
    for words in references:
        known = set(words)
        new = known & left
        if not new:
            continue
        for hypothesis, others in zip(hypotheses, sets, strict=True):
            if new.isdisjoint(others):
                continue
            shared = known & others
            if len(shared) == 1:
                found = shared
            else:
                # Words that only the prediction has never turn the path: it passes them leftwards.
                found = set(lcs_path(words, [w for w in hypothesis if w in shared]).items)
            union |= found
            new -= found
        left -= union
    return _rouge(len(union), len(wanted), len(given))


def _too_long(references: list[list[str]], hypotheses: list[list[str]], most: int) -> bool:
    """Whether the path of any pair of sentences takes more steps than that."""
    if max(map(len, references)) + max(map(len, hypotheses)) <= most:
        return False
    return any(
        len(words) + len(hypothesis) > most and lcs_path(words, hypothesis).steps > most
        for words in references
        for hypothesis in hypotheses
    )


def rouge_l_zh(prediction: str, reference: str) -> Rouge | None:
    """ROUGE-L of package `rouge-chinese` on words between blanks; None where it raises (empty)."""
    hypothesis, wanted = _words_zh(prediction), _words_zh(reference)
    if not hypothesis or not wanted:
        return None
    return _rouge(lcs_length(wanted, hypothesis), len(wanted), len(hypothesis))


def spaced(text: str) -> str:
    """Chinese words with blanks between, as the originals feed them to either package."""
    return " ".join(cut(text))


def _rouge(hits: int, wanted: int, given: int) -> Rouge:
    recall, precision = hits / wanted, hits / given
    return Rouge(recall, precision, 2.0 * ((precision * recall) / (precision + recall + 1e-8)))


def _sentences(text: str) -> list[list[str]]:
    """Words of the pieces between full stops; a blank piece holds one empty word."""
    return [" ".join(piece.split()).split(" ") for piece in text.split(".") if piece]


def _words_zh(text: str) -> list[str]:
    for pattern, broken in _ZH_BREAKS:
        text = pattern.sub(broken, text)
    lines = [line for line in text.rstrip().split("\n") if line]
    return [word for line in lines for word in " ".join(line.split()).split(" ")]
