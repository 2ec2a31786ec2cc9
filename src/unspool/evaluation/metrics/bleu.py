"""Corpus BLEU-4 without smoothing, on Moses 13a tokens or Chinese characters.

Source: Papineni et al. (2002), equations 1-5; the tokenizers are those of sacreBLEU 2 (`13a`,
`zh`); the shortest reference sets the brevity penalty, as in the `bleu` that M4LE uses.
Differs from the released code: a corpus without any predicted token scores 0 (there: division by
zero).
Cost: O(length). A corpus figure is a sum of counts: `bleu_counts` of each item, `bleu` of the sums.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from unspool.errors import ConfigError, InputError

ORDERS = 4

_SYMBOLS = re.compile(r"([{-~\[-` -&(-+:-@/])")
_STOP_AFTER_OTHER = re.compile(r"([^0-9])([.,])")
_STOP_BEFORE_OTHER = re.compile(r"([.,])([^0-9])")
_DASH_AFTER_DIGIT = re.compile(r"([0-9])(-)")
_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))

_ZH = re.compile(
    "(["
    # sacreBLEU writes its extension B as the pair of strings '\u20000'-'\u2a6d6', which compare as
    # U+2001-U+2A6D: general punctuation, arrows and mathematics are split off too.
    "\u2001-\u2a6d"
    "\u2e80-\u2fdf\u2ff0-\u303f\u3100-\u312f\u31a0-\u31bf\u31c0-\u31ef\u3200-\u4db5\u4e00-\u9fbb"
    "\uf900-\ufa2d\ufa30-\ufa6a\ufa70-\ufad9\ufe10-\ufe1f\ufe30-\ufe4f\uff00-\uffef"
    "])"
)


class BleuCounts(NamedTuple):
    """What one item adds to a corpus: matched and possible n-grams of orders 1-4, and lengths."""

    matches: tuple[int, ...]
    possible: tuple[int, ...]
    given: int
    wanted: int
    """Tokens of the shortest reference."""


def tokens_13a(text: str) -> list[str]:
    """Moses' mteval-v13a tokens."""
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    if "&" in text:
        for entity, character in _ENTITIES:
            text = text.replace(entity, character)
    return _tokens(f" {text} ")


def tokens_zh(text: str) -> list[str]:
    """Each Chinese character a token, the rest as 13a splits it (without its entities)."""
    return _tokens(_ZH.sub(r" \1 ", text.strip()))


def _tokens(text: str) -> list[str]:
    text = _SYMBOLS.sub(r" \1 ", text)
    text = _STOP_AFTER_OTHER.sub(r"\1 \2 ", text)
    text = _STOP_BEFORE_OTHER.sub(r" \1 \2", text)
    return _DASH_AFTER_DIGIT.sub(r"\1 \2 ", text).split()


_TOKENIZERS = {"13a": tokens_13a, "zh": tokens_zh}


def bleu_counts(prediction: str, references: Sequence[str], *, tokens: str = "13a") -> BleuCounts:
    """Counts of one prediction against its references, clipped by the most of any reference."""
    if not references:
        raise InputError("BLEU needs at least one reference, got none.")
    cut = _TOKENIZERS.get(tokens)
    if cut is None:
        raise ConfigError(f"BLEU tokens are {' or '.join(_TOKENIZERS)}, got {tokens!r}.")
    given = cut(prediction)
    wanted = [cut(reference) for reference in references]
    most: Counter[tuple[str, ...]] = Counter()
    for each in wanted:
        most |= _ngrams(each)
    overlap = _ngrams(given) & most
    matches = [0] * ORDERS
    for ngram, count in overlap.items():
        matches[len(ngram) - 1] += count
    possible = tuple(max(len(given) - n, 0) for n in range(ORDERS))
    return BleuCounts(tuple(matches), possible, len(given), min(map(len, wanted)))


def bleu(items: Iterable[BleuCounts]) -> float:
    """BLEU of a corpus, in 0-1.

    Raises:
        InputError: The references hold no token.
    """
    matches, possible = [0] * ORDERS, [0] * ORDERS
    given = wanted = 0
    for item in items:
        matches = [a + b for a, b in zip(matches, item.matches, strict=True)]
        possible = [a + b for a, b in zip(possible, item.possible, strict=True)]
        given += item.given
        wanted += item.wanted
    if not wanted:
        raise InputError("BLEU is undefined: the references hold no token.")
    if not given:
        return 0.0
    precisions = [m / p if p else 0.0 for m, p in zip(matches, possible, strict=True)]
    mean = 0.0
    if min(precisions) > 0:
        mean = math.exp(sum((1.0 / ORDERS) * math.log(p) for p in precisions))
    ratio = given / wanted
    return mean * (1.0 if ratio > 1.0 else math.exp(1 - 1.0 / ratio))


def _ngrams(tokens: Sequence[str]) -> Counter[tuple[str, ...]]:
    counts: Counter[tuple[str, ...]] = Counter()
    for n in range(1, ORDERS + 1):
        counts.update(zip(*(tokens[i:] for i in range(n)), strict=False))
    return counts
