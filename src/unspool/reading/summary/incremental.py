"""Read a text part by part and bring one summary up to date after each.

What: a summary that does not end well or has no room left is made again from a shorter version of
the summary before it, whose length grows in proportion to what was read.
Source: Chang et al. (2023), arXiv 2310.00785, section 2.3 and appendix; released `summ.py`.
Differs from the release: where no try gives an update at all, the first update is kept (there it
raises); an empty answer is an invalid one (there it raises); a closing quotation mark of any kind
ends a sentence.
Cost: one call a chunk if every answer is valid, and up to twelve more where one is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from unspool.reading.summary.prompts import fill
from unspool.reading.summary.workflow import SPARE, TRIES, Node, SummarySettings, Tools, ends_well


class _Try(NamedTuple):
    words: int
    compressed: str
    update: str
    valid: bool
    filled: int = 0


def least_window(settings: SummarySettings, tools: Tools) -> int:
    """Tokens below which the workflow cannot work: a chunk, the summary so far and the next."""
    template = max(tools.count(tools.templates.update), tools.count(tools.templates.beginning))
    return settings.chunk_size + 2 * settings.max_summary + template + SPARE


def summarise(chunks: Sequence[str], settings: SummarySettings, tools: Tools) -> list[Node]:
    """The summary after each chunk; the last is that of the whole.

    The summary before one that had to be compressed is replaced by its shorter version.
    """
    limit = settings.max_summary
    nodes: list[Node] = []
    for number, text in enumerate(chunks):
        if not nodes:
            prompt = fill(tools.templates.beginning, text=text)
            first = tools.ask(prompt, limit, settings.temperature)
            said, filled = tools.mend(first, text, limit - 1)
            nodes.append(Node(0, 0, said, (0,), _is_valid(said, limit, tools), filled))
            continue
        before = nodes[-1].text
        said, filled = _updated(text, before, settings, tools)
        valid = _is_valid(said, limit, tools)
        if not valid:
            found = _again(said, before, text, number, len(chunks), settings, tools)
            nodes[-1] = replace(nodes[-1], text=found.compressed)
            said, valid, filled = found.update, found.valid, found.filled
        nodes.append(Node(0, number, said, tuple(range(number + 1)), valid, filled))
    return nodes


def _updated(text: str, before: str, settings: SummarySettings, tools: Tools) -> tuple[str, int]:
    """An answer to the prompt for an update, mended; what it summarises is both texts."""
    limit = settings.max_summary
    said = tools.ask(_update(text, before, tools), limit, settings.temperature)
    return tools.mend(said, f"{before}\n\n{text}", limit - 1)


def _update(text: str, summary: str, tools: Tools) -> str:
    return fill(tools.templates.update, text=text, summary=summary)


def _is_valid(text: str, limit: int, tools: Tools) -> bool:
    return bool(text) and ends_well(text) and tools.count(text) < limit


def _again(
    first: str,
    before: str,
    text: str,
    read: int,
    chunks: int,
    settings: SummarySettings,
    tools: Tools,
) -> _Try:
    """Compress the summary before, then update it again."""
    limit = settings.max_summary
    budget = int(limit * settings.word_ratio)
    wanted = int(budget * read / chunks)
    tries: dict[int, _Try] = {}
    for attempt in range(TRIES):
        words = int(wanted * (1 - attempt * 0.05))
        prompt = fill(
            tools.templates.compress, summary=before, has=len(before.split()), words=words
        )
        compressed, _ = tools.mend(tools.ask(prompt, limit, 1.0), before, words * 2)
        actual = len(compressed.split())
        in_range = int(words * 0.8) <= actual <= int(words * 1.2)
        if not (_is_valid(compressed, limit, tools) and in_range):
            continue
        said, filled = _updated(text, compressed, settings, tools)
        made = _Try(actual, compressed, said, _is_valid(said, limit, tools), filled)
        if made.valid:
            return made
        tries[actual] = made
    if not tries:
        return _Try(len(before.split()), before, first, False)
    return min(tries.values(), key=lambda each: abs(each.words - wanted))
