"""Scoring of needle threading replies: by the released rule, and by two that forgive more.

What: one value is right if the reply, read as a Python literal, begins with it; of a list, the
share of positions that are right.
Source: the example scorer in the README of the release (single needle); section 4 of arXiv
2411.05000 (lists, by position).
Differs from the release: its scorer raises on a reply that is no literal, which is counted here
(`parsed`); the main score falls back to the bare reply without quotes. `literal` is the released
rule as it stands, `substring` takes the value anywhere in the reply. All are reported by name.
Cost: linear in the reply.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from unspool.evaluation.spec import Response, Sample

Rule: TypeAlias = Literal["prefix", "literal", "substring"]

_QUOTES = "\"'`\u201c\u201d\u2018\u2019 \t\r\n"


class Literally(NamedTuple):
    """A reply read as a Python literal."""

    value: object
    parsed: bool


def read_literal(reply: str) -> Literally:
    """The Python literal that a reply is; `parsed` is False if it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that a model made up
            return Literally(ast.literal_eval(reply), True)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return Literally(None, False)


def score_single(reply: str, answer: str) -> dict[str, float]:
    """Whether one value was found, under each rule, and whether the reply was a literal.

    Returns:
        `parsed`, and 0 or 1 for the rules `prefix`, `literal` and `substring`.
    """
    value, parsed = read_literal(reply)
    begins = value[: len(answer)] == answer if isinstance(value, str) else False
    bare = value if isinstance(value, str) else reply.strip(_QUOTES)
    return {
        "parsed": float(parsed),
        "literal": float(begins),
        "prefix": float(bare.strip(_QUOTES)[: len(answer)] == answer),
        "substring": float(answer in reply),
    }


def score_list(reply: str, answers: Sequence[str]) -> dict[str, float]:
    """The share of positions that are right, under each rule.

    An item is right if it equals the answer at its position; items beyond the answers count for
    nothing, missing ones as wrong. `literal` needs a Python list; `prefix` also splits plain text
    at commas and new lines; `substring` is the share of answers that occur anywhere, in any order.
    """
    value, parsed = read_literal(reply)
    listed = isinstance(value, (list, tuple))
    items = [str(item) for item in value] if isinstance(value, (list, tuple)) else []
    loose = [item.strip(_QUOTES) for item in items] if listed else split_items(reply)
    total = len(answers)
    if not total:
        empty = float(not loose)
        return {"parsed": float(parsed), "literal": empty, "prefix": empty, "substring": 1.0}
    return {
        "parsed": float(parsed and listed),
        "literal": sum(a == b for a, b in zip(items, answers, strict=False)) / total,
        "prefix": sum(a == b for a, b in zip(loose, answers, strict=False)) / total,
        "substring": sum(answer in reply for answer in answers) / total,
    }


def split_items(reply: str) -> list[str]:
    """The items of a list that is no Python literal: split at commas and new lines, bare."""
    text = reply.strip().strip("[]()")
    parts = [part.strip(_QUOTES + "[]()") for part in text.replace("\n", ",").split(",")]
    return [part for part in parts if part]


@dataclass(frozen=True, slots=True)
class Found:
    """`score` is the chosen rule; in choice mode, whether the right value is the likeliest."""

    rule: Rule = "prefix"
    id: str = "needle-threading@1"
    packages: tuple[str, ...] = ()

    def score(self, sample: Sample, response: Response) -> dict[str, float]:
        """See `score_single` and `score_list`; a list of references is scored by position."""
        if sample.choices:
            best = max(range(len(response.logprobs)), key=lambda i: (response.logprobs[i], -i))
            return {"score": float(sample.choices[best] in sample.references)}
        if sample.meta.get("listed"):
            found = score_list(response.text, sample.references)
        else:
            found = score_single(response.text, sample.references[0])
        return {"score": found[self.rule], **found}

    def aggregate(self, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Percent of each number, not rounded, as the example prints two digits of it."""
        names = [name for name in scores[0] if all(name in each for each in scores)]
        return {name: 100 * sum(each[name] for each in scores) / len(scores) for name in names}
