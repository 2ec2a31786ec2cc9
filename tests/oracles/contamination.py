"""Contamination by definition, over documents held as bytes; it never imports the project."""

from __future__ import annotations

from collections.abc import Sequence


def starts(text: str, size: int, stride: str | int) -> list[int]:
    """Position 0 and each first character after a blank, if a whole window fits."""
    found = []
    for at in range(len(text) - size + 1):
        if isinstance(stride, int):
            here = at % stride == 0
        else:
            here = at == 0 or (text[at - 1].isspace() and not text[at].isspace())
        if here:
            found.append(at)
    return found


def windows(fields: Sequence[str], size: int, stride: str | int) -> list[str]:
    """Windows of all fields; if none is long enough, the fields that are not blank."""
    cut = [t[s : s + size] for t in fields for s in starts(t, size, stride)]
    return cut or [t for t in fields if t.strip()]


def occurs(piece: str, documents: Sequence[bytes]) -> bool:
    return any(piece.encode() in document for document in documents)


def eta(
    fields: Sequence[str], documents: Sequence[bytes], size: int, stride: str | int
) -> float | None:
    """Share of windows that stand in some document."""
    cut = windows(fields, size, stride)
    return sum(occurs(w, documents) for w in cut) / len(cut) if cut else None
