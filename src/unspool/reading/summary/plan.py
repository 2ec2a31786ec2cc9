"""How many calls a summary takes and how many tokens they read, before the first is made.

What: the workflow itself is run with answers that are exactly as long as they may be.
Source: this project's own.
Differs from a run: shorter summaries merge in fewer calls, and invalid ones are asked for again.
Cost: one token count a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from unspool.reading.summary import hierarchical, incremental
from unspool.reading.summary.workflow import SummarySettings, Tools

_TOKEN = "\0"


@dataclass(frozen=True, slots=True)
class CallPlan:
    """Calls and tokens if every answer is valid and as long as it may be."""

    chunks: int
    calls: int
    read_tokens: int
    """Of all prompts, chat wrappers left out."""
    output_tokens: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def plan_calls(chunks: Sequence[str], settings: SummarySettings, tools: Tools) -> CallPlan:
    """The cost of a summary of these chunks."""
    calls = read = written = 0

    def count(text: str) -> int:
        return text.count(_TOKEN) + tools.count(text.replace(_TOKEN, ""))

    def ask(prompt: str, max_tokens: int, temperature: float | int) -> str:
        nonlocal calls, read, written
        calls += 1
        read += count(prompt)
        written += max_tokens
        # A full stop is a token of its own; incremental summaries stay below their limit.
        room = max_tokens - (1 if settings.workflow == "hierarchical" else 2)
        return _TOKEN * max(1, room) + "."

    work = hierarchical if settings.workflow == "hierarchical" else incremental
    work.summarise(chunks, settings, replace(tools, ask=ask, count=count))
    return CallPlan(len(chunks), calls, read, written)
