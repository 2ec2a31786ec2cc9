"""Scoring of Ada-LEval replies: by the released rules to the letter, and strictly.

What: which order or which label a reply means, and whether it is right.
Source: Wang et al. (2024), arXiv 2404.06480, section 3; `ada_leval/dataset.py` of the release.
Differs from the released code: `strict` demands a permutation of 1..N (TSort) or one label that
stands alone (BestAnswer). The released rules take a JSON list that is a correct prefix, even an
empty one, as right, prefer the highest label that occurs anywhere, and end with an exception on a
bare JSON number; the last is counted here as `crashed` and not right.
Cost: linear in the reply; 24 subsequence tests where it is no JSON.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from unspool.errors import ConfigError, InputError
from unspool.evaluation.spec import Response, Sample

NO_ANSWER = "???"
_CUE = "Answer:"
_LABEL = re.compile(r"(?<![A-Za-z0-9])A(\d+)(?![A-Za-z0-9])")


class Judged(NamedTuple):
    """What a reply was taken to say."""

    hit: bool
    said: Any
    """The order or label; None if there is none."""
    crashed: bool = False
    """The released code ends with an exception on this reply."""


def released_order(reply: str) -> Any:
    """What the released rule reads from a TSort reply: any JSON value, or a list of four."""
    if _CUE in reply:
        reply = reply.split(_CUE)[1].strip()
    try:
        return json.loads(reply)
    except (ValueError, RecursionError):
        pass
    orders = list(itertools.permutations((1, 2, 3, 4)))
    found = [order for order in orders if _is_subsequence(order, reply)]
    return list(found[0]) if len(found) == 1 else [0, 0, 0, 0]


def strict_order(reply: str, segments: int = 4) -> list[int] | None:
    """The permutation of 1..N that a reply holds; None if it holds none or several.

    After the last "Answer:" if there is one: a JSON list, or the only list in brackets.
    """
    text = reply.rpartition(_CUE)[2] if _CUE in reply else reply
    found = {tuple(order) for order in map(_list, re.findall(r"\[[^\[\]]*\]", text)) if order}
    wanted = set(range(1, segments + 1))
    orders = [o for o in found if len(o) == segments and set(o) == wanted]
    return list(orders[0]) if len(orders) == 1 == len(found) else None


def judge_tsort(reply: str, gold: Sequence[int] | str, *, strict: bool = True) -> Judged:
    """Whether a reply gives the order `gold` (a list, or its JSON text).

    Args:
        reply: What the model wrote.
        gold: Labels in the right order.
        strict: False applies the released rule.
    """
    order = _gold(gold)
    if strict:
        said = strict_order(reply, len(order))
        return Judged(said == order, said)
    value = released_order(reply)
    try:
        return Judged(all(a == b for a, b in zip(order, value, strict=False)), value)
    except TypeError:  # a number, true, false or null has no positions
        return Judged(False, value, crashed=True)


def score_tsort(reply: str, gold: Sequence[int] | str, *, strict: bool = True) -> bool:
    """Whether a TSort reply is right; see `judge_tsort`."""
    return judge_tsort(reply, gold, strict=strict).hit


def released_label(reply: str, n: int) -> str:
    """The label that the released rule reads from a BestAnswer reply of `n` candidates."""
    for names in ([f"A{i}" for i in range(1, n + 1)], [str(i) for i in range(1, n + 1)]):
        for number in range(n, 0, -1):
            if names[number - 1] in reply:
                return f"A{number}"
    return NO_ANSWER


def strict_label(reply: str, n: int) -> str | None:
    """The only label A1..An that stands alone in a reply, after the last "Answer:" if any."""
    text = reply.rpartition(_CUE)[2] if _CUE in reply else reply
    found = set(_LABEL.findall(text))
    if len(found) != 1:
        return None
    (digits,) = found
    # A label is what the prompt shows: at most four ASCII digits, no leading zero.
    if not re.fullmatch(r"[1-9][0-9]{0,8}", digits) or int(digits) > n:
        return None
    return f"A{digits}"


def judge_bestanswer(reply: str, gold: str, n: int, *, strict: bool = False) -> Judged:
    """Whether a reply names the label `gold` among A1..An; the released rule unless `strict`."""
    if n < 1:
        raise ConfigError(f"BestAnswer needs at least one candidate, got n={n}.")
    said = strict_label(reply, n) if strict else released_label(reply, n)
    return Judged(said == gold, None if said == NO_ANSWER else said)


def score_bestanswer(reply: str, gold: str, n: int, *, strict: bool = False) -> bool:
    """Whether a BestAnswer reply is right; see `judge_bestanswer`."""
    return judge_bestanswer(reply, gold, n, strict=strict).hit


@dataclass(frozen=True, slots=True)
class Order:
    """TSort: `score` by the released rule, `strict` beside it."""

    id: str = "ada-leval-tsort@1"
    packages: tuple[str, ...] = ()

    def score(self, sample: Sample, response: Response) -> dict[str, float]:
        """In choice mode, whether the right order is the likeliest."""
        if sample.choices:
            return _ranked(sample, response)
        gold = sample.references[0]
        released = judge_tsort(response.text, gold, strict=False)
        strict = judge_tsort(response.text, gold, strict=True)
        return {
            "score": float(released.hit),
            "strict": float(strict.hit),
            "parsed": float(strict.said is not None),
            "copied": float(strict.said is not None and strict.said == sample.meta.get("example")),
            "crashed": float(released.crashed),
            "chance": 1 / 24,
        }

    def aggregate(self, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Accuracy in percent to one decimal, as printed, and the shares beside it."""
        return _percentages(scores)


