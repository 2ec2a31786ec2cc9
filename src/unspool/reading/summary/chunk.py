"""Cut a text into chunks for a summary: whole paragraphs while they fit, then whole sentences.

What: paragraphs (lines) are packed in order, joined by a newline, while the chunk has at most
`size` tokens. A longer paragraph joins the open chunk and is cut back to the last but one sentence
end until it fits, or to a comma where there are not two sentence ends; what is left is cut in the
same way and its tail opens the next chunk.
Source: Chang et al. (2023), arXiv 2310.00785, section 2, and its released `chunk.py`, whose cuts
these are.
Differs from the release: where not even a comma helps, it loses the rest of the paragraph and then
stops with an error; here that piece stays over-long, or is divided at white space, and nothing is
lost. The cut is found by bisection, which takes token counts to grow with the text.
Cost: about log(sentences) counts a cut; each paragraph counts the open chunk anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from unspool.errors import ConfigError

CountTokens = Callable[[str], int]

_ENDS = ".?!"
_QUOTES = "\"'"


def chunk(
    text: str, size: int, count: CountTokens, *, keep_empty: bool = False, divide: bool = False
) -> list[str]:
    """The chunks of a text, in order.

    Without newlines the chunks joined are the text joined. A text that fits is one chunk.

    Args:
        text: Of any length.
        size: Most tokens of a chunk.
        count: Tokens of a text.
        keep_empty: Keep empty paragraphs.
        divide: Divide a piece without sentence ends and commas at white space, or anywhere where
            there is none; otherwise such a piece stays longer than `size`.

    Raises:
        ConfigError: The size is below 1.
    """
    if size < 1:
        raise ConfigError(f"A chunk must hold at least 1 token, got size={size}.")
    paragraphs = [p for p in text.split("\n") if p or keep_empty]
    whole = "\n".join(paragraphs)
    if not whole:
        return []
    if count(whole) <= size:
        return [whole]
    found = _packed(paragraphs, size, count)
    return [
        piece for each in found for piece in (_divided(each, size, count) if divide else [each])
    ]


def _packed(paragraphs: Sequence[str], size: int, count: CountTokens) -> Iterator[str]:
    held = ""
    for paragraph in paragraphs:
        joined = f"{held}\n{paragraph}" if held else paragraph
        if count(paragraph) > size:
            first, rest = _cut(joined, size, count)
            yield first
            while count(rest) > size:
                first, rest = _cut(rest, size, count)
                yield first
            held = rest
        elif count(joined) > size:
            yield held
            held = paragraph
        else:
            held = joined
    if held:
        yield held


def _cut(text: str, size: int, count: CountTokens) -> tuple[str, str]:
    """The longest beginning that ends a sentence, not the last one, and fits; and the rest."""
    if count(text) <= size:
        return text, ""
    ends = [i + 1 for i in _places(text, comma=False)]
    at = _largest(text, ends[:-1], size, count)
    if at:
        return text[:at], text[at:]
    if len(ends) > 1:
        text, after = text[: ends[0]], text[ends[0] :]
    else:
        after = ""
    ends = [i + 1 for i in _places(text, comma=True)]
    at = _largest(text, ends[:-1], size, count)
    if not at:  # the shortest piece there is, or the whole where nothing divides it
        at = ends[0] if len(ends) > 1 else len(text)
    return text[:at], text[at:] + after


def _largest(text: str, ends: Sequence[int], size: int, count: CountTokens) -> int:
    """The largest of the ends up to which the text fits; 0 if none."""
    low, high = 0, len(ends)
    while low < high:
        middle = (low + high) // 2
        if count(text[: ends[middle]]) <= size:
            low = middle + 1
        else:
            high = middle
    return ends[low - 1] if low else 0


def _places(text: str, *, comma: bool) -> list[int]:
    """Where a sentence ends: at . ? ! and at a quote right behind one; with commas too."""
    ends = _ENDS + "," if comma else _ENDS
    return [
        i
        for i, c in enumerate(text)
        if c in ends or (c in _QUOTES and i > 0 and text[i - 1] in _ENDS)
    ]


def _divided(text: str, size: int, count: CountTokens) -> Iterator[str]:
    """A piece in halves, cut near the middle at white space, until every part fits."""
    if len(text) < 2 or count(text) <= size:
        yield text
        return
    middle = len(text) // 2
    spaces = (text.rfind(" ", 1, middle), text.find(" ", middle, len(text) - 1))
    ends = [space + 1 for space in spaces if space >= 0] or [middle]
    at = min(ends, key=lambda end: abs(end - middle))
    yield from _divided(text[:at], size, count)
    yield from _divided(text[at:], size, count)
