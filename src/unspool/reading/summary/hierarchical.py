"""Summarise each part, then merge summaries level by level until one is left.

What: levels and their limits are estimated before the first call; at each level as many
consecutive summaries as fit are merged, with the previous summary of that level as context.
Source: Chang et al. (2023), arXiv 2310.00785, section 2.2 and appendix; released `summ.py`.
Differs from the release: an empty answer counts as an invalid one (there it is asked for without
end); the limit in words is rounded in every try; the context is cut at white space, and left out if
its prompt would not fit the window (there the prompt is sent and fails); merging that cannot shrink
is refused beforehand; a closing quotation mark of any kind ends a sentence.
Cost: one call a chunk and one a merge, if every answer is valid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from unspool._overflow import shorten
from unspool.errors import ConfigError
from unspool.reading.summary.prompts import fill
from unspool.reading.summary.workflow import SPARE, TRIES, Node, SummarySettings, Tools, ends_well

_MERGED = 450
"""Tokens that a summary is taken to have when levels are estimated."""
_CONTEXT_SHARE = 0.2


class Levels(NamedTuple):
    """How often is merged, and the most tokens of a summary at each level."""

    levels: int
    limits: tuple[int, ...]


def estimate_levels(
    chunks: int, chunk_size: int, window: int, template: int, max_summary: int, word_ratio: float
) -> Levels:
    """The limits of all levels, the smallest first.

    Args:
        chunks: How many there are.
        chunk_size: Tokens of each.
        window: Tokens of prompt and answer.
        template: Tokens of the merge prompt without its text.
        max_summary: Limit of the last level.
        word_ratio: By which each level below is smaller.

    Raises:
        ConfigError: A prompt does not hold two chunks, so merging would never end.
    """
    left, size, levels = chunks, chunk_size, 0
    while left > 1:
        fitting = (window - template - SPARE) // size
        if fitting < 2:
            raise ConfigError(
                f"A window of {window:,} tokens does not hold two parts of {size:,}. It takes at "
                f"least {2 * size + template + SPARE:,}, or a smaller chunk_size."
            )
        left, size = math.ceil(left / fitting), _MERGED
        levels += 1
    limits = [max_summary]
    for _ in range(levels - 1):
        limits.append(int(limits[-1] * word_ratio))
    return Levels(levels, tuple(reversed(limits)))


def least_window(settings: SummarySettings, tools: Tools) -> int:
    """Tokens below which the workflow cannot work: two summaries and a context, or a chunk."""
    limit, templates = settings.max_summary, tools.templates
    two = 2 * limit + tools.count("Summary 1:\n\n\n\nSummary 2:\n\n") + SPARE
    merge = math.ceil(two / (1 - _CONTEXT_SHARE)) + limit + tools.count(templates.merge) + SPARE
    first = settings.chunk_size + tools.count(templates.first) + limit + SPARE
    return max(merge, first)


def summarise(chunks: Sequence[str], settings: SummarySettings, tools: Tools) -> list[Node]:
    """Every summary that was made, by level; the last is the summary of the whole."""
    template = _size(tools, tools.templates.merge)
    limits = estimate_levels(
        len(chunks),
        settings.chunk_size,
        tools.window,
        template,
        settings.max_summary,
        settings.word_ratio,
    ).limits
    nodes: list[Node] = []
    parts, level = list(chunks), 0
    while True:
        limit = limits[level] if level < len(limits) else settings.max_summary
        together = tools.count("\n\n".join(parts)) + settings.max_summary + template + SPARE
        if together <= tools.window:  # more levels were estimated than are needed
            limit = settings.max_summary
        made = _level(parts, level, limit, settings, tools)
        nodes += made
        if len(made) == 1:
            return nodes
        if level and len(made) >= len(parts):
            raise ConfigError(
                f"Two summaries of {limit:,} tokens do not fit a window of {tools.window:,}. Take "
                f"a smaller max_summary, or a model with a larger window."
            )
        parts = [node.text for node in made]
        level += 1


def _level(
    parts: Sequence[str], level: int, limit: int, settings: SummarySettings, tools: Tools
) -> list[Node]:
    budget = tools.window - limit - _size(tools, tools.templates.merge) - SPARE
    made: list[Node] = []
    i = 0
    while i < len(parts):
        context = _context(made[-1].text, budget, tools) if made else ""
        first, text = i, parts[i]
        if level:
            text = f"Summary 1:\n\n{text}"
            while i + 1 < len(parts):
                longer = f"{text}\n\nSummary {i - first + 2}:\n\n{parts[i + 1]}"
                if tools.count(context + longer) + SPARE > budget:
                    break
                i, text = i + 1, longer
        i += 1
        said, valid, filled = _write(text, context, level, limit, settings, tools)
        made.append(Node(level, len(made), said, tuple(range(first, i)), valid, filled))
    return made


def _context(text: str, budget: int, tools: Tools) -> str:
    """The previous summary of the level, at most a fifth of the budget, to its last full stop."""
    most = math.floor(_CONTEXT_SHARE * budget)
    if tools.count(text) <= most:
        return text
    words = text.split(" ")
    low, high = 0, len(words)
    while low < high:  # whole words, so that no tokenizer is needed to decode
        middle = (low + high + 1) // 2
        fits = tools.count(" ".join(words[:middle])) <= most
        low, high = (middle, high) if fits else (low, middle - 1)
    kept = " ".join(words[i] for i in shorten(range(len(words)), low, "head").ids)
    return kept.rsplit(".", 1)[0] + "." if "." in kept else kept


def _write(
    text: str, context: str, level: int, limit: int, settings: SummarySettings, tools: Tools
) -> tuple[str, bool, int]:
    """A summary within its limit, whether it is valid, and how many sentences are the text's."""
    words = float(round(limit * settings.word_ratio))
    prompt = _prompt(text, context, level, words, limit, tools)
    said, filled = tools.mend(tools.ask(prompt, limit, settings.temperature), text, limit)
    for attempt in range(TRIES):
        if is_valid(said, limit, tools):
            return said, True, filled
        words *= 1 - 0.1 * attempt
        prompt = _prompt(text, context, level, words, limit, tools)
        said, filled = tools.mend(tools.ask(prompt, limit, 1.0), text, limit)
    return said, is_valid(said, limit, tools), filled


def is_valid(text: str, limit: int, tools: Tools) -> bool:
    """Not empty, within its tokens, and ending as a sentence does."""
    return bool(text) and ends_well(text) and tools.count(text) <= limit


def _prompt(text: str, context: str, level: int, words: float, limit: int, tools: Tools) -> str:
    templates, most = tools.templates, max(1, round(words))
    if level == 0:
        return fill(templates.first, text=text, words=most)
    if context:
        prompt = fill(templates.merge_context, context=context, text=text, words=most)
        if tools.count(prompt) + limit <= tools.window:
            return prompt
    return fill(templates.merge, text=text, words=most)


def _size(tools: Tools, template: str) -> int:
    return tools.count(fill(template, text="", context="", words=0))
