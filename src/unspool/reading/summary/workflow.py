"""What both workflows of a summary share: settings, the tree of what was made of what, validity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from unspool.errors import ConfigError
from unspool.reading.summary.prompts import Templates

Workflow: TypeAlias = Literal["hierarchical", "incremental"]

TRIES = 6
"""Most tries to get a summary that is valid."""
SPARE = 20
"""Tokens left free in every prompt."""
_ENDS = (".", "?", "!", '"', "'", "\u201d", "\u2019", "\u3002", "\uff1f", "\uff01")


@dataclass(frozen=True, slots=True, kw_only=True)
class SummarySettings:
    """How a text is summarised."""

    workflow: Workflow | str = "hierarchical"
    """Merge summaries of parts level by level, or bring one summary up to date part by part."""
    chunk_size: int = 2048
    """Most tokens of a part."""
    max_summary: int = 900
    """Most tokens of the summary."""
    word_ratio: float = 0.65
    """Words a token: what a limit in tokens is in words."""
    seed: int = 0
    """Of the sampling; a try after the first is at temperature 1."""
    temperature: float = 0.5
    """Of the first try."""
    tidy: bool = True
    """Drop sentences that an answer says twice, and an unfinished end."""
    quoted: float = 0.0
    """Least share of the words of a sentence that stand in the text in runs of three; others are
    dropped, and central sentences of the text take their place. 0: a model may say it in words of
    its own. For models that make things up."""
    plain: bool = False
    """Ask in one short sentence, which is what small models follow."""

    def __post_init__(self) -> None:
        if self.workflow not in ("hierarchical", "incremental"):
            raise ConfigError(
                f"workflow must be hierarchical or incremental, got {self.workflow!r}."
            )
        for name in ("chunk_size", "max_summary"):
            if getattr(self, name) < 16:
                raise ConfigError(f"{name} must be at least 16 tokens, got {getattr(self, name)}.")
        for name in ("temperature", "quoted"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be in 0-1, got {getattr(self, name)}.")
        if not 0 < self.word_ratio <= 1:
            raise ConfigError(f"word_ratio must be above 0 and at most 1, got {self.word_ratio}.")


SMALL: Mapping[str, Any] = {
    "chunk_size": 1024,
    "max_summary": 320,
    "temperature": 0.0,
    "quoted": 0.8,
    "plain": True,
}
"""What is set otherwise for models of under a billion parameters: they go in circles on long
answers and make up what they cannot follow."""


@dataclass(frozen=True, slots=True)
class Node:
    """One summary on the way, and the chunks (level 0) or summaries of the level below in it."""

    level: int
    number: int
    text: str
    of: tuple[int, ...]
    valid: bool = True
    """False: taken as it was after the last try."""
    filled: int = 0
    """Sentences of the text that stand in place of what the model wrote."""

    def to_json(self) -> dict[str, Any]:
        return {
            "level": self.level,
            "number": self.number,
            "text": self.text,
            "of": list(self.of),
            "valid": self.valid,
            "filled": self.filled,
        }


def _as_it_is(said: str, source: str, limit: int) -> tuple[str, int]:
    return said, 0


@dataclass(frozen=True, slots=True)
class Tools:
    """What a workflow works with."""

    ask: Callable[[str, int, float | int], str]
    count: Callable[[str], int]
    window: int
    """Tokens of a prompt without chat wrapper, and its answer."""
    templates: Templates = field(default_factory=Templates)
    mend: Callable[[str, str, int], tuple[str, int]] = _as_it_is
    """From an answer, what it is to summarise and its limit, to what is taken of the answer, and
    how many sentences of the text were put in."""


def ends_well(text: str) -> bool:
    """Whether a text ends as a sentence does: . ? ! or a quote."""
    return text.endswith(_ENDS)
