"""Needle threading haystacks: a JSON object of random UUID pairs with needles or threads in it.

What: six retrieval tasks (single needle, multiple needles, conditional needles, one thread, several
threads, a branched thread) at any length, with the answer known from the construction.
Source: Roberts, Han and Albanie (2024), "Needle Threading", arXiv 2411.05000, section 3; the fields
of a row are those of the published data.
Differs from the release: its generator is not public. UUIDs are the 128-bit draws of Python's
`random.Random(seed)`, key and value in turn, and the needle of depth d is pair
`round(d * (pairs - 1))`; both reproduce the published row with 25 pairs (seed 0, depth 0.5). How
the published threads, markers and branches were drawn is unknown: those use a second generator, so
that the pairs around them stay those of the seed. The questions are worded here.
Cost: linear in the pairs, about a microsecond each; 80 characters a pair.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, TypeAlias

from unspool.evaluation.tasks.needle_threading.config import (
    Direction,
    NeedleConfig,
    NeedleTask,
    Style,
)

_HEX_PLACES = tuple(p for p in range(36) if p not in (8, 13, 18, 23))


@dataclass(frozen=True, slots=True)
class NeedleRow:
    """One haystack with its question and answer; the fields are those of the published data."""

    id: int
    haystack: str
    keys: str | list[str]
    """The key asked for, the keys in the order asked for, or the start of each thread. Of
    conditional needles, those with the marker, which the question does not name."""
    values: str | list[str]
    """The answer."""
    question: str
    context_length: int
    """Characters of the haystack."""
    num_kv_pairs: int
    repeat_number: int
    needle_depth: str
    """In percent, `N/A` where there is no one depth."""
    num_needles: int
    needle_placement: str
    conditional_character: str
    thread_length: int
    thread_direction: str
    num_threads: int
    branches: int = 1
    """Pairs with the same key at each step; not in the published data."""

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> NeedleRow:
        """A row from its fields; unknown ones are left out."""
        known = {f.name for f in fields(cls)}
        return cls(**{k: v for k, v in row.items() if k in known})


def make(task: NeedleTask | str, *, row_id: int = 0, **settings: Any) -> NeedleRow:
    """One haystack of a task; the settings are those of `NeedleConfig`.

    Raises:
        ConfigError: A thread is longer than the haystack, a depth has no meaning in this task, a
            marker could occur in a UUID, or another setting cannot work.
    """
    return build(NeedleConfig(task=task, **settings), row_id=row_id)


def build(config: NeedleConfig, *, row_id: int = 0) -> NeedleRow:
    """One haystack as `config` says."""
    total = config.num_pairs
    drawn = uuids(2 * total, config.seed)
    keys, values = drawn[0::2], drawn[1::2]
    rng = random.Random(f"{config.task}/{config.seed}")
    asked, answer = _PLANT[config.task](config, keys, values, rng)
    haystack = write(keys, values, config.style)
    threaded = config.task in ("single_thread", "multi_thread", "branched_thread")
    listed = config.task in ("multiple_needles", "conditional_needles", "multi_thread")
    return NeedleRow(
        id=row_id,
        haystack=haystack,
        keys=asked if listed else asked[0],
        values=answer if listed else answer[0],
        question=question(config, asked),
        context_length=len(haystack),
        num_kv_pairs=total,
        repeat_number=config.seed,
        needle_depth="N/A" if config.depth is None else f"{100 * config.depth:g}",
        num_needles=1 if threaded else config.planted,
        needle_placement=_placement(config, listed and not threaded),
        conditional_character=(config.condition if config.task == "conditional_needles" else "N/A"),
        thread_length=config.thread_length if threaded else 1,
        thread_direction=config.direction if threaded else "N/A",
        num_threads={"multi_thread": config.n_threads}.get(config.task, int(threaded)),
        branches=config.branches if config.task == "branched_thread" else 1,
    )


def uuids(count: int, seed: int) -> list[str]:
    """The first `count` UUIDs of a seed: draws of 128 bits in canonical form."""
    # One draw of 128 * count bits holds the same words as `count` draws of 128, last one first.
    text = random.Random(seed).randbytes(16 * count)[::-1].hex()
    return [
        f"{text[i : i + 8]}-{text[i + 8 : i + 12]}-{text[i + 12 : i + 16]}-"
        f"{text[i + 16 : i + 20]}-{text[i + 20 : i + 32]}"
        for i in range(32 * (count - 1), -1, -32)
    ]


def write(keys: Sequence[str], values: Sequence[str], style: Style | str = "json") -> str:
    """The text of a haystack."""
    if style == "lines":
        return "".join(f'"{k}": "{v}"\n' for k, v in zip(keys, values, strict=True))
    return "{" + ", ".join([f'"{k}": "{v}"' for k, v in zip(keys, values, strict=True)]) + "}"


def question(config: NeedleConfig, asked: Sequence[str]) -> str:
    """What is asked, in this project's words; it ends where the answer goes."""
    where = "in the JSON object above" if config.style == "json" else "in the lines above"
    listed = "[" + ", ".join(f'"{k}"' for k in asked) + "]"
    steps = (
        "Look up the value of the start key. If that value is itself a key, look up its value, "
        "and go on until a value is no key."
    )
    if config.task == "single_needle":
        return f'Which value belongs to the key "{asked[0]}" {where}? Reply with the value alone.'
    if config.task == "multiple_needles":
        return (
            f"Which values belong to these keys {where}? Reply with a list of the values, in the "
            f"order of the keys.\nKeys: {listed}"
        )
    if config.task == "conditional_needles":
        return (
            f'Some keys {where} contain the character "{config.condition}". Reply with a list of '
            "the values of all those keys, in the order in which they stand."
        )
    if config.task == "single_thread":
        return f'{steps} Reply with the last value alone.\nStart key: "{asked[0]}"'
    if config.task == "multi_thread":
        return (
            f"{steps} Do so for each of the start keys. Reply with a list of the last values, in "
            f"the order of the start keys.\nStart keys: {listed}"
        )
    return (
        f"{steps} Several pairs may have the same key, so that there are several ways to go on; "
        "find the way with the most steps. Reply with the last value of that way alone.\n"
        f'Start key: "{asked[0]}"'
    )