@dataclass(frozen=True, slots=True)
class Label:
    """BestAnswer: `score` by the released rule, `strict` beside it."""

    id: str = "ada-leval-bestanswer@1"
    packages: tuple[str, ...] = ()

    def score(self, sample: Sample, response: Response) -> dict[str, float]:
        """`said` is the number of the label that was read, 0 for none."""
        n = int(sample.meta["candidates"])
        if sample.choices:
            return {**_ranked(sample, response), "chance": 1 / n}
        gold = sample.references[0].strip()
        released = judge_bestanswer(response.text, gold, n)
        strict = judge_bestanswer(response.text, gold, n, strict=True)
        return {
            "score": float(released.hit),
            "strict": float(strict.hit),
            "parsed": float(strict.said is not None),
            "copied": float(released.said == sample.meta.get("example")),
            "said": float(str(released.said)[1:]) if released.said else 0.0,
            "chance": 1 / n,
        }

    def aggregate(self, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Accuracy in percent to one decimal, as printed, and the shares beside it."""
        return _percentages(scores)


def _ranked(sample: Sample, response: Response) -> dict[str, float]:
    best = max(range(len(response.logprobs)), key=lambda i: (response.logprobs[i], -i))
    return {"score": float(sample.choices[best] in sample.references)}


def _percentages(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = [n for n in scores[0] if n != "said" and all(n in each for each in scores)]
    return {n: round(100 * sum(each[n] for each in scores) / len(scores), 1) for n in names}


def _is_subsequence(order: Sequence[int], text: str) -> bool:
    place = 0
    for digit in order:
        place = text.find(str(digit), place) + 1
        if not place:
            return False
    return True


def _list(text: str) -> list[int] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    whole = all(isinstance(item, int) and not isinstance(item, bool) for item in value)
    return value if value and whole else None


def _gold(gold: Sequence[int] | str) -> list[int]:
    value = gold
    if isinstance(gold, str):
        try:
            value = json.loads(gold)
        except ValueError as error:
            raise InputError(f"The right order is no JSON list: {gold!r}.") from error
    if not isinstance(value, (list, tuple)) or sorted(value) != list(range(1, len(value) + 1)):
        raise InputError(f"The right order must be a permutation of 1..N, got {gold!r}.")
    return list(value)
