"""Similarity of two lines as a whole percentage, as `fuzzywuzzy` 0.18.0 gives it.

Source: `fuzz.ratio`: round(100 * 2 M / T), M matching characters of T in both. What matches is
found by Python's difflib, or, where python-Levenshtein is installed, by the longest common
subsequence: the same call then gives other numbers, so the way is an argument here and part of a
metric's id.
Differs from the released code: none in the numbers.
Cost: difflib O(n²) in the worst case, the other O(n m / 64).
"""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import Literal, TypeAlias, get_args

from unspool.errors import ConfigError
from unspool.evaluation.metrics.lcs import lcs_length

RatioKind: TypeAlias = Literal["difflib", "levenshtein"]


def ratio(a: str, b: str, kind: str = "difflib") -> int:
    """Similarity in percent, 0-100. Not symmetric under difflib: the prediction goes first.

    Equal strings give 100, also two empty ones; one empty string gives 0.
    """
    if kind not in get_args(RatioKind):
        raise ConfigError(f"A ratio is of kind difflib or levenshtein, got {kind!r}.")
    if a == b:
        return 100
    if not a or not b:
        return 0
    if kind == "difflib":
        return round(100 * SequenceMatcher(None, a, b).ratio())
    total = len(a) + len(b)
    return round(100 * (1.0 - (total - 2 * lcs_length(a, b)) / total))


def code_line(prediction: str) -> str:
    """The first line without backtick, `#` or `//`, leading newlines aside; an empty line counts,
    and if every line has one of them, so does nothing."""
    for line in prediction.lstrip("\n").split("\n"):
        if "`" not in line and "#" not in line and "//" not in line:
            return line
    return ""


def code_similarity(prediction: str, reference: str, kind: str = "difflib") -> float:
    """LongBench's score of a completed line, in 0-1."""
    return ratio(code_line(prediction), reference, kind) / 100
