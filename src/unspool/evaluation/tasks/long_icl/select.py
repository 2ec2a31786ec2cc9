"""Which items become demonstrations and tests, by the released rules, for any labelled data.

What: round-robin over labels in order of first appearance, with borrowing; scans that take one item
of every relation a round; fixed numbers of items that cover the types; merging of dialogues.
Source: Li et al. (2024), arXiv 2404.02060, section 3; `select_data`, `select_test` and `merge_data`
of the release.
Differs from the released code: none in what is selected. Labels with too few items, which borrow or
are passed over, are counted.
Cost: linear in the items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from unspool.errors import ConfigError


class Selected(NamedTuple):
    """Items in order, and what was short."""

    items: list[int]
    """Places of the items in what was given."""
    short: dict[str, int]
    """Labels that had fewer items than rounds, and how many turns they missed."""


def by_rounds(labels: Sequence[str], rounds: int) -> Selected:
    """Walk the labels `rounds` times, each time taking the next unused item of each.

    A label that has run out takes, in place of its own, the next unused item of the first later
    label in the walk that has one; if none has, nothing.

    Args:
        labels: Label of each item.
        rounds: How often every label is taken.

    Raises:
        ConfigError: `rounds` is below 1.
    """
    if rounds < 1:
        raise ConfigError(f"rounds must be >= 1, got {rounds}.")
    groups: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        groups.setdefault(label, []).append(place)
    order = list(groups)
    used = dict.fromkeys(order, 0)
    found: list[int] = []
    short: Counter[str] = Counter()
    for _ in range(rounds):
        for place, label in enumerate(order):
            taken: str | None = label
            if used[label] >= len(groups[label]):
                short[label] += 1
                later = (o for o in order[place + 1 :] if used[o] < len(groups[o]))
                taken = next(later, None)
            if taken is None:
                continue
            found.append(groups[taken][used[taken]])
            used[taken] += 1
    return Selected(found, dict(short))


def by_scan(labels: Sequence[str], rounds: int, wanted: Collection[str]) -> Selected:
    """Scan the items once; a round takes the first item of every wanted label and then ends."""
    if rounds < 1:
        raise ConfigError(f"rounds must be >= 1, got {rounds}.")
    found: list[int] = []
    seen: set[str] = set()
    done = 0
    for place, label in enumerate(labels):
        if label in wanted and label not in seen:
            found.append(place)
            seen.add(label)
        if len(seen) == len(wanted):
            done += 1
            if done == rounds:
                break
            seen = set()
    missing = set(wanted) - seen if done < rounds else set()
    return Selected(found, dict.fromkeys(sorted(missing), rounds - done))


def at_most_each(labels: Sequence[str], most: int, wanted: Collection[str]) -> list[int]:
    """The first `most` items of every wanted label, in their order."""
    seen: Counter[str] = Counter()
    found = []
    for place, label in enumerate(labels):
        if label in wanted and seen[label] < most:
            found.append(place)
            seen[label] += 1
    return found


def merge_dialogues(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the same dialogue as one, with all their pairs, in order of first appearance."""
    found: dict[str, list[dict[str, Any]]] = {}
    names = ("relation", "subject_entity", "object_entity")
    for row in rows:
        found.setdefault(row["dialogue"], []).append({name: row[name] for name in names})
    return [{"dialogue": text, "relations": relations} for text, relations in found.items()]


def first_labels(dialogues: Sequence[Mapping[str, Any]], most: int) -> list[dict[str, Any]]:
    """Dialogues until `most` relations are reached; the last one keeps only those up to it."""
    found: list[dict[str, Any]] = []
    left = most
    for dialogue in dialogues:
        if left <= 0:
            break
        relations = list(dialogue["relations"])[:left]
        left -= len(relations)
        if relations:
            found.append({"dialogue": dialogue["dialogue"], "relations": relations})
    return found
