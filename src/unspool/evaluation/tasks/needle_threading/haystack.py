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
from typing import Any, Literal, TypeAlias, get_args

from unspool.errors import ConfigError

NeedleTask: TypeAlias = Literal[
    "single_needle",
    "multiple_needles",
    "conditional_needles",
    "single_thread",
    "multi_thread",
    "branched_thread",
]
Placement: TypeAlias = Literal["random", "clustered"]
Direction: TypeAlias = Literal["forward", "backward", "random", "mixed"]
Style: TypeAlias = Literal["json", "lines"]

TASKS: tuple[NeedleTask, ...] = get_args(NeedleTask)
PAIR_CHARS = 80
"""Characters of `"key": "value", `: a JSON object of n pairs is exactly 80 n characters long."""
DEPTHS = tuple(d / 10 for d in range(11))
"""Depths of the published grid."""
_HEX_PLACES = tuple(p for p in range(36) if p not in (8, 13, 18, 23))


@dataclass(frozen=True, kw_only=True, slots=True)
class NeedleConfig:
    """What one haystack holds and what is asked of it."""

    task: NeedleTask | str = "single_needle"
    """Which of the six tasks."""
    chars: int | None = None
    """Characters of the haystack; the pairs are this divided by 80, rounded down."""
    pairs: int | None = None
    """Number of pairs, in place of `chars`."""
    depth: float | int | None = None
    """Place of the answer, 0 (start) to 1 (end): the pair of a single needle, the first pair of a
    cluster, the last pair of a forward or random thread. None: drawn."""
    n_needles: int = 1
    """Keys asked for (multiple), or keys with the marker (conditional)."""
    placement: Placement | str = "random"
    """Needles anywhere, or next to each other."""
    thread_length: int = 1
    """Pairs in a thread; the value of one is the key of the next."""
    n_threads: int = 1
    """Threads that are asked for at once."""
    direction: Direction | str = "forward"
    """Whether each next pair stands later, earlier or anywhere; `mixed`: drawn for each thread."""
    branches: int = 2
    """Pairs with the same key at each step of a branched thread; one of them goes on."""
    condition: str = "*"
    """The marker character of conditional needles."""
    seed: int = 0
    """Of the UUIDs and of all places."""
    style: Style | str = "json"
    """One JSON object on one line, or a pair a line."""

    def __post_init__(self) -> None:
        for name, kind in (
            ("task", NeedleTask),
            ("placement", Placement),
            ("direction", Direction),
            ("style", Style),
        ):
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(
                    f"{name} must be one of {', '.join(get_args(kind))}, "
                    f"got {getattr(self, name)!r}."
                )
        if (self.chars is None) == (self.pairs is None):
            raise ConfigError(
                f"Give chars or pairs, not both: got chars={self.chars}, pairs={self.pairs}."
            )
        for name in ("n_needles", "thread_length", "n_threads", "branches"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be >= 1, got {getattr(self, name)}.")
        if self.num_pairs < 1:
            raise ConfigError(
                f"A haystack needs at least one pair of {PAIR_CHARS} characters, got "
                f"chars={self.chars}, pairs={self.pairs}."
            )
        if self.depth is not None:
            self._check_depth()
        if self.task == "conditional_needles":
            _check_condition(self.condition)
        if self.task == "branched_thread" and self.branches < 2:
            raise ConfigError("A branched thread needs branches >= 2, got 1. Use single_thread.")
        if self.planted > self.num_pairs:
            raise ConfigError(
                f"{self.task} plants {self.planted} pairs, and the haystack holds "
                f"{self.num_pairs}. Ask for a longer haystack or for less in it."
            )

    @property
    def num_pairs(self) -> int:
        """Pairs of the haystack."""
        return self.pairs if self.pairs is not None else (self.chars or 0) // PAIR_CHARS

    @property
    def planted(self) -> int:
        """Pairs that needles, threads and branches take up."""
        if self.task in ("multiple_needles", "conditional_needles"):
            return self.n_needles
        if self.task == "single_thread":
            return self.thread_length
        if self.task == "multi_thread":
            return self.thread_length * self.n_threads
        if self.task == "branched_thread":
            return (self.thread_length - 1) * self.branches + 1
        return 1

    def _check_depth(self) -> None:
        assert self.depth is not None
        if not 0 <= self.depth <= 1:
            raise ConfigError(f"depth must be between 0 and 1, got {self.depth}.")
        threaded = self.task in ("single_thread", "branched_thread")
        if self.task == "multi_thread":
            raise ConfigError("Several threads end at several places: give no depth.")
        if threaded and self.direction in ("backward", "mixed"):
            raise ConfigError(
                f"A thread in direction {self.direction!r} takes no depth, got {self.depth}: its "
                "answer stands before its start. Use direction='forward' or give no depth."
            )
        scattered = self.task in ("multiple_needles", "conditional_needles")
        if scattered and self.placement == "random":
            raise ConfigError(
                f"Needles at random places take no depth, got {self.depth}. "
                "Use placement='clustered' or give no depth."
            )


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


def _check_condition(marker: str) -> None:
    if len(marker) != 1 or not marker.isprintable() or marker in '"\\' or marker.isspace():
        raise ConfigError(
            f"condition must be one printable character other than a quote, got {marker!r}."
        )
    if marker.lower() in "0123456789abcdef-":
        raise ConfigError(
            f"condition {marker!r} can occur in any key: take a character other than 0-9, a-f "
            "and the hyphen, such as '*' or '&'."
        )
