"""What a needle threading haystack holds and what is asked of it.

Source: Roberts et al. (2024), arXiv 2411.05000, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

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

PAIR_CHARS = 80
"""Characters of `"key": "value", `: a JSON object of n pairs is exactly 80 n characters long."""
DEPTHS = tuple(d / 10 for d in range(11))
"""Depths of the published grid."""


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
