"""Cut a record into windows that an encoder can read, and say which tokens are global.

What: token ids of one or several windows a record, with their special tokens, segments, global
tokens, and the tokens that each window decides.
Source: Beltagy et al. (2020), "Longformer", sections 3.1 and 6: the first token is global for
classes, all tokens of the question for answers. For inference the hypothesis is the question.
Differs from the scripts released with Clinical-Longformer: tags see the whole record, not single
sentences; a record longer than the encoder is read with an overlap, and each token is decided by
the window that has more around it.
Cost: windows of at most `length` tokens, about n / (length - overlap) of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from unspool._overflow import fit, shorten
from unspool.errors import ConfigError, InputError
from unspool.models.long_encoder.tasks.examples import Example, TaskName
from unspool.types import Overflow


class Window(NamedTuple):
    """One row of a batch."""

    ids: list[int]
    types: list[int]
    is_global: list[bool]
    first: int
    """Where the record's tokens begin in the row."""
    start: int
    """Token of the record that stands there."""
    stop: int
    """Token of the record after the last one here."""
    own: tuple[int, int]
    """Tokens of the record that this window decides."""


class Encoded(NamedTuple):
    """A record as an encoder reads it."""

    windows: tuple[Window, ...]
    offsets: tuple[tuple[int, int], ...]
    """Characters of each token of the record."""
    words: tuple[int, ...]
    """ner: the word of each token."""
    dropped: int
    """Tokens that no window holds."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read of some records."""

    records: int = 0
    tokens: int = 0
    """Of the records, without questions and special tokens."""
    windows: int = 0
    windowed: int = 0
    """Records read in several windows."""
    dropped_tokens: int = 0

    def to_json(self) -> dict[str, int]:
        return asdict(self)


def reading_of(encoded: Sequence[Encoded]) -> Reading:
    """Counts over records."""
    return Reading(
        records=len(encoded),
        tokens=sum(len(each.offsets) + each.dropped for each in encoded),
        windows=sum(len(each.windows) for each in encoded),
        windowed=sum(len(each.windows) > 1 for each in encoded),
        dropped_tokens=sum(each.dropped for each in encoded),
    )


def encode(
    task: TaskName,
    example: Example,
    tokenizer: Any,
    *,
    length: int,
    overlap: int,
    on_overflow: Overflow,
    segments: bool,
) -> Encoded:
    """One record as windows.

    Args:
        task: Decides the order of the parts and the global tokens.
        example: The record.
        tokenizer: A fast one, which knows where its tokens stand.
        length: Most tokens of a window.
        overlap: Tokens that two neighbours share; at most half of their room.
        on_overflow: A longer record is refused, cut (its end is dropped and counted) or read in
            several windows.
        segments: Whether the second part of a row has token type 1.

    Raises:
        InputError: The question leaves no room, or the record has no tokens.
        OverflowPolicyError: The record is too long and may neither be cut nor windowed.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigError("Tasks need a fast tokenizer, which knows where its tokens stand.")
    if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None:
        raise ConfigError("Tasks need a tokenizer with a cls and a sep token.")
    ids, offsets, words = _tokens(task, example, tokenizer)
    if not ids:
        raise InputError(f"Record {example.id!r} has no tokens.")
    asked = _ids(tokenizer, example.second) if example.second else []
    double = tokenizer.num_special_tokens_to_add(pair=True) - 2  # RoBERTa parts by two
    sep, between = [tokenizer.sep_token_id], [tokenizer.sep_token_id] * double
    head = [tokenizer.cls_token_id, *([*asked, *between] if task == "qa" else [])]
    tail = [*(between if task == "nli" else []), *(asked if task == "nli" else []), *sep]
    room = length - len(head) - len(tail)
    if room < 1:
        raise InputError(
            f"The {'question' if task == 'qa' else 'hypothesis'} of record {example.id!r} has "
            f"{len(asked):,} tokens, which leaves no room in {length:,}."
        )
    total = len(ids)
    if on_overflow == "error":
        fit(ids, room, "error", what=f"Record {example.id!r}")
    if on_overflow == "truncate":
        ids = shorten(ids, room, keep="head").ids
    kept = len(ids)
    shared = min(overlap, room // 2)
    starts = [*range(0, max(1, kept - room), room - shared)]
    if starts[-1] + room < kept:
        starts.append(kept - room)
    edges = [0]
    for one, other in pairwise(starts):
        edges.append((other + min(one + room, kept)) // 2)
    edges.append(kept)
    windows = []
    for number, start in enumerate(starts):
        inner = ids[start : start + room]
        row = [*head, *inner, *tail]
        if task == "qa":
            types = [0] * len(head) + [1] * (len(inner) + len(tail))
            is_global = [True] * len(head) + [False] * (len(inner) + len(tail))
        else:
            late = len(tail) - len(between) if task == "nli" else 0
            types = [0] * (len(row) - late) + [1] * late
            is_global = [True, *[False] * (len(row) - 1 - late), *[True] * late]
        windows.append(
            Window(
                row,
                types if segments else [0] * len(row),
                is_global,
                len(head),
                start,
                start + len(inner),
                (edges[number], edges[number + 1]),
            )
        )
    return Encoded(tuple(windows), offsets[:kept], words[:kept], total - kept)


def _ids(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return found


def _tokens(
    task: TaskName, example: Example, tokenizer: Any
) -> tuple[list[int], tuple[tuple[int, int], ...], tuple[int, ...]]:
    """Ids of a record's tokens, their characters and, for tags, their words."""
    text = example.text
    if task != "ner":
        found = tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        offsets = tuple((int(a), int(b)) for a, b in found["offset_mapping"])
        return list(found["input_ids"]), offsets, ()
    if not example.words:
        return [], (), ()
    # Each word by itself, after a blank where it has one, so that no token spans two words.
    blank = [" " if a == 0 or text[a - 1].isspace() else "" for a, _ in example.words]
    alone = [f"{ahead}{text[a:b]}" for ahead, (a, b) in zip(blank, example.words, strict=True)]
    pieces = tokenizer(alone, add_special_tokens=False, verbose=False)["input_ids"]
    words = tuple(number for number, piece in enumerate(pieces) for _ in piece)
    ids = [token for piece in pieces for token in piece]
    return ids, tuple(example.words[number] for number in words), words