_Asked: TypeAlias = tuple[list[str], list[str]]


def _single(config: NeedleConfig, keys: list[str], values: list[str], rng: random.Random) -> _Asked:
    place = _place(config.depth, len(keys), rng)
    return [keys[place]], [values[place]]


def _multiple(
    config: NeedleConfig, keys: list[str], values: list[str], rng: random.Random
) -> _Asked:
    places = _scatter(config, rng)
    rng.shuffle(places)
    return [keys[p] for p in places], [values[p] for p in places]


def _conditional(
    config: NeedleConfig, keys: list[str], values: list[str], rng: random.Random
) -> _Asked:
    places = sorted(_scatter(config, rng))
    for place in places:
        at = rng.choice(_HEX_PLACES)
        keys[place] = keys[place][:at] + config.condition + keys[place][at + 1 :]
    return [keys[p] for p in places], [values[p] for p in places]


def _threads(
    config: NeedleConfig, keys: list[str], values: list[str], rng: random.Random
) -> _Asked:
    count = config.n_threads if config.task == "multi_thread" else 1
    length = config.thread_length
    if config.depth is not None:
        chosen = [_ending(config, len(keys), rng)]
    else:
        spots = rng.sample(range(len(keys)), count * length)
        chosen = [spots[i * length : (i + 1) * length] for i in range(count)]
    asked, answers = [], []
    for places in chosen:
        if config.depth is None:
            _order(places, config.direction, rng)
        for here, after in pairwise(places):
            keys[after] = values[here]
        asked.append(keys[places[0]])
        answers.append(values[places[-1]])
    return asked, answers


def _branched(
    config: NeedleConfig, keys: list[str], values: list[str], rng: random.Random
) -> _Asked:
    length = config.thread_length
    trunk = _ending(config, len(keys), rng) if config.depth is not None else []
    if not trunk:
        trunk = rng.sample(range(len(keys)), length)
        _order(trunk, config.direction, rng)
    free = sorted(set(range(len(keys))) - set(trunk))
    dead = rng.sample(free, (length - 1) * (config.branches - 1))
    for here, after in pairwise(trunk):
        keys[after] = values[here]
    # The last step has one pair only: a second would be a way as long as the right one.
    for number, place in enumerate(dead):
        keys[place] = keys[trunk[number // (config.branches - 1)]]
    return [keys[trunk[0]]], [values[trunk[-1]]]


_PLANT = {
    "single_needle": _single,
    "multiple_needles": _multiple,
    "conditional_needles": _conditional,
    "single_thread": _threads,
    "multi_thread": _threads,
    "branched_thread": _branched,
}


def _place(depth: float | int | None, total: int, rng: random.Random) -> int:
    return rng.randrange(total) if depth is None else round(depth * (total - 1))


def _scatter(config: NeedleConfig, rng: random.Random) -> list[int]:
    """Places of needles: anywhere, or in a row that starts at the depth."""
    total, count = config.num_pairs, config.n_needles
    if config.placement == "random":
        return rng.sample(range(total), count)
    start = _place(config.depth, total - count + 1, rng)
    return list(range(start, start + count))


def _ending(config: NeedleConfig, total: int, rng: random.Random) -> list[int]:
    """A thread whose last pair stands at the depth, among the places that leave room for it."""
    before = config.thread_length - 1
    assert config.depth is not None
    if config.direction == "forward":
        last = before + round(config.depth * (total - 1 - before))
        return [*sorted(rng.sample(range(last), before)), last]
    last = round(config.depth * (total - 1))
    others = [p for p in range(total) if p != last]
    return [*rng.sample(others, before), last]


def _order(places: list[int], direction: Direction | str, rng: random.Random) -> None:
    """Put the places of one thread into the order in which it visits them."""
    if direction == "mixed":
        direction = rng.choice(("forward", "backward", "random"))
    if direction != "random":
        places.sort(reverse=direction == "backward")


def _placement(config: NeedleConfig, scattered: bool) -> str:
    if scattered:
        return config.placement
    return "depthwise" if config.depth is not None else "random"
