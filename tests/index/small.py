"""A small corpus of several files and kinds, and ways to compare what was built of it."""

from __future__ import annotations

import json
import random
from pathlib import Path

WORDS = ["the", "of", "and", "long", "text", "index", "naïve", "漢字", "🙂", "café", "search\n"]


def make_corpus(folder: Path, files: int = 12, seed: int = 0) -> dict[str, bytes]:
    """Write some files; returns the bytes that each document id should have."""
    rng = random.Random(seed)
    expected: dict[str, bytes] = {}
    for number in range(files):
        text = " ".join(rng.choices(WORDS, k=rng.choice([0, 1, 40, 300])))
        name = f"part{number % 3}/{number:03d}.txt"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
        expected[name] = text.encode()
    lines = []
    for number in range(30):
        text = " ".join(rng.choices(WORDS, k=rng.randrange(60)))
        lines.append(json.dumps({"id": f"rec-{number}", "text": text, "n": number}))
        expected[f"rec-{number}"] = text.encode()
    (folder / "records.jsonl").write_text("\n".join(lines) + "\n")
    return expected


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of an index but run.json, which may say when and where it was built."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }
