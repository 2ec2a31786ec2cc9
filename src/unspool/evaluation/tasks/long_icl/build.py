"""Demonstrations for any labelled data: rounds or a budget, in rounds, grouped or shuffled.

What: `build` takes training items and their labels and gives the demonstrations, their text, the
place of every label, and what was short.
Source: Li et al. (2024), arXiv 2404.02060, section 3 and the position study of section 5.
Differs from the release: any data with labels; a budget in tokens drops whole items from the end
and says how many; labels that are equal in lower case are refused, since answers are compared so.
Cost: linear in the items; a budget costs a few measurements.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from unspool.errors import ConfigError, InputError
from unspool.evaluation.tasks._fit import Fitter
from unspool.evaluation.tasks.long_icl.prompt import answered, head
from unspool.evaluation.tasks.long_icl.select import by_rounds

Order: TypeAlias = Literal["rounds", "grouped", "shuffled"]
ORDERS: tuple[Order, ...] = ("rounds", "grouped", "shuffled")


@dataclass(frozen=True, slots=True)
class Demonstrations:
    """What stands before every test input."""

    items: tuple[int, ...]
    """Places of the demonstrations in the training data, in the order shown."""
    labels: tuple[str, ...]
    """Label of each."""
    text: str
    """Instruction and demonstrations: the shared prefix of every prompt."""
    short: Mapping[str, int]
    """Labels with fewer items than rounds, and how many turns they missed."""
    left_out: int = 0
    """Selected items that a budget left no room for."""

    @property
    def positions(self) -> dict[str, list[int]]:
        """Places of each label among the demonstrations, from 1, in order of first appearance."""
        found: dict[str, list[int]] = {}
        for place, label in enumerate(self.labels, 1):
            found.setdefault(label, []).append(place)
        return found

    @property
    def by_last_place(self) -> tuple[str, ...]:
        """The labels, those shown last at the end."""
        positions = self.positions
        return tuple(sorted(positions, key=lambda label: positions[label][-1]))


def build(
    train: Sequence[str | Mapping[str, Any]],
    labels: Sequence[str],
    *,
    rounds: int | None = None,
    tokens: int | None = None,
    count: Callable[[str], int] = len,
    order: Order | str = "rounds",
    instruct: bool = False,
    seed: int = 0,
    name: str = "label",
) -> Demonstrations:
    """Choose and write demonstrations.

    Args:
        train: Items; a text, or a record with the fields of data set `name`.
        labels: Label of each item.
        rounds: How often each label is shown.
        tokens: A budget for the demonstrations in place of rounds: as many items of the round-robin
            as fit.
        count: Size of a text in the unit of the budget.
        order: `rounds` as selected, `grouped` by label, or `shuffled`.
        instruct: List the labels in the instruction.
        seed: Of a shuffled order.
        name: Data set whose field lines are used.

    Raises:
        ConfigError: Both or neither of rounds and tokens, or an unknown order.
        InputError: Two labels are equal in lower case, or the lists differ in length, or no item
            fits the budget.
    """
    if (rounds is None) == (tokens is None):
        raise ConfigError(f"Give rounds or tokens, not both: got {rounds} and {tokens}.")
    if order not in ORDERS:
        raise ConfigError(f"order must be one of {', '.join(ORDERS)}, got {order!r}.")
    check_labels(labels, len(train))
    items: list[Mapping[str, Any]] = [
        {"text": item} if isinstance(item, str) else item for item in train
    ]
    most = max(map(labels.count, dict.fromkeys(labels))) if rounds is None else rounds
    selected = by_rounds(labels, most)

    def text_of(places: Sequence[int]) -> str:
        known = list(dict.fromkeys(labels[p] for p in places)) if instruct else []
        shown = "".join(answered(name, items[p], labels[p]) for p in places)
        return head(name, known) + shown

    places = list(selected.items)
    left_out = 0
    if tokens is not None:
        fit = Fitter(tokens, low=1, most=len(places))
        number = fit(lambda n: count(text_of(places[:n])))
        if number < 1:
            raise InputError(
                f"One demonstration takes {count(text_of(places[:1]))} and the budget is {tokens}."
            )
        left_out = len(places) - number
        places = places[:number]
    if order == "grouped":
        first = {label: place for place, label in reversed(list(enumerate(labels)))}
        places.sort(key=lambda p: first[labels[p]])
    elif order == "shuffled":
        random.Random(f"shuffled/{seed}").shuffle(places)
    short = {} if tokens is not None else selected.short
    return Demonstrations(
        tuple(places), tuple(labels[p] for p in places), text_of(places), short, left_out
    )


def check_labels(labels: Sequence[str], items: int) -> None:
    """Refuse labels that cannot be told apart, or that are not one an item.

    Raises:
        InputError: See `build`.
    """
    if len(labels) != items or not labels:
        raise InputError(f"There are {items} items and {len(labels)} labels; give one each.")
    seen: dict[str, str] = {}
    for label in labels:
        other = seen.setdefault(label.lower(), label)
        if other != label:
            raise InputError(
                f"The labels {other!r} and {label!r} are equal in lower case, in which answers are "
                "compared. Rename one."
            )
