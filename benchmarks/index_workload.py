"""The folder that every engine is measured on: documents, the same joined, and the queries.

`documents.jsonl` holds the documents (`id`, `text`); `joined.txt` the same text with U+0001 between
documents, for engines that know no documents; `queries.bin` and `workload.json` the queries:

- `counts`: pieces of 4, 8, 16, 32 and 64 bytes cut at random places of the text, in equal shares;
- `locate`: strings that occur between 1,000 and 20,000 times;
- `prompts`: 64-byte pieces of documents that are not in the index, each with the byte after it.

Pieces are cut at character boundaries, since some peers take only str. Same input and seed, same
bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

SEPARATOR = "\x01"
LENGTHS = (4, 8, 16, 32, 64)
PROMPT_BYTES = 64


def twice(documents: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Every document, then every document again under another id."""
    kept = list(documents)
    yield from kept
    for name, text in kept:
        yield f"{name}#again", text


def _piece(data: bytes, at: int, length: int) -> bytes | None:
    """data[at:at+length] if that is whole characters without a separator, else None."""
    piece = data[at : at + length]
    if len(piece) < length or b"\x01" in piece:
        return None
    try:
        piece.decode()
    except UnicodeDecodeError:
        return None
    return piece


def _pieces(data: bytes, length: int, number: int, rng: random.Random) -> list[bytes]:
    found: list[bytes] = []
    for _ in range(100 * number):
        piece = _piece(data, rng.randrange(max(1, len(data) - length)), length)
        if piece is not None:
            found.append(piece)
            if len(found) == number:
                break
    return found


def _frequent(data: bytes, number: int, rng: random.Random) -> list[bytes]:
    """Strings with 1,000 to 20,000 occurrences, or the most frequent ones a small text has."""
    found: dict[bytes, int] = {}
    for length in (6, 5, 7, 8, 4, 3):
        for piece in _pieces(data, length, 40, rng):
            hits = data.count(piece)
            if 1000 <= hits <= 20_000 and all(piece not in f and f not in piece for f in found):
                found[piece] = hits
            if len(found) == number:
                return list(found)
    return list(found)


def make(
    folder: Path,
    documents: Iterable[tuple[str, str]],
    held_out: Iterable[str],
    *,
    per_length: int = 1000,
    prompts: int = 1000,
    locates: int = 5,
    seed: int = 0,
) -> None:
    """Write the folder; `workload.json` is written last."""
    done = folder / "workload.json"
    folder.mkdir(parents=True, exist_ok=True)
    joined, number = [], 0
    with open(folder / "documents.jsonl", "w", encoding="utf-8") as lines:
        for name, text in documents:
            text = text.replace(SEPARATOR, " ")
            lines.write(json.dumps({"id": name, "text": text}, ensure_ascii=False) + "\n")
            joined.append(text)
            number += 1
    data = SEPARATOR.join(joined).encode()
    del joined
    (folder / "joined.txt").write_bytes(data)
    rng = random.Random(seed)
    counts = [piece for length in LENGTHS for piece in _pieces(data, length, per_length, rng)]
    rng.shuffle(counts)
    locate = _frequent(data, locates, rng)
    unseen = SEPARATOR.join(held_out).encode()
    asked = [p for p in _pieces(unseen, PROMPT_BYTES + 1, 4 * prompts, rng) if p[-1] < 128]
    workload = {
        "documents": number,
        "bytes": len(data) - (number - 1),
        "sha256": hashlib.sha256(data).hexdigest(),
        "seed": seed,
        "counts": [q.decode() for q in counts],
        "locate": [q.decode() for q in locate],
        "prompts": [[p[:-1].decode(), p[-1]] for p in asked[:prompts]],
    }
    with open(folder / "queries.bin", "wb") as file:
        file.write(struct.pack("<I", len(counts) + len(locate)))
        for query in [*counts, *locate]:
            file.write(struct.pack("<I", len(query)) + query)
    part = done.with_suffix(".part")
    part.write_text(json.dumps(workload, ensure_ascii=False), encoding="utf-8")
    os.replace(part, done)


def load(folder: Path) -> dict[str, Any]:
    """What `workload.json` of a folder holds."""
    found: dict[str, Any] = json.loads((folder / "workload.json").read_text(encoding="utf-8"))
    return found
