"""The answers of a needle threading row, recomputed from the text of its haystack alone.

What: a solver that reads the pairs back from the text and follows the question's rule; `verify`
says whether a row's stored answer is the one that its text gives.
Source: Roberts et al. (2024), arXiv 2411.05000, section 3.
Differs from the release: there is none.
Cost: linear in the pairs; a branched thread visits each of its pairs once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from unspool.errors import InputError
from unspool.evaluation.tasks.needle_threading.haystack import NeedleRow

_LINE = re.compile(r'\s*"([^"]*)": "([^"]*)"\s*')


def solve(row: NeedleRow) -> list[str]:
    """The answer of a row: one value, or the list that is asked for.

    Raises:
        InputError: The haystack is not a list of pairs, or holds none of the keys asked for.
    """
    pairs = read_pairs(row.haystack)
    if row.conditional_character != "N/A":
        return [value for key, value in pairs if row.conditional_character in key]
    where: dict[str, list[str]] = {}
    for key, value in pairs:
        where.setdefault(key, []).append(value)
    asked = [row.keys] if isinstance(row.keys, str) else list(row.keys)
    for key in asked:
        if key not in where:
            raise InputError(f"Row {row.id} asks for the key {key!r}, which its haystack lacks.")
    if row.num_threads < 1:
        return [where[key][0] for key in asked]
    if row.num_threads == 1:
        asked = asked[:1]  # published rows may list every key of the thread
    return [_longest(key, where)[-1] for key in asked]


def verify(row: NeedleRow) -> bool:
    """Whether the stored answer is what the text says."""
    stored = [row.values] if isinstance(row.values, str) else list(row.values)
    found = solve(row)
    return found == stored or (row.num_threads == 1 and found == stored[-1:])


def read_pairs(haystack: str) -> list[tuple[str, str]]:
    """The pairs of a haystack in order, repeated keys included."""
    if haystack.lstrip().startswith("{"):
        try:
            pairs = json.loads(haystack, object_pairs_hook=list)
        except ValueError as error:
            raise InputError(f"The haystack is no JSON object: {error}.") from error
        return [(str(key), str(value)) for key, value in pairs]
    pairs = []
    for number, line in enumerate(haystack.splitlines(), 1):
        match = _LINE.fullmatch(line)
        if not match:
            raise InputError(f'Line {number} of the haystack is no "key": "value", got {line!r}.')
        pairs.append((match[1], match[2]))
    return pairs


def _longest(start: str, where: Mapping[str, Sequence[str]]) -> list[str]:
    """The longest way from a key; the first in the text of several equal ones."""
    best: list[str] = []
    ways: list[tuple[str, list[str]]] = [(start, [])]
    while ways:
        key, visited = ways.pop()
        if len(visited) > len(best):
            best = visited
        # Pushed last to first, so that the first in the text is looked at first.
        ways += [(v, [*visited, v]) for v in reversed(where.get(key, ())) if v not in visited]
    return best
