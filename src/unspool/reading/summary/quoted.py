"""Hold a summary to the words of its text, and fill what is missing with the text's own sentences.

What: of each sentence that a model wrote, the share of words is taken that stand in the text in
runs of three. Sentences below a least share are dropped, and so is what fills more than half
of the room. The sentences of the text that have most in common with all others take the rest; all
stand in the order of the text.
Source: LexRank (Erkan and Radev 2004, JAIR 22, section 3.2) for the central sentences; runs of
three words are what the evidence of a summary counts too.
Differs from LexRank: similarity keeps its weight (no threshold); early sentences, which say what a
text is about, weigh more; sentences that are tables, code or headings are no candidates, nor are
the shortest while there are others; of two that say the same, the later is left out.
Cost: one comparison a pair of sentences of what is summarised; no call of a model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from unspool.reading.summary.tidy import alike, distinct, split
from unspool.reading.summary.workflow import ends_well
from unspool.reading.terms import terms

_RUN = 3
_SHORTEST, _LONGEST = 5, 60
"""Words of a sentence that can stand in a summary."""
_FULL = 9
"""Words from which a sentence stands well by itself; shorter ones come last."""
_LETTERS = 0.65
_DAMPING = 0.7
_OWN = 0.5
"""Share of the limit up to which the model's sentences stand; what it left out needs the rest."""
_WORD = re.compile(r"\w+")
_HEADING = re.compile(r"\A(?:(?:Summary \d+:|[A-Z][A-Z ,/&-]+(?=\n))\s*)+")
_HYPHENS = ("\u2010", "\u00ad")
_WRAPPED = 40
"""Characters of a line that can have been broken because it was full."""


class Held(NamedTuple):
    """A summary that was held to its text."""

    text: str
    filled: int
    """Sentences that were taken from the text."""


def hold(
    said: str, source: str, least: float | int, limit: int, count: Callable[[str], int]
) -> Held:
    """The sentences of an answer that its text bears out, filled up from the text.

    Args:
        said: What the model wrote.
        source: What it was asked to summarise.
        least: Share of words in runs of three from which a sentence stays, 0 to 1.
        limit: Most tokens of the result.
        count: Tokens of a text.
    """
    own = [_line(piece) for piece in split(unwrapped(source))]
    at = _places(own)
    kept: list[tuple[int, str]] = []
    for piece in distinct(split(said)):
        line = _line(piece)
        place, share = _borne_out(line, at)
        if share >= least and readable(line):
            kept.append((place, line))
    sizes = [count(line) + 1 for _, line in kept]
    while (len(kept) > 1 and sum(sizes) > _OWN * limit) or sum(sizes) > limit:
        kept.pop()
        sizes.pop()
    filled = _filled(own, [line for _, line in kept], limit - sum(sizes), count)
    lines = [line for _, line in sorted([*kept, *filled], key=lambda each: each[0])]
    return Held(" ".join(lines), len(filled))


def unwrapped(text: str) -> str:
    """The text with the lines of an indented paragraph joined, as manual pages have them.

    A line goes on in the next where both are equally deep, it is long enough to have been full, and
    the next begins with a word or a bracket, not with a mark of a list.
    """
    out: list[str] = []
    depth, full = -1, False
    for line in text.split("\n"):
        body = line.strip()
        deep = len(line.expandtabs()) - len(line.expandtabs().lstrip())
        if full and body and deep == depth and (body[0].isalnum() or body[0] in "\"'(["):
            hyphen = out[-1].endswith(_HYPHENS)
            out[-1] = out[-1][:-1] + body if hyphen else f"{out[-1]} {body}"
        else:
            out.append(line.rstrip())
        depth, full = deep, len(body) >= _WRAPPED and deep > 0
    return "\n".join(out)


def readable(line: str) -> bool:
    """Whether a sentence reads as one: words, a capital, an end; no table, code or heading."""
    words = line.split()
    if not _SHORTEST <= len(words) <= _LONGEST or not ends_well(line):
        return False
    first = line.lstrip("\"'\u201c\u2018(*`")[:1]
    if not first or first.islower() or "|" in line or line.endswith(("...", "e.g.", "i.e.")):
        return False
    return sum(c.isalpha() or c == " " for c in line) >= _LETTERS * len(line)


def central(lines: Sequence[str]) -> list[int]:
    """The sentences by how much they have in common with all others, the most central first."""
    bags = [Counter(terms(line)) for line in lines]
    vocabulary = {word: i for i, word in enumerate(sorted(set().union(*bags)))} if bags else {}
    if not vocabulary:
        return list(range(len(lines)))
    table = np.zeros((len(lines), len(vocabulary)))
    for row, bag in enumerate(bags):
        for word, times in bag.items():
            table[row, vocabulary[word]] = times
    table *= np.log(len(lines) / np.count_nonzero(table, axis=0)) + 1e-9
    norms = np.linalg.norm(table, axis=1, keepdims=True)
    table = np.divide(table, norms, out=np.zeros_like(table), where=norms > 0)
    links = table @ table.T
    np.fill_diagonal(links, 0.0)
    sums = links.sum(axis=1, keepdims=True)
    links = np.divide(links, sums, out=np.full_like(links, 1 / len(lines)), where=sums > 0)
    early = 1 / np.sqrt(np.arange(1, len(lines) + 1))
    early /= early.sum()
    weight = early
    for _ in range(50):
        weight = (1 - _DAMPING) * early + _DAMPING * (weight @ links)

    def place(i: int) -> tuple[bool, float, int]:
        return len(lines[i].split()) < _FULL, -round(float(weight[i]), 9), i

    return sorted(range(len(lines)), key=place)


def _filled(
    own: Sequence[str], kept: Sequence[str], room: int, count: Callable[[str], int]
) -> list[tuple[int, str]]:
    places = [i for i, line in enumerate(own) if readable(line)]
    seen = [frozenset(terms(line)) for line in kept]
    found: list[tuple[int, str]] = []
    for i in central([own[place] for place in places]):
        line = own[places[i]]
        words = frozenset(terms(line))
        size = count(line) + 1
        if size > room or any(alike(words, other) for other in seen):
            continue
        found.append((places[i], line))
        seen.append(words)
        room -= size
    return found


def _places(own: Sequence[str]) -> dict[tuple[str, ...], int]:
    """The first sentence that each run of three words stands in."""
    words = [(word, place) for place, line in enumerate(own) for word in _words(line)]
    at: dict[tuple[str, ...], int] = {}
    for i in range(len(words) - _RUN + 1):
        at.setdefault(tuple(word for word, _ in words[i : i + _RUN]), words[i][1])
    return at


def _borne_out(line: str, at: dict[tuple[str, ...], int]) -> tuple[int, float]:
    """Where in the text a sentence belongs, and the share of its words that stand there."""
    words = _words(line)
    covered: set[int] = set()
    places: Counter[int] = Counter()
    for i in range(len(words) - _RUN + 1):
        place = at.get(tuple(words[i : i + _RUN]))
        if place is not None:
            covered.update(range(i, i + _RUN))
            places[place] += 1
    if not covered:
        return 0, 0.0
    most = max(places.values())
    return min(p for p, times in places.items() if times == most), len(covered) / len(words)


def _line(piece: str) -> str:
    """A sentence on one line, without the heading above it."""
    return " ".join(_HEADING.sub("", piece).split())


def _words(line: str) -> list[str]:
    return _WORD.findall(line.lower())
