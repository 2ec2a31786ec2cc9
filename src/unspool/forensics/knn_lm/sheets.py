"""Blinded sheets for people who compare two continuations, and what their marks add up to.

What: a table of prefixes with two continuations in an order drawn at random, a key that says which
is which, and a count of preferences with a sign test and the agreement of the judges.
Source: Wang et al. (2023), section 4.2 (people compare both arms); Dixon and Mood (1946), the sign
test; Fleiss (1971), kappa.
Differs from the paper: no judges are hired; whoever fills a sheet in writes A, B or = into its last
column.
Cost: none.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from unspool.errors import InputError

COLUMNS = ("item", "beginning", "A", "B", "better (A, B or =)")


class Sheet(NamedTuple):
    """A table to fill in, as CSV, and the arm that stands under A in each row."""

    table: str
    key: dict[str, str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What judges preferred."""

    judges: int
    items: int
    wins: dict[str, int]
    ties: int
    p_value: float
    """Of the two-sided sign test; ties are left out."""
    kappa: float | None
    """Agreement of the judges beyond chance; None for one judge."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def make_sheet(
    items: Sequence[tuple[str, str, str]], arms: tuple[str, str] = ("lm", "mix"), seed: int = 0
) -> Sheet:
    """A blinded sheet.

    Args:
        items: (beginning, continuation of the first arm, of the second).
        arms: Their names, for the key.
        seed: Of the order under A and B.
    """
    swapped = np.random.default_rng(seed).random(len(items)) < 0.5
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
    table.writerow(COLUMNS)
    key = {}
    for number, ((beginning, first, second), swap) in enumerate(zip(items, swapped, strict=True)):
        pair = (second, first) if swap else (first, second)
        key[str(number)] = arms[1] if swap else arms[0]
        table.writerow([number, *(_cell(t) for t in (beginning, *pair)), ""])
    return Sheet(out.getvalue(), key)


def score_sheets(
    sheets: Sequence[str], key: dict[str, str], arms: tuple[str, str] = ("lm", "mix")
) -> Verdict:
    """Add up filled sheets, one a judge.

    Raises:
        InputError: A sheet has other items than the key, or a mark that is not A, B or =.
    """
    if not sheets:
        raise InputError("There is no sheet to score.")
    marks = [_marks(sheet, key, arms, n) for n, sheet in enumerate(sheets, 1)]
    count = Counter(mark for judge in marks for mark in judge)
    first, second = count[arms[0]], count[arms[1]]
    return Verdict(
        judges=len(marks),
        items=len(key),
        wins={arms[0]: first, arms[1]: second},
        ties=count["="],
        p_value=sign_test(first, second),
        kappa=fleiss(marks) if len(marks) > 1 else None,
    )


def _marks(sheet: str, key: dict[str, str], arms: tuple[str, str], judge: int) -> list[str]:
    rows = list(csv.DictReader(io.StringIO(sheet)))
    found = {row.get(COLUMNS[0]) or "": (row.get(COLUMNS[4]) or "").strip().upper() for row in rows}
    if set(found) != set(key):
        raise InputError(f"Sheet {judge} does not have the {len(key)} items of the key.")
    marks = []
    for item, under_a in key.items():
        mark = found[item]
        if mark not in ("A", "B", "="):
            raise InputError(f"Sheet {judge}, item {item}: the mark must be A, B or =, got {mark}.")
        other = arms[1] if under_a == arms[0] else arms[0]
        marks.append({"A": under_a, "B": other, "=": "="}[mark])
    return marks


def sign_test(first: int, second: int) -> float:
    """The two-sided p-value of so many wins against so many."""
    n, k = first + second, min(first, second)
    tail = sum(math.comb(n, i) for i in range(k + 1))
    return float(min(1.0, 2 * tail / 2**n))


def fleiss(marks: Sequence[Sequence[str]]) -> float:
    """Fleiss' kappa of several judges; 1 where all of them gave one mark throughout."""
    judges, items = len(marks), len(marks[0])
    rows = [Counter(judge[i] for judge in marks) for i in range(items)]
    agree = [(sum(c * c for c in row.values()) - judges) / (judges * (judges - 1)) for row in rows]
    shares = [sum(row[m] for row in rows) / (items * judges) for m in {m for r in rows for m in r}]
    chance = sum(s * s for s in shares)
    return 1.0 if chance == 1 else (sum(agree) / items - chance) / (1 - chance)


def _cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula; control characters by their numbers."""
    shown = "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)
    return f"'{shown}" if shown[:1] in ("=", "+", "-", "@") else shown
