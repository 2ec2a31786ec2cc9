"""The words that follow a prompt, from the symbols that follow it.

What: a byte index knows which byte comes next; a word is several. The likeliest beginnings are
lengthened first, one `next` each, until so many words are complete; what is not complete by then
cannot be more frequent than what is.
Source: best-first search over the exact counts of "Infini-gram" (arXiv 2401.17377), section 2.
Departures: none; a word's count is the number of times it follows the prompt as a whole word. A
word is a run of letters, digits and `_`, with the space before it if the prompt has none; of
scripts written without spaces it is one character; anything else is one character too.
Cost: one `next` a byte of the words shown and of those that were tried, about 0.1 ms each.
"""

from __future__ import annotations

import heapq
from itertools import count as counter

from unspool.errors import QueryError
from unspool.index.alphabet import END
from unspool.index.engine import Index
from unspool.index.results import Distribution, NextSymbol

_MOST_BYTES = 64
_MOST_STEPS = 600


def next_words(index: Index, prompt: str, top: int = 10) -> Distribution:
    """The most frequent words after a prompt, most frequent first, with exact counts.

    Args:
        index: A token index gives tokens, which it has in place of words.
        prompt: The text before.
        top: Most words.

    Returns:
        A Distribution whose symbols have no number of their own (0), but -1 where the document
        ends; `distinct` is the number listed, and `prob` is of all times the prompt occurs.
    """
    if top < 1:
        raise QueryError(f"top must be at least 1, got {top}.")
    if index.info().alphabet != "bytes":
        return index.next(prompt, top)
    start = prompt.encode()
    total = index.count(start)
    found: list[NextSymbol] = []
    order = counter()
    # Entries are (-count, tie, bytes so far, whether the word is complete).
    heap: list[tuple[int, int, bytes, bool]] = [(-total, next(order), b"", False)] if total else []
    steps = 0
    while heap and len(found) < top and steps < _MOST_STEPS:
        negative, _, word, complete = heapq.heappop(heap)
        many = -negative
        if complete:
            symbol = 0 if word else END
            text = word.decode("utf-8", "replace")
            found.append(NextSymbol(symbol, text, many, many / total, len(start)))
            continue
        steps += 1
        ended = 0
        following = index.next(start + word).symbols
        for after in following:
            if after.symbol == END or _ends(word, after.symbol):
                ended += after.count
                continue
            longer = word + bytes([after.symbol])
            done = len(longer) >= _MOST_BYTES or _is_whole(longer)
            heapq.heappush(heap, (-after.count, next(order), longer, done))
        if ended:
            heapq.heappush(heap, (-ended, next(order), word, True))
    return Distribution(total, len(start), tuple(found), len(found))


def _is_letter(byte: int) -> bool:
    return byte >= 0x80 or byte == 0x5F or chr(byte).isalnum()


def _ends(word: bytes, byte: int) -> bool:
    """Whether a word that is begun ends before this byte."""
    body = word[1:] if word.startswith(b" ") else word
    return bool(body) and not _is_letter(byte)


def _is_whole(word: bytes) -> bool:
    """Whether nothing can belong to a word any more."""
    body = word[1:] if word.startswith(b" ") else word
    if not body:
        return False
    if not _is_letter(body[0]):
        return True
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return False  # a character is not complete yet
    return any(_stands_alone(character) for character in text)


def _stands_alone(character: str) -> bool:
    """Characters of scripts that put no spaces between words, and punctuation beyond ASCII."""
    code = ord(character)
    return code >= 0x80 and (
        0x0E00 <= code < 0x1000 or 0x2E80 <= code < 0xA000 or not character.isalnum()
    )
