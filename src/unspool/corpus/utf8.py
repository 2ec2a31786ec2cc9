"""Check UTF-8 in pieces, or replace what is not UTF-8, without a str of the whole text.

Source: the Unicode Standard 15.0, section 3.9, table 3-7 (well-formed byte sequences) and the
    substitution of maximal subparts, both as CPython's decoder applies them.
Cost: one pass; at most one piece of 1 MiB is held as str.
"""

from __future__ import annotations

from codecs import utf_8_decode
from typing import NamedTuple

_PIECE = 1 << 20
_REPLACEMENT = "\ufffd".encode()


class Repaired(NamedTuple):
    """Valid UTF-8, the number of sequences that U+FFFD replaced, and how many bytes they had."""

    data: bytes
    sequences: int
    replaced_bytes: int


def first_invalid(data: bytes) -> int | None:
    """Byte offset of the first sequence that is not UTF-8; None if all of it is."""
    if len(data) <= _PIECE:
        try:
            data.decode()
        except UnicodeDecodeError as error:
            return error.start
        return None
    view, position, end = memoryview(data), 0, len(data)
    while position < end:
        piece = view[position : position + _PIECE]
        try:
            _, consumed = utf_8_decode(piece, "strict", position + len(piece) == end)
        except UnicodeDecodeError as error:
            return position + error.start
        position += consumed
    return None


def repair(data: bytes) -> Repaired:
    """Replace each maximal ill-formed subsequence by U+FFFD; valid data comes back as it is."""
    if first_invalid(data) is None:
        return Repaired(data, 0, 0)
    view, position, end = memoryview(data), 0, len(data)
    pieces: list[bytes] = []
    while position < end:
        piece = view[position : position + _PIECE]
        text, consumed = utf_8_decode(piece, "replace", position + len(piece) == end)
        pieces.append(text.encode())
        position += consumed
    out = b"".join(pieces)
    # EF BF BD is well formed wherever it stands, so what was there before can be told apart.
    sequences = out.count(_REPLACEMENT) - data.count(_REPLACEMENT)
    kept = len(out) - len(_REPLACEMENT) * sequences
    return Repaired(out, sequences, len(data) - kept)
