"""Which passages of an index does a model recite? The baseline that trains nothing.

What: `recited` takes texts that any model wrote and finds the longest pieces of them that the index
holds word for word; no model is run. `probe` draws passages of the index, shows a model the first
part of each and compares what it says with what follows; any model will do, behind an endpoint too.
Source: Carlini et al. (2021), "Extracting Training Data from Large Language Models", section 3;
Carlini et al. (2023), "Quantifying Memorization Across Neural Language Models", section 3 (prompt
with a prefix, greedy decoding, exact continuation).
Departures: lengths are bytes of text, not tokens, so that models with different tokenizers can be
compared; both parts begin at a word, where the script parts words by blanks, and blanks between
them are not compared.
Cost: one trace a text; `probe` one generation and one trace a passage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unspool.errors import ConfigError, InputError
from unspool.forensics.extract._resume import PASSAGES, resumed
from unspool.index.engine import Index
from unspool.types import Document, LanguageModel, Span

_AHEAD = 64
"""Bytes in which a word may end."""
_BLANKS = b" \n\t\r"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSettings:
    """Which passages are asked."""

    passages: int = 100
    prefix: int = 200
    """Bytes that are shown."""
    suffix: int = 200
    """Bytes that are asked for."""
    max_tokens: int = 100
    """Most tokens of an answer: enough for `suffix` bytes."""
    seed: int = 0

    def __post_init__(self) -> None:
        least = min(self.passages, self.prefix, self.suffix, self.max_tokens)
        if least < 1:
            raise ConfigError(
                f"passages, prefix, suffix and max_tokens must be >= 1, got {self.passages}, "
                f"{self.prefix}, {self.suffix} and {self.max_tokens}."
            )


@dataclass(frozen=True, slots=True)
class Recited:
    """A piece of a text that stands in the index."""

    output: str
    """Id of the text."""
    start: int
    end: int
    """Bytes of the text."""
    text: str
    count: int
    """How often the index holds it."""
    sources: tuple[Span, ...]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "sources": [s.to_json() for s in self.sources]}


def recited(
    outputs: Iterable[Document], index: Index, *, min_length: int = 100, max_sources: int = 3
) -> list[Recited]:
    """The pieces of texts that an index holds, the longest first.

    Args:
        outputs: Texts that a model wrote.
        index: An index of bytes.
        min_length: Fewest bytes of a piece. Common phrases are shorter than that.
        max_sources: Most places named of each.

    Raises:
        ConfigError: The index holds tokens, or `min_length` is below 1.
    """
    _check_bytes(index)
    found = [
        Recited(output.id, piece.start, piece.end, piece.text, piece.count, piece.sources)
        for output in outputs
        for piece in index.trace(output.text, min_length=min_length, max_sources=max_sources)
    ]
    return sorted(found, key=lambda r: (r.start - r.end, r.output, r.start))


def probe(
    model: LanguageModel,
    index: Index,
    settings: ProbeSettings | None = None,
    *,
    out: str | Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Show a model the beginnings of passages and compare what it says with how they go on.

    Args:
        model: Any model.
        index: An index of bytes of what it may have been trained on.
        settings: Which passages are asked.
        out: A JSON lines file that rows are appended to; the same call goes on after a stop.
        on_progress: Called with passages done and passages in all.

    Returns:
        A row a passage: the Span that was asked for (`document`, `start`, `end`, `text`), `agreed`
        bytes before the first difference, `recited` (all agreed), `longest` bytes of the answer
        that stand anywhere in the index, and the `answer`.

    Raises:
        ConfigError: The index holds tokens.
        InputError: No document is long enough.
        RunConflict: `out` was begun with other settings, another model or index.
    """
    settings = settings or ProbeSettings()
    _check_bytes(index)
    chosen = draw(index, settings)
    info = index.info()
    head = {
        "kind": PASSAGES,
        "model": model.name,
        "index": [info.documents, info.symbols],
        "settings": asdict(settings),
    }
    with resumed(out, head) as (held, append):
        rows = held
        for number in range(len(rows), len(chosen)):
            row = _ask(model, index, *chosen[number], settings)
            append(row)
            rows.append(row)
            on_progress(number + 1, len(chosen))
    return rows


def draw(index: Index, settings: ProbeSettings) -> list[tuple[Span, Span]]:
    """What is shown and what is asked for, from documents drawn by the seed.

    Raises:
        InputError: A thousand draws a passage found no document that is long enough.
    """
    random = np.random.default_rng(settings.seed)
    needed = settings.prefix + settings.suffix + 2 * _AHEAD
    found: list[tuple[Span, Span]] = []
    for _ in range(1000 * settings.passages):
        if len(found) == settings.passages:
            break
        number = int(random.integers(len(index)))
        length = index.document_length(number)
        if length < needed:
            continue
        at = int(random.integers(length - needed + 1))
        start = at + _word(index.extract(number, at, at + _AHEAD))[1]
        ahead = start + settings.prefix
        end, middle = (ahead + n for n in _word(index.extract(number, ahead, ahead + _AHEAD)))
        wanted = index.quote(number, middle, min(middle + settings.suffix, length))
        found.append((index.quote(number, start, end), wanted))
    if not found:
        raise InputError(
            f"No document of the index has a passage of {needed} bytes. Ask for a shorter prefix "
            f"and suffix."
        )
    return found


def _word(data: bytes) -> tuple[int, int]:
    """Where the first run of blanks begins and ends; without one, where a character begins."""
    begin = next((i for i, b in enumerate(data) if b in _BLANKS), None)
    if begin is not None:
        end = next((i for i in range(begin, len(data)) if data[i] not in _BLANKS), None)
        if end is not None:
            return begin, end
    begin = next((i for i, b in enumerate(data) if b & 0xC0 != 0x80), 0)
    return begin, begin


def _ask(
    model: LanguageModel, index: Index, shown: Span, wanted: Span, settings: ProbeSettings
) -> dict[str, Any]:
    (said,) = model.generate([shown.text], max_tokens=settings.max_tokens)
    truth = index.extract(wanted.document, wanted.start, wanted.end)
    given = said.text.lstrip().encode()  # the passage goes on behind the blanks
    agreed = next(
        (i for i, (a, b) in enumerate(zip(given, truth, strict=False)) if a != b),
        min(len(given), len(truth)),
    )
    lengths = index.longest_match(given).lengths if given else np.zeros(1, dtype=np.int64)
    return {
        **wanted.to_json(),
        "shown": shown.text,
        "answer": said.text,
        "agreed": agreed,
        "recited": agreed == len(truth),
        "longest": int(lengths.max()),
        # An answer that ended early could not have agreed in every byte.
        "short": agreed == len(given) < len(truth),
    }


def _check_bytes(index: Index) -> None:
    alphabet = index.info().alphabet
    if alphabet != "bytes":
        raise ConfigError(
            f"The index holds tokens ({alphabet}), and what a model says is compared byte by byte. "
            f"Build an index with --alphabet bytes."
        )


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Shares and means over the rows of `probe`."""
    agreed = np.array([row["agreed"] for row in rows])
    return {
        "passages": len(rows),
        "recited": sum(row["recited"] for row in rows) / len(rows),
        "agreed_mean": float(agreed.mean()),
        "agreed_most": int(agreed.max()),
        "short": sum(row["short"] for row in rows),
    }
